"""A town of two people whose sessions and runs are interleaved, with a word of each in every place words can go."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from agentstate.audit.models import AuditEntry
from agentstate.core.clock import now
from agentstate.core.ids import parse_id, public_id
from agentstate.sdk.store import Claim, Continue, End, Entry, Park, Question, StepFinish, StepStart, Turn
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from memory import keys, sealing
from memory.models import Item, Message, Progress, Proposal, Session, Subject, Summary, Unit, UnitStaged, UnitTokens
from memory.recall import questions
from memory.services import (
    editing,
    items,
    ledger,
    messages,
    progress,
    proposals,
    recalling,
    receipts,
    retention,
    sessions,
    subjects,
    summaries,
)
from memory.services.drafts import ItemChanges, NewItem
from memory.services.folding import Told
from memory.services.ledger import Injected
from memory.services.messages import NewMessage
from memory.services.subjects import AliasIn
from memory.sources import Source
from runs.models import Approval
from tests.runs.conftest import Desk

__all__ = ["Person", "Town"]


@dataclass
class Person:
    """One subject, and everything that is about it. `word` stands in each text."""

    word: str
    subject: Subject
    session: Session
    runs: dict[str, Claim] = field(default_factory=dict)

    @property
    def run_ids(self) -> dict[str, UUID]:
        return {name: parse_id("run", claim.run_id) for name, claim in self.runs.items()}


class Town:
    """The verbs of agents and people, by which everything here was written."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        self.desk = Desk(actor, lease_s=60)  # no slow machine loses it: a test does, when it says so
        self.tenant_id: UUID = self.desk.tenant_id

    def settle(self, external_id: str, word: str) -> Person:
        """A person with memory of every kind, a run that is over, one that waits, and one that is being driven."""
        person = self.meet(external_id, word)
        person.runs["done"] = self.finished_run(person)
        person.runs["asking"] = self.asking_run(person)
        person.runs["driven"] = self.driven_run(person)
        person.runs["long_ago"] = self.forgotten_run(person)
        self.remember(person)
        return person

    def meet(self, external_id: str, word: str) -> Person:
        with tenant_scope(self.tenant_id):
            names = [AliasIn("email", f"{word}@example.test")]
            subject = subjects.resolve(external_id=external_id, name=f"{word} Lind", aliases=names, actor=self.actor)
            subjects.rename(subject.id, name=f"{word} Lind", actor=self.actor, reason=f"so {word} asked")
            session = sessions.open(
                f"mail-{word}", subject_id=subject.id, agent="desk", title=f"About {word}", actor=self.actor
            )
        return Person(word, subject, session)

    def finished_run(self, person: Person) -> Claim:
        """Its words: input, output, state, steps, a value kept as a blob, the trace, an error, the tag."""
        word = person.word
        claim = self.desk.start(input={"who": word}, session=f"mail-{word}", tags=[f"tag-{word}"])
        large = f"{word} " * 20_000
        look = StepStart("look#1", "look", payload={"at": word}, result=StepFinish(0, output={"found": large}))
        notes = [Entry(1, "note", f"note of {word}"), Entry(2, "result", f"result of {word}")]
        self.desk.store.turn(claim, Turn(start=[look], entries=notes, state={"seen": word, "large": large}))
        self.desk.store.turn(claim, Turn(then=End("succeeded", output={"told": word})))
        return claim

    def asking_run(self, person: Person) -> Claim:
        """Waits for a person. Its words: the question, its arguments and its reason."""
        word = person.word
        claim = self.desk.start(input=f"refund {word}", session="", tags=[])
        ask = Question(f"May I pay {word}?", tool="refund", args={"to": word}, reason=f"{word} said so")
        start = StepStart("refund#1", "refund", kind="tool", effect="destructive", payload={"to": word}, question=ask)
        self.desk.store.turn(claim, Turn(start=[start], state={"asked": word}))
        self.desk.store.turn(claim, Turn(then=Park("approval")))
        return claim

    def driven_run(self, person: Person) -> Claim:
        """Held by a worker. Its words: entries that stand in Redis only, a second generation."""
        word = person.word
        claim = self.desk.start(input=word, session=f"mail-{word}")
        self.desk.store.turn(claim, Turn(then=Continue({"carried": word})))
        claim = self.desk.retake(claim)
        self.desk.store.note(claim, [Entry(1, "note", f"live note of {word}")])
        return claim

    def forgotten_run(self, person: Person) -> Claim:
        """Retention has removed its session: nothing of what it said is there any more. Its words: the input."""
        word = person.word
        claim = self.desk.start(input={"about": word}, session="")
        self.desk.store.turn(claim, Turn(then=End("succeeded", output={"told": word})))
        source = Source(run_id=parse_id("run", claim.run_id), step_seq=1)
        with tenant_scope(self.tenant_id):
            session = sessions.open(f"long-ago-{word}", subject_id=person.subject.id, agent="desk", actor=self.actor)
            messages.append(session.id, [NewMessage("user", f"{word} was here.")], source=source, actor=self.actor)
            sessions.close(session.id, actor=self.actor, reason=f"{word} has left")
            Session.objects.filter(id=session.id).update(ended_at=now() - timedelta(days=400))
            assert retention.remove_sessions("").done == 1
        return claim

    def remember(self, person: Person) -> None:
        """Messages, items, revisions, proposals, summaries, progress, questions, the ledger, a buffered message."""
        word, subject_id, session_id = person.word, person.subject.id, person.session.id
        source = Source(run_id=person.run_ids["done"], step_seq=1)
        asked = questions.asked(f"What does {word} drink?", tenant_id=self.tenant_id)
        with tenant_scope(self.tenant_id):
            said = [NewMessage("user", f"{word} likes tea number {n}.", author=f"{word} L.") for n in range(6)]
            said += [NewMessage("assistant", f"Noted, {word}.", author="Desk")]
            messages.append(session_id, said, source=source, actor=self.actor)
            messages.undo(session_id, last_n=1, expected_version=1, reason=f"{word} took it back", actor=self.actor)
            kept = items.remember(
                subject_id,
                NewItem(
                    f"{word} ordered a lamp.",
                    fact_kind="order",
                    facts={"number": f"4411-{word}", "ordered_on": "2026-11-02"},
                ),
                actor=self.actor,
                source=source,
                reason=f"{word} said so",
            ).item
            assert kept is not None
            changes = ItemChanges(text=f"{word} ordered two lamps.")
            editing.edit(kept.id, expected_version=1, changes=changes, reason=f"{word} rang", actor=self.actor)
            proposals.propose(
                subject_id,
                act="add",
                new=NewItem(f"{word} moved to Oslo."),
                method="rules",
                why=f"{word} wrote it",
                actor=self.actor,
            )
            summaries.tell_subject(subject_id)
            self.summarise(person)
            progress.write(
                f"mail-{word}",
                {"goal": f"Make {word} happy", "done": f"Rang {word}"},
                reason=f"{word} asked how far",
                actor=self.actor,
                source=source,
            )
            ledger.keep_question(subject_id, "desk", f"Where does {word} live?", source)
            recalling.ask(subject_id, asked, k=5, source=source, for_session=session_id)
            self.embed(person)
            receipts.once(f"key-{word}", {}, lambda: {"subject": public_id("subject", subject_id)})
            self.give(person, to=person.run_ids["asking"])
            self.give(person, to=person.run_ids["driven"])
            messages.append(
                session_id, [NewMessage("user", f"{word} waits in Redis.")], persistence="periodic", actor=self.actor
            )

    def embed(self, person: Person) -> None:
        """Tokens and a staged vector, as a model would leave them."""
        unit = Unit.objects.filter(subject_id=person.subject.id).order_by("id")[0]
        Unit.objects.filter(id=unit.id).update(model="m", vector=[0.1, 0.2])
        sealed = sealing.seal_text(keys.existing(person.subject.id), "memory_unittokens", unit.id, person.word)
        UnitTokens(unit=unit, subject_id=person.subject.id, model="m", count=1, body=sealed).save(force_insert=True)
        UnitStaged(unit=unit, subject_id=person.subject.id, model="n", vector=[0.1, 0.2]).save(force_insert=True)

    def summarise(self, person: Person) -> None:
        """One that is sealed and stored as the service does it, whatever the policy thinks of so few messages."""
        told = Told("session", 1, 6, f"{person.word} drinks tea.", 4, (), "extractive")
        row = summaries._row(person.subject.id, told, keys.existing(person.subject.id), session=person.session)
        row.save(force_insert=True)
        Session.objects.filter(id=person.session.id).update(summarised_seq=told.to_seq)

    def give(self, person: Person, *, to: UUID) -> None:
        """A run is given words of this person. Asserts a scope."""
        message = Message.objects.filter(subject_id=person.subject.id).order_by("seq").first()
        assert message is not None
        row = Injected("tail", "message", message.id, tokens=3, subject_id=person.subject.id)
        ledger.record([row], source=Source(run_id=to, step_seq=1), session_id=person.session.id)

    def lose_worker(self, claim: Claim) -> None:
        """Its worker obeys a request to end: the next claim carries it out."""
        self.desk.lose(claim)
        assert self.desk.try_take(claim.run_id) is None

    def ids_of(self, person: Person) -> set[str]:
        """Every id by which a row can be this person's."""
        found: set[Any] = {person.subject.id, person.subject.id.hex, person.session.id, *person.run_ids.values()}
        with tenant_scope(self.tenant_id):
            for model in (Item, Message, Progress, Proposal, Summary):
                found |= set(model.objects.filter(subject_id=person.subject.id).values_list("id", flat=True))
            found |= set(Approval.objects.filter(run_id__in=person.run_ids.values()).values_list("id", flat=True))
            reasons = AuditEntry.objects.filter(object_id__in=found - {person.subject.id.hex}, note_id__isnull=False)
            found |= set(reasons.values_list("note_id", flat=True))
        return {str(each) for each in found}
