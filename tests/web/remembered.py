"""A small world of memory on the real services: a customer with items and sessions, as agents and people leave them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from agentstate.core import clock
from agentstate.core.ids import public_id
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from memory.context import building
from memory.context.building import ContextRequest
from memory.services import items, messages, policies, progress, prompts, proposals, sessions, subjects
from memory.services.drafts import NewItem
from memory.services.messages import NewMessage
from memory.services.subjects import AliasIn
from memory.sources import Source

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

    def item(self, subject: str, text: str, **more: Any) -> str:
        with tenant_scope(self.tenant_id):
            kept = items.remember(UUID(hex=subject[8:]), NewItem(text, **more), actor=self.actor, reason="said so")
            assert kept.item is not None
        return public_id("item", kept.item.id)

    def propose(self, subject: str, item: str, text: str = "Never phone before 8:00") -> str:
        with tenant_scope(self.tenant_id):
            made = proposals.propose(
                UUID(hex=subject[8:]),
                act="update",
                new=NewItem(text),
                item_id=UUID(hex=item[5:]),
                method="rules",
                confidence=0.8,
                why="she said so",
                actor=self.actor,
            )
            assert made.proposal is not None
        return public_id("proposal", made.proposal.id)

    def progress(self, key: str, body: str) -> str:
        with tenant_scope(self.tenant_id):
            written = progress.write(key, body, agent="research-notes", actor=self.actor, reason="end of the run")
        return written.progress.public_id

    def prompt(self, agent: str, body: str) -> str:
        with tenant_scope(self.tenant_id):
            return prompts.write(agent, body, actor=self.actor, reason="as agreed").public_id

    def policy(self, agent: str, fields: dict[str, Any]) -> None:
        with tenant_scope(self.tenant_id):
            policies.set_for_agent(agent, fields, actor=self.actor, reason="as agreed")

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

    def ask(self, session: str, question: str, *, run: str = "", step_seq: int | None = None) -> UUID:
        """The context of a call, recorded as an agent's is: the id of the call."""
        source = Source(UUID(hex=run[4:]) if run else None, step_seq)
        with tenant_scope(self.tenant_id):
            request = ContextRequest(session_id=UUID(hex=session[8:]), question=question, source=source)
            built = building.build(request)
        assert built.call_id is not None
        return built.call_id

    def answer(self, session: str, text: str, *, run: str = "", step_seq: int | None = None) -> None:
        source = Source(UUID(hex=run[4:]) if run else None, step_seq)
        with tenant_scope(self.tenant_id):
            new = [NewMessage("assistant", text, author="support")]
            messages.append(UUID(hex=session[8:]), new, source=source, actor=self.actor)

    def _say(self, session_id: UUID, number: int) -> None:
        asks = NewMessage("user", f"Question {number}: one lamp of order {4400 + number} is broken.", author="Mara")
        answers = NewMessage("assistant", f"Answer {number}: I am sorry, a new lamp is on its way.")
        sent_at = clock.now() - timedelta(minutes=90 - number)
        both = [NewMessage(each.role, each.text, author=each.author, sent_at=sent_at) for each in (asks, answers)]
        messages.append(session_id, both, actor=self.actor)
