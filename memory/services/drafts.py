"""What somebody wants an item to say, checked field by field before anything is locked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime, timedelta
from enum import Enum
from math import isfinite
from typing import Any, Literal

from agentstate.core.clock import now
from agentstate.core.errors import Invalid
from agentstate.core.limits import ITEM_BYTES_MAX, NAME_CHARS_MAX, REASON_CHARS_MAX
from agentstate.tenants.actors import Actor
from memory import facts, policies, sealing, texts
from memory.models.item import KINDS
from memory.services.revising import Content
from memory.sources import Source

KEY_CHARS_MAX = 64  # of an idempotency key; a longer one is kept as its digest
UTF8_BYTES_PER_CHAR_MAX = 4


class Unset(Enum):
    """A field that an edit leaves as it is; None would empty it."""

    UNSET = "unset"


UNSET: Literal[Unset.UNSET] = Unset.UNSET


@dataclass(frozen=True, slots=True)
class NewItem:
    """`attribute` names what the text is about ("contact channel"): two items of one subject with it contradict.

    `expires_at` None: after the tenant's number of days. `importance`: 0 to 1.
    """

    text: str
    kind: str = "semantic"
    namespace: str = ""
    attribute: str = ""
    fact_kind: str = ""
    facts: Mapping[str, Any] | None = None
    importance: float = 0.5
    pinned: bool = False
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    expires_at: datetime | None = None

    def as_json(self) -> dict[str, Any]:
        """For a proposal's body; from_json() gives it back."""
        plain = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in plain.items()}


@dataclass(frozen=True, slots=True)
class ItemChanges:
    """What an edit changes; fields that are UNSET stay."""

    text: str | Unset = UNSET
    facts: Mapping[str, Any] | Unset | None = UNSET
    importance: float | Unset = UNSET
    valid_from: datetime | Unset = UNSET
    valid_to: datetime | Unset | None = UNSET
    expires_at: datetime | Unset | None = UNSET  # None: after the tenant's number of days from now

    def given(self) -> dict[str, Any]:
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in every.items() if value is not UNSET}


_TIMES = ("valid_from", "valid_to", "expires_at")


def from_json(body: Mapping[str, Any]) -> NewItem:
    """Raises: Invalid for fields that are no item's."""
    known = {field.name for field in fields(NewItem)}
    unknown = sorted(set(body) - known)
    if unknown or "text" not in body:
        raise Invalid(f"An item has a text, and no {', '.join(unknown) or 'other fields'}.", field="body")
    try:
        times = {name: datetime.fromisoformat(body[name]) for name in _TIMES if body.get(name) is not None}
    except (TypeError, ValueError) as error:
        raise Invalid("A time of this item is not ISO 8601.", field="body") from error
    return NewItem(**{**body, **times})


def checked(new: NewItem) -> tuple[NewItem, Content]:
    """The item as it would be kept. Raises: Invalid naming the field, TooLarge."""
    text = texts.clean(new.text, field="text", bytes_max=ITEM_BYTES_MAX).strip()
    if new.kind not in KINDS:
        raise Invalid(f"kind is one of {', '.join(KINDS)}.", field="kind")
    found = facts.validated(new.fact_kind, new.facts)
    content = Content(text, found, facts.current_version(new.fact_kind) if new.fact_kind else facts.VERSION_FIRST)
    times: dict[str, Any] = {name: instant(getattr(new, name), field=name) for name in _TIMES}
    times["valid_from"] = times["valid_from"] or now()
    check_times(**times)
    if new.pinned and new.expires_at is not None:
        raise Invalid("A pinned item does not expire: leave out expires_at, or do not pin it.", field="expires_at")
    namespace, attribute = name_in(new.namespace, field="namespace"), name_in(new.attribute, field="attribute")
    importance = number_in_unit(new.importance, field="importance")
    return replace(new, text=text, namespace=namespace, attribute=attribute, importance=importance, **times), content


def checked_source(source: Source) -> Source:
    """With a key that fits its column. Raises: Invalid."""
    if source.key is None:
        return source
    key = texts.clean(source.key, field="source.key", bytes_max=1_000)
    return source if len(key) <= KEY_CHARS_MAX else replace(source, key=hashlib.sha256(key.encode()).hexdigest())


def checked_reason(reason: str, actor: Actor) -> str:
    """People say why. Raises: Invalid."""
    reason = texts.optional(reason, field="reason", bytes_max=REASON_CHARS_MAX * UTF8_BYTES_PER_CHAR_MAX).strip()
    if len(reason) > REASON_CHARS_MAX:
        raise Invalid(f"The reason is longer than {REASON_CHARS_MAX:,} characters.", field="reason")
    if actor.kind == "user" and not reason:
        raise Invalid("Say why, in a few words: the next person will ask.", field="reason")
    return reason


def attribute_digest(new: NewItem) -> bytes | None:
    if not new.attribute:
        return None
    return sealing.digest("attribute", new.namespace, texts.normalised(new.attribute))


def expiry(policy: policies.TenantPolicy) -> datetime:
    return now() + timedelta(days=policy.expiry_days)


def name_in(name: str, *, field: str) -> str:
    found = texts.optional(name, field=field, bytes_max=NAME_CHARS_MAX * UTF8_BYTES_PER_CHAR_MAX).strip()
    if len(found) > NAME_CHARS_MAX:
        raise Invalid(f"{field} is longer than {NAME_CHARS_MAX} characters.", field=field)
    return found


def number_in_unit(number: object, *, field: str) -> float:
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not isfinite(number) or not 0 <= number <= 1:
        raise Invalid(f"{field} is a number from 0 to 1.", field=field)
    return float(number)


def instant(moment: object, *, field: str) -> datetime | None:
    """Raises: Invalid for a time without a zone, which would mean another moment on every machine."""
    if moment is None or (isinstance(moment, datetime) and moment.utcoffset() is not None):
        return moment
    raise Invalid(f"{field} is a time with its zone, such as 2026-01-31T12:00:00Z.", field=field)


def check_times(*, valid_from: datetime, valid_to: datetime | None, expires_at: datetime | None) -> None:
    if valid_to is not None and valid_to < valid_from:
        raise Invalid("valid_to lies before valid_from.", field="valid_to")
    if expires_at is not None and expires_at <= now():
        raise Invalid("expires_at has passed already.", field="expires_at")
