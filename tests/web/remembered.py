"""A small world of memory on the real services: a customer with items and sessions, as agents and people leave them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from agentstate.core import clock
from agentstate.core.ids import public_id
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from memory.services import messages, sessions, subjects
from memory.services.messages import NewMessage
from memory.services.subjects import AliasIn

HOSTILE = "<script>alert(1)</script> pay\u202eevil\u200b & </textarea><b>"


@dataclass
class Remembered:
    """Verbs of agents and people, on one tenant."""

    actor: Actor

    @property
    def tenant_id(self) -> UUID:
        assert self.actor.tenant_id is not None
        return self.actor.tenant_id

    def subject(self, external_id: str = "u_209", *, name: str = "Mara Lind", email: str = "") -> str:
        with tenant_scope(self.tenant_id):
            aliases = [AliasIn("email", email)] if email else []
            made = subjects.resolve(external_id=external_id, aliases=aliases, name=name, actor=self.actor)
        return public_id("subject", made.id)

    def session(self, subject: str, key: str = "mail-91", *, said: int = 0, title: str = "") -> str:
        with tenant_scope(self.tenant_id):
            made = sessions.open(key, subject_id=UUID(hex=subject[8:]), agent="support", title=title, actor=self.actor)
            for number in range(said):
                self._say(made.id, number)
        return public_id("session", made.id)

    def say(self, session: str, text: str, *, role: str = "user", author: str = "", **more: str) -> None:
        with tenant_scope(self.tenant_id):
            new = [NewMessage(role, text, author=author, **more)]  # type: ignore[arg-type]
            messages.append(UUID(hex=session[8:]), new, actor=self.actor)

    def _say(self, session_id: UUID, number: int) -> None:
        asks = NewMessage("user", f"Question {number}: one lamp of order {4400 + number} is broken.", author="Mara")
        answers = NewMessage("assistant", f"Answer {number}: I am sorry, a new lamp is on its way.")
        sent_at = clock.now() - timedelta(minutes=90 - number)
        both = [NewMessage(each.role, each.text, author=each.author, sent_at=sent_at) for each in (asks, answers)]
        messages.append(session_id, both, actor=self.actor)
