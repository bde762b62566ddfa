"""The injection ledger both ways: what a step was given, word for word, and where a source was used."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

import pytest
from django.db import DatabaseError, connections

from agentstate.core.clock import now
from agentstate.core.ids import new_id
from agentstate.core.limits import SUBJECT_QUESTIONS_MAX
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory import keys, sealing
from memory.models import Item, ItemRevision, Message, Prompt, PromptVersion, RecallQuestion, Session, Subject, Summary
from memory.selectors import ledger as reading
from memory.services import items, ledger, messages, progress, prompts, sessions
from memory.services.drafts import NewItem
from memory.services.ledger import Injected
from memory.services.messages import NewMessage

pytestmark = pytest.mark.django_db
BY = {"actor_kind": "system", "actor_id": "test", "actor_name": "test"}


@dataclass(frozen=True)
class Step:
    run_id: UUID
    step_seq: int = 1


@pytest.fixture
def session(scope: None, subject: Subject) -> Session:
    at = now()
    return Session.objects.create(id=new_id(), subject=subject, key="letter-1", created_at=at, last_active_at=at)


def revision(subject: Subject, text: str, *, item_id: UUID | None = None, version: int = 1) -> UUID:
    at = now()
    if item_id is None:
        item_id = new_id()
        times = {"valid_from": at, "known_from": at, "created_at": at, "updated_at": at}
        Item.objects.create(
            id=item_id, subject=subject, kind="semantic", bytes=3, tokens=3, digest=item_id.bytes, **times
        )
    sealed = sealing.seal_text(keys.existing(subject.id), "memory_itemrevision", f"{item_id}:{version}:text", text)
    ItemRevision.objects.create(
        item_id=item_id,
        version=version,
        subject_id=subject.id,
        change="created",
        text=sealed,
        tokens=3,
        valid_from=at,
        created_at=at,
        **BY,
    )
    return item_id


def message(session: Session, text: str) -> UUID:
    message_id = new_id()
    Message.objects.create(
        id=message_id,
        session=session,
        subject_id=session.subject_id,
        seq=1,
        role="user",
        author_no=1,
        text=sealing.seal_text(keys.existing(session.subject_id), "memory_message", message_id, text),
        tokens=3,
        bytes=len(text),
        sent_at=now(),
        recorded_at=now(),
    )
    return message_id


def summary(session: Session, text: str) -> UUID:
    summary_id = new_id()
    key = keys.existing(session.subject_id)
    Summary.objects.create(
        id=summary_id,
        subject_id=session.subject_id,
        session=session,
        level="session",
        text=sealing.seal_text(key, "memory_summary", summary_id, text),
        tokens=3,
        method="extractive",
        created_at=now(),
    )
    return summary_id


def prompt(text: str) -> UUID:
    made = Prompt.objects.create(id=new_id(), agent="desk", version=1, created_at=now(), updated_at=now())
    key = keys.owner_key(made.id)
    PromptVersion.objects.create(
        prompt=made,
        version=1,
        body=sealing.seal_text(key, "memory_promptversion", f"{made.id}:1:body", text),
        digest=bytes(32),
        tokens=3,
        created_at=now(),
        **BY,
    )
    return made.id


@pytest.mark.usefixtures("scope")
def test_a_step_shows_every_kind_of_source_word_for_word(subject: Subject, session: Session) -> None:
    step = Step(new_id(), 7)
    rows = [
        Injected("pinned", "item", revision(subject, "Ada wants mail in German."), 5, subject_id=subject.id),
        Injected("summary", "summary", summary(session, "She asked twice."), 4, subject_id=subject.id),
        Injected("tail", "message", message(session, "Hello?\nAre you there?"), 6, subject_id=subject.id, masked=True),
        Injected("prompt", "prompt", prompt("Be brief."), 3),
    ]
    ledger.record(rows, source=step, session_id=session.id)
    lines = reading.of_step(step.run_id, 7)
    assert [line.text for line in lines] == ["Ada wants mail in German.", "She asked twice.", "Hello?", "Be brief."]
    assert [line.position for line in lines] == [1, 2, 3, 4]
    assert [line.gone for line in lines] == [""] * 4
    assert reading.of_step(step.run_id, 8) == []


@pytest.mark.usefixtures("scope")
def test_the_words_are_those_of_the_version_that_was_used(subject: Subject) -> None:
    item_id = revision(subject, "Likes tea.")
    revision(subject, "Likes coffee.", item_id=item_id, version=2)
    step = Step(new_id())
    ledger.record([Injected("recalled", "item", item_id, 3, version=1, score=0.5, scores={"bm25": 1.5})], source=step)
    (line,) = reading.of_step(step.run_id, 1)
    assert (line.text, line.version, line.score, line.scores) == ("Likes tea.", 1, 0.5, {"bm25": 1.5})


@pytest.mark.usefixtures("scope")
def test_a_step_run_again_shows_the_call_whose_answer_it_kept(subject: Subject) -> None:
    first, second, step = revision(subject, "old"), revision(subject, "new"), Step(new_id())
    ledger.record([Injected("recalled", "item", first, 1), Injected("recalled", "item", second, 1)], source=step)
    ledger.record([Injected("recalled", "item", second, 1)], source=step)
    assert [line.text for line in reading.of_step(step.run_id, 1)] == ["new"]
    assert reading.uses_of(second).count == 1  # one run, however often it asked


@pytest.mark.usefixtures("scope")
def test_what_was_erased_says_so_and_the_line_stays(subject: Subject, session: Session) -> None:
    step = Step(new_id())
    gone, kept = message(session, "secret words"), prompt("Be brief.")
    ledger.record([Injected("tail", "message", gone, 2), Injected("prompt", "prompt", kept, 2)], source=step)
    keys.destroy(subject.id)
    erased, other = reading.of_step(step.run_id, 1)
    assert erased.text == "" and "erased" in erased.gone
    assert other.text == "Be brief."
    Message.objects.filter(id=gone).delete()
    assert "erased" in reading.of_step(step.run_id, 1)[0].gone


@pytest.mark.usefixtures("scope")
def test_uses_count_runs_and_name_the_newest_first(subject: Subject) -> None:
    item_id, other = revision(subject, "a"), revision(subject, "b")
    runs = [new_id() for _ in range(3)]
    for run_id in runs:
        for seq in (1, 2):
            ledger.record([Injected("recalled", "item", item_id, 1)], source=Step(run_id, seq))
    ledger.record([Injected("recalled", "item", item_id, 1)])  # over the API: no run
    uses = reading.uses_of_many([item_id, other])
    assert uses[item_id].count == 3
    assert uses[item_id].run_ids == runs[::-1]
    assert uses[item_id].last_at is not None
    assert other not in uses and reading.uses_of(other).count == 0


@pytest.mark.usefixtures("scope")
def test_a_session_lists_its_calls_newest_first_and_goes_on(subject: Subject, session: Session) -> None:
    item_id = revision(subject, "a")
    calls = [
        ledger.record([Injected("recalled", "item", item_id, 1)] * 2, source=Step(new_id()), session_id=session.id)
        for _ in range(3)
    ]
    found = reading.of_session(session.id)
    assert [call.call_id for call in found] == calls[::-1]
    assert [len(call.lines) for call in found] == [2, 2, 2]
    assert [call.call_id for call in reading.of_session(session.id, before=calls[1])] == calls[:1]


def test_only_the_newest_questions_of_a_subject_are_kept(scope: None, subject: Subject) -> None:
    for number in range(SUBJECT_QUESTIONS_MAX + 5):
        ledger.keep_question(subject.id, "desk", f"question {number}", Step(new_id()))
    ledger.keep_question(subject.id, "desk", "   ")
    questions = reading.questions_of(subject.id)
    assert [question.text for question in questions] == [f"question {number}" for number in range(24, 4, -1)]
    assert RecallQuestion.objects.filter(subject_id=subject.id).count() == SUBJECT_QUESTIONS_MAX


def test_another_tenant_sees_nothing_of_it(tenant: Tenant, other_tenant: Tenant, subject: Subject) -> None:
    step = Step(new_id())
    with tenant_scope(tenant.id):
        item_id = revision(subject, "a")
        ledger.record([Injected("recalled", "item", item_id, 1)], source=step)
        assert len(reading.of_step(step.run_id, 1)) == 1
    with tenant_scope(other_tenant.id):
        assert reading.of_step(step.run_id, 1) == []
        assert reading.uses_of(item_id).count == 0


# What the rows of history would have to be given by somebody who rewrites them.
REWRITTEN = [
    "UPDATE memory_itemrevision SET reason = ''",
    "UPDATE memory_injection SET version = 9",
    "UPDATE memory_progressversion SET tokens = 0",
    "UPDATE memory_promptversion SET tokens = 0",
    "DELETE FROM memory_promptversion",
    "UPDATE memory_author SET name = ''",
    "UPDATE memory_message SET text = ''",
    "UPDATE memory_message SET sent_at = now()",
]


def test_the_owner_cannot_rewrite_the_history_of_memory_either(
    committed_db: None, tenant: Tenant, subject: Subject, agent: Actor, alice: Actor
) -> None:
    with tenant_scope(tenant.id):
        kept = items.remember(subject.id, NewItem("Has a dog."), actor=alice, reason="said so").item
        assert kept is not None
        ledger.record([Injected("recalled", "item", kept.id, 5, subject_id=subject.id)], source=None)
        session = sessions.open("chat", subject_id=subject.id, agent="desk", actor=agent)
        messages.append(session.id, [NewMessage("user", "Hello", author="Ada")], actor=agent)
        progress.write("notes", {"goal": "Find it."}, expected_version=0, reason="first", actor=agent)
        prompts.write("desk", "Be brief.", expected_version=0, reason="first", actor=agent)
    for statement in REWRITTEN:
        with (
            pytest.raises(DatabaseError, match="append-only"),
            tenant_scope(tenant.id, using="owner"),
            connections["owner"].cursor() as cursor,
        ):
            cursor.execute(statement)
    with tenant_scope(tenant.id):  # what may change of a message goes on changing
        undone = messages.undo(session.id, last_n=1, expected_version=1, reason="wrong", actor=agent)
        assert len(undone.message_ids) == 1
