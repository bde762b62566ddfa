"""What stands in a form of these pages: what was typed, and what is wrong with it. It survives every refusal."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from agentstate.core.clock import now
from agentstate.core.errors import DomainError
from agentstate.tenants.actors import Actor
from memory.selectors.as_of import Moment
from memory.services import receipts

TOKEN_CHARS = 32


@dataclass(frozen=True, slots=True)
class Form:
    values: Mapping[str, str] = field(default_factory=dict)
    token: str = ""  # of this showing of the form: sent twice, it counts once
    problem: str = ""
    problem_field: str = ""
    status: int = 200

    def refused(self, error: DomainError) -> Form:
        """The same form with what a service said; its field is the last part of the place it names."""
        place = error.field.strip("/").replace(".", "/").rpartition("/")[2]
        return replace(self, problem=error.message, problem_field=place, status=error.http_status)


def fresh(**values: str) -> Form:
    return Form(values, secrets.token_hex(TOKEN_CHARS // 2))


def typed(posted: Mapping[str, str], *names: str) -> Form:
    """These fields as they were sent, with line ends as people mean them."""
    values = {name: posted.get(name, "").replace("\r\n", "\n") for name in names}
    return Form(values, posted.get("client_token", "")[:TOKEN_CHARS])


def once(form: Form, act: Callable[[], Any], *, actor: Actor, what: str) -> Any:
    """What `act` answers (plain JSON); a double click or a form sent again gets the same answer, nothing more is done.

    Asserts a transaction. Raises: what `act` raises, and then nothing is written.
    """
    if not form.token:
        return act()
    return receipts.once(form.token, form.values, act, by=f"form:{actor.kind}:{actor.id}:{what}")


def number(text: str) -> int | None:
    """A whole number as people type it: 8192, 8,192 or 8 192. None for anything else."""
    digits = text.replace(",", "").replace(" ", "").replace("\u202f", "")
    return int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 10 else None


def moment(text: str) -> datetime | None:
    """A moment as datetime-local fields send it, in UTC; None for what cannot be read."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found


@dataclass(frozen=True, slots=True)
class AsOf:
    """What a form asks about the past. `text` stays as it was typed; `at` is None when it cannot be read."""

    text: str = ""
    by: str = "then"  # as it was known then, or as it is known now
    at: datetime | None = None

    @property
    def moment(self) -> Moment | None:
        if self.at is None:
            return None
        return Moment(true_at=self.at, known_at=self.at if self.by == "then" else now())


def as_of(query: Mapping[str, str]) -> AsOf:
    text = query.get("as_of", "").strip()[:40]
    return AsOf(text, "now" if query.get("known") == "now" else "then", moment(text) if text else None)
