"""The feedback fence: text that came out of memory or of a prompt does not go into memory again.

An agent that reads its memory says it again in other clothes; stored each time, memory fills with echoes of itself.
Refused are texts whose source messages are marked as ours, and sentences that only restate an item, a prompt, what was
put into this run or session before, or the summary of another session. What a person said is compared with items and
prompts only: it is new to us although an agent has read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from agentstate.core import restating
from agentstate.core.errors import Invalid
from agentstate.core.ids import public_id
from agentstate.core.limits import ITEM_SOURCES_MAX
from agentstate.core.verdict import Refusal, Verdict, judged
from memory import sealing
from memory.models import Message, Subject
from memory.selectors import injected
from memory.services.revising import Held
from memory.sources import Source

PERSON = "user"


@dataclass(frozen=True, slots=True)
class Spoken:
    """The messages that a write names as its source."""

    session_ids: frozenset[UUID]
    ours: tuple[UUID, ...]  # whose text came out of memory or a prompt
    by_person: bool  # all of it was said by the person


def spoken(subject: Subject, source: Source) -> Spoken:
    """One statement, none without messages. Raises: Invalid for messages that are not there or not the subject's."""
    wanted = set(source.message_ids)
    if len(wanted) > ITEM_SOURCES_MAX:
        raise Invalid(f"A write names at most {ITEM_SOURCES_MAX} messages as its source.", field="source.message_ids")
    if not wanted:
        return Spoken(frozenset(), (), by_person=False)
    rows = list(
        Message.objects.filter(id__in=wanted, subject_id=subject.id).values("id", "session_id", "role", "origin")
    )
    if len(rows) != len(wanted):
        missing = wanted - {row["id"] for row in rows}
        named = ", ".join(sorted(public_id("message", message_id) for message_id in missing)[:3])
        raise Invalid(
            f"{len(missing)} source messages are not there, or not of this subject: {named}. Flush the session first.",
            field="source.message_ids",
        )
    return Spoken(
        frozenset(row["session_id"] for row in rows),
        tuple(row["id"] for row in rows if row["origin"] != "said"),
        by_person=all(row["role"] == PERSON for row in rows),
    )


def judge(subject: Subject, text: str, *, held: Sequence[Held], source: Source, said: Spoken, key: bytes) -> Verdict:
    """What of a text is new. `held`: the subject's active items."""
    if said.ours:
        return Verdict("", tuple(Refusal(text, public_id("message", message_id)) for message_id in said.ours[:1]))
    names = names_of(subject, key)
    found = [(public_id("item", each.item.id), each.content.text) for each in held]
    if not said.by_person:
        found += injected.words(run_id=source.run_id, session_ids=said.session_ids)
        found += injected.summaries(subject.id, beside=said.session_ids) if said.session_ids else []
    known = [clause for text_id, body in found for clause in restating.clauses(body, source=text_id, names=names)]
    return judged(text, [*known, *injected.prompts()], names, by_person=said.by_person)


def names_of(subject: Subject, key: bytes) -> frozenset[str]:
    """Words that name the subject: "Ada prefers" and "you prefer" are the same."""
    named = sealing.open_text(key, "memory_subject", subject.id, subject.name) if subject.name else ""
    return frozenset(f"{named} {subject.external_id or ''}".casefold().split())
