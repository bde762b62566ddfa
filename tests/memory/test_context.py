"""Contexts: never over the budget, the same each time, every candidate accounted for, recorded as they were given."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentstate.core import tokens
from agentstate.core.errors import Conflict, Invalid, NotFound, TooLarge
from agentstate.core.ids import new_id
from agentstate.db import sql
from agentstate.llm import embedding
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory import policies as reading_policies
from memory.context import asking, parts, references, strategies
from memory.context.building import Context, ContextRequest, build
from memory.models import Injection, RecallQuestion, Session, Subject
from memory.policies import STRATEGIES
from memory.recall import questions
from memory.selectors import ledger as ledger_reads
from memory.selectors import messages as message_reads
from memory.services import items, messages, policies, progress, prompts, sessions, summaries
from memory.services.drafts import NewItem
from memory.services.messages import NewMessage
from memory.sources import Source
from tests.memory.recall_world import WordEmbedder

ORDER = list(parts.HEADINGS)
TOPICS = ("the parcel to Graz", "a refund of 30 EUR", "the login page", "the meeting with Bert", "invoice 2291")


def talk(count: int, seed: int = 1) -> list[NewMessage]:
    """Messages of all roles and lengths; some matter."""
    dice = random.Random(seed)
    made = []
    for number in range(1, count + 1):
        role = "user" if number % 3 == 1 else "tool" if number % 11 == 0 else "assistant"
        words = f"Message {number} about {dice.choice(TOPICS)}. " * dice.choice(
            [1, 1, 2, 3, 60 if role == "tool" else 4]
        )
        kind = dice.choice(["routine"] * 8 + ["decision", "commitment", "fact"])
        made.append(NewMessage(role, words, author="Ada" if role == "user" else "", importance=kind))
    return made


class Desk:
    """A subject with all that can go into a context."""

    def __init__(self, tenant: Tenant, subject: Subject, agent: Actor, alice: Actor) -> None:
        self.tenant, self.subject, self.agent, self.alice = tenant, subject, agent, alice
        self.session = sessions.open("ticket-1", subject_id=subject.id, agent="desk", actor=agent)

    def say(self, *new: NewMessage) -> list[Any]:
        said = []
        for start in range(0, len(new), 200):
            said += messages.append(self.session.id, new[start : start + 200], actor=self.agent).messages
        return [id for id, _ in said]

    def summarise(self) -> None:
        policy = reading_policies.for_agent("desk")
        while (work := summaries.work_on(Session.objects.get(id=self.session.id), policy)) is not None:
            assert summaries.keep(work, summaries.tell(work))

    def policy(self, **fields: Any) -> None:
        policies.set_for_agent("desk", {**policies.stored_for("desk"), **fields}, actor=self.alice, reason="test")

    def pin(self, *lines: str) -> None:
        for line in lines:
            items.remember(self.subject.id, NewItem(line, pinned=True), actor=self.agent)

    def build(self, question: str = "", *, record: bool = False, **more: Any) -> Context:
        request = ContextRequest(session_key="ticket-1", question=question, **more)
        return build(request, record=record)


@pytest.fixture
def desk(scope: None, tenant: Tenant, subject: Subject, agent: Actor, alice: Actor) -> Desk:
    return Desk(tenant, subject, agent, alice)


@pytest.fixture
def full(desk: Desk) -> Desk:
    desk.policy(summarise_at_messages=10, summary_tokens=200, retrieval="always")
    desk.pin("Ada wants mail in German.", "Ada never wants to be called by phone.")
    items.remember(desk.subject.id, NewItem("Ada's customer number is 77-1200."), actor=desk.agent)
    prompts.write("desk", "Answer in at most five sentences. Never promise a date.", actor=desk.agent)
    progress.write("ticket-1", {"goal": "Settle Ada's refund.", "next": "Ask for the invoice."}, actor=desk.agent)
    desk.say(*talk(240))
    desk.summarise()
    return desk


def holds(context: Context) -> None:
    """What is true of every context."""
    account = context.account
    assert tokens.count(context.text) <= account.used <= account.budget
    places = [ORDER.index(block.part) for block in context.blocks]
    assert places == sorted(places), "parts stand in their order"
    sources = Counter((block.source, block.source_id) for block in context.blocks)
    assert max(sources.values(), default=1) == 1, "nothing goes in twice"
    tail = [block.seq for block in context.blocks if block.part == "tail"]
    assert tail == sorted(tail)
    for part, offered in account.candidates.items():
        inside = sum(block.part == part for block in context.blocks)
        outside = sum(left.count for left in account.left_out if left.part == part)
        assert inside + outside == offered, (part, inside, outside, offered)
    for block in context.blocks:
        assert f"{block.label}{block.text}" in context.text


def summary_reaches(context: Context) -> int:
    reads = [block for block in context.blocks if block.part == "summary"]
    with CaptureQueriesContext(connection):
        rows = sql.rows("SELECT max(to_seq) FROM memory_summary WHERE id = ANY(%s)", [[b.source_id for b in reads]])
    return rows[0][0] or 0


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_all_parts_go_in_when_there_is_room(full: Desk, strategy: str) -> None:
    context = full.build("What about invoice 2291?", strategy=strategy, budget_tokens=3_000)
    holds(context)
    found = {block.part for block in context.blocks}
    wanted = set(ORDER) if strategy in ("summary", "hierarchical") else set(ORDER) - {"summary"}
    assert found == wanted
    assert context.text.startswith(parts.HEADINGS["progress"]) and "Settle Ada's refund." in context.text
    assert context.account.recalled.asked


def test_over_any_budget_every_promise_holds(full: Desk) -> None:
    """One world, many requests: what they read does not change between examples."""

    @settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        budget=st.integers(90, 20_000),
        strategy=st.sampled_from(STRATEGIES),
        question=st.sampled_from(["", "What about invoice 2291?", "Hm?", "What did Ada say?"]),
        session=st.booleans(),
    )
    @example(budget=20_000, strategy="hierarchical", question="", session=True)
    def every(budget: int, strategy: str, question: str, session: bool) -> None:
        named = {"session_id": full.session.id} if session else {"session_key": "ticket-1"}
        request = ContextRequest(question=question, budget_tokens=budget, strategy=strategy, **named)
        context = build(request, record=False)
        holds(context)
        reaches = summary_reaches(context)
        tail = [block.seq for block in context.blocks if block.part == "tail"]
        assert not tail or not reaches or tail[0] > reaches, "what a summary tells does not stand in the tail as well"

    every()


def test_over_any_session_every_promise_holds(desk: Desk) -> None:
    """Worlds of random messages; few, because each is written."""
    dice = random.Random(7)
    desk.policy(summarise_at_messages=4, summary_tokens=60)
    for world in range(6):
        desk.say(*talk(dice.randrange(1, 40), seed=world))
        if world % 2:
            desk.summarise()
        if world % 3 == 2:
            version = Session.objects.get(id=desk.session.id).version
            last_n = dice.randrange(1, 12)
            messages.undo(desk.session.id, last_n=last_n, expected_version=version, reason="", actor=desk.agent)
        for strategy in STRATEGIES:
            for budget in (60, 300, 2_000):
                holds(desk.build("invoice 2291", strategy=strategy, budget_tokens=budget))


def test_strange_texts_keep_within_the_budget(desk: Desk) -> None:
    texts = [
        "  5 5",
        "\n\n\nx\n\n",
        "A" * 500,
        "0x" + "ab12" * 40,
        "包裹" * 90,
        "👩‍👩‍👧" * 30,
        "\t\t1\t2",
        '{"a": [1, 2, 3]}' * 9,
    ]
    for role in ("user", "tool", "assistant"):
        desk.say(*[NewMessage(role, text, author="12 34") for text in texts])
    desk.pin(" 7 up ", "0123456789abcdef0123")
    for budget in range(60, 3_000, 131):
        holds(desk.build("7", budget_tokens=budget, strategy="window"))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_equal_memory_and_request_give_an_equal_context(full: Desk, strategy: str) -> None:
    first, second = (full.build("the refund", strategy=strategy, budget_tokens=900) for _ in range(2))
    assert first == second


def test_the_window_is_the_newest_that_fits_without_a_hole(full: Desk) -> None:
    context = full.build(strategy="window", budget_tokens=700)
    tail = [block.seq for block in context.blocks if block.part == "tail"]
    assert tail == list(range(tail[0], 241)) and tail[0] > 1
    out = next(left for left in context.account.left_out if left.part == "tail")
    assert (out.reason, out.from_seq, out.to_seq, out.count) == ("over_budget", 1, tail[0] - 1, tail[0] - 1)


def test_a_summary_ends_where_the_messages_begin(full: Desk) -> None:
    context = full.build(strategy="summary", budget_tokens=1_200)
    tail = [block.seq for block in context.blocks if block.part == "tail"]
    reached = summary_reaches(context)
    assert 0 < reached == tail[0] - 1
    out = {left.reason: left.count for left in context.account.left_out if left.part == "tail"}
    assert out == {"summarised": reached}


def test_a_session_that_fits_whole_needs_no_summary(full: Desk) -> None:
    context = full.build(strategy="summary", budget_tokens=200_000)
    assert sum(block.part == "tail" for block in context.blocks) == 240
    assert not [block for block in context.blocks if block.part == "summary"]


def test_a_hierarchy_tells_the_session_from_far_to_near(full: Desk) -> None:
    context = full.build(strategy="hierarchical", budget_tokens=2_500)
    holds(context)
    told = [block for block in context.blocks if block.part == "summary"]
    rows = {
        row[0]: row[1:]
        for row in sql.rows(
            "SELECT id, level, from_seq, to_seq FROM memory_summary WHERE id = ANY(%s)", [[b.source_id for b in told]]
        )
    }
    levels = [rows[block.source_id][0] for block in told]
    assert levels == sorted(levels, key=["session", "segment", "turn"].index) and len(set(levels)) == 3
    at = 1
    for block in told:
        _, from_seq, to_seq = rows[block.source_id]
        assert from_seq == at, "nothing between two levels is lost or told twice"
        at = to_seq + 1
    tail = [block.seq for block in context.blocks if block.part == "tail"]
    assert tail == list(range(at, 241))


def test_what_matters_survives_and_routine_goes_first(full: Desk) -> None:
    context = full.build(strategy="importance", budget_tokens=2_000)
    said = message_reads.between(full.session.id, 1, 240)
    mattering = {message.seq for message in said if message.importance != "routine"}
    tail = {block.seq for block in context.blocks if block.part == "tail"}
    assert len(tail & mattering) > 12 and min(tail & mattering) < min(tail - mattering)
    assert 240 in tail
    assert "routine" in {left.reason for left in context.account.left_out}


def test_a_budget_below_what_is_pinned_names_both_numbers(full: Desk) -> None:
    full.pin("Ada is a partner of the house since 1998 and gets every invoice in two copies, by post and by mail.")
    with pytest.raises(Invalid) as refusal:
        full.build(budget_tokens=50)
    needed = refusal.value.data["needed_tokens"]
    assert refusal.value.field == "/budget_tokens" and f"{needed:,}" in refusal.value.message
    assert "50" in refusal.value.message
    holds(full.build(budget_tokens=needed))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (ContextRequest(), Invalid),
        (ContextRequest(session_key="a", session_id=new_id()), Invalid),
        (ContextRequest(session_key="a", strategy="magic"), Invalid),
        (ContextRequest(session_key="a", budget_tokens=0), Invalid),
        (ContextRequest(session_key="a", budget_tokens=10**9), Invalid),
        (ContextRequest(session_key="a\0"), Invalid),
        (ContextRequest(session_key="a", question="\ud800"), Invalid),
        (ContextRequest(session_key="a", question="x" * (20 * 2**20)), TooLarge),
        (ContextRequest(session_key="nobody"), NotFound),
        (ContextRequest(session_id=new_id()), NotFound),
    ],
)
def test_a_bad_request_is_refused(desk: Desk, request_: ContextRequest, error: type) -> None:
    with pytest.raises(error):
        build(request_, record=False)


def test_another_tenants_session_does_not_exist(
    tenant: Tenant, other_tenant: Tenant, subject: Subject, agent: Actor
) -> None:
    with tenant_scope(tenant.id):
        mine = sessions.open("ticket-1", subject_id=subject.id, actor=agent)
    with tenant_scope(other_tenant.id):
        for request in (ContextRequest(session_key="ticket-1"), ContextRequest(session_id=mine.id)):
            with pytest.raises(NotFound):
                build(request)


def test_a_subject_that_is_being_erased_is_told_to_nobody(desk: Desk) -> None:
    desk.say(NewMessage("user", "hi"))
    Subject.objects.filter(id=desk.subject.id).update(status="erasing")
    with pytest.raises(Conflict):
        desk.build()


def test_a_long_tool_message_of_an_earlier_turn_is_masked(desk: Desk) -> None:
    long = "Found 12 rows.\n" + "row,amount,state\n" * 400
    old, *_ = desk.say(NewMessage("tool", long), NewMessage("user", "and now?"), NewMessage("tool", long.upper()))
    context = desk.build(budget_tokens=20_000)
    masked, _, fresh = (block for block in context.blocks if block.part == "tail")
    assert masked.masked and masked.text.startswith("Found 12 rows. [… ") and masked.source_id == old
    assert not fresh.masked and fresh.text == long.upper()
    holds(context)
    tight = desk.build(budget_tokens=200)
    assert all(block.masked for block in tight.blocks if block.text.upper().startswith("FOUND"))
    holds(tight)


def test_what_recall_finds_goes_in_once(full: Desk) -> None:
    context = full.build(
        "Does Ada want mail in German? Her customer number 77-1200?", strategy="window", budget_tokens=900
    )
    found = [block for block in context.blocks if block.part == "recalled"]
    assert any("77-1200" in block.text for block in found)
    assert all("German" not in block.text for block in found), "it is pinned"
    assert any(left.reason == "duplicate" for left in context.account.left_out if left.part == "recalled")
    scores = [block.score or 0.0 for block in found]
    assert scores == sorted(scores, reverse=True) and all(block.scores for block in found)


@pytest.mark.parametrize("retrieval", ["never", "tool"])
def test_recall_is_not_asked_when_the_policy_says_so(full: Desk, retrieval: str) -> None:
    full.policy(retrieval=retrieval)
    context = full.build("invoice 2291")
    assert not context.account.recalled.asked and context.account.recalled.why
    assert context.account.candidates["recalled"] == 0


def test_recall_by_reference_is_asked_only_when_the_question_refers_back(full: Desk) -> None:
    full.policy(retrieval="reference")
    assert full.build("What did we agree last time?").account.recalled.asked
    assert full.build("What does Ada prefer?").account.recalled.asked, "she spoke in this session"
    asked = full.build("Hello there!").account.recalled
    assert not asked.asked and "refer" in asked.why


@pytest.mark.parametrize(
    ("question", "refers"),
    [
        ("What about invoice 2291?", True),
        ("order AB-7?", True),
        ("Was war am 3.5. los?", True),
        ("in March", True),
        ("You wrote “we refund you”.", True),
        ("Wie war das letztes Mal?", True),
        ("¿Te acuerdas de la última vez?", True),
        ("上次我们说了什么", True),
        ("前回の件", True),
        ("Как в прошлый раз", True),
        ("Please help me.", False),
        ("Guten Tag", False),
        ("Tell me a joke", False),
    ],
)
def test_references_are_seen_in_many_languages(question: str, refers: bool) -> None:
    assert references.refers_back(question, authors=dict) is refers


def database() -> dict[str, list[Any]]:
    """Every row of every table of the public schema that this role can read."""
    names = [row[0] for row in sql.rows("SELECT c.oid::regclass::text FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.relnamespace = 'public'::regnamespace AND NOT c.relispartition AND has_table_privilege(c.oid, 'SELECT')")]  # fmt: skip  # noqa: E501
    return {name: sorted(map(repr, sql.rows(f"SELECT t::text FROM {name} t"))) for name in names}


def test_a_model_is_asked_only_for_a_context_that_recalls(
    desk: Desk, tenant: Tenant, alice: Actor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the policy of the named agent, else of the session's."""
    embedder = WordEmbedder()
    monkeypatch.setattr(embedding, "embedder", lambda: embedder)
    policies.set_for_agent("quiet", {"retrieval": "tool"}, actor=alice, reason="test")

    def asked(session: Any, agent: str = "", question: str = " Where is it? ") -> questions.Asked:
        embedder.asked.clear()
        return asking.asked(question, tenant_id=tenant.id, of=asking.of_session(agent=agent, session=session))

    assert asked("ticket-1").models and asked(desk.session.id).models and asked("ticket-1", "other").models
    assert embedder.asked == ["Where is it?"]
    desk.policy(retrieval="never")
    for each in (asked("ticket-1"), asked(desk.session.id), asked("ticket-1", "quiet"), asked("nobody's")):
        assert (each.models, each.text, embedder.asked) == ((), "Where is it?", [])
    assert asked("ticket-1", "other").models
    with pytest.raises(Invalid):
        asked("ticket-1", question="\0")
    monkeypatch.setattr(embedding, "embedder", lambda: None)
    assert statements(lambda: asked("ticket-1")) == 0, "without a model there is nothing to decide"


def test_a_preview_writes_nothing_at_all(full: Desk, redis: Any) -> None:
    messages.append(full.session.id, [NewMessage("user", "still waiting")], persistence="batched", actor=full.agent)
    rows, waiting = database(), {name: redis.dump(name) for name in redis.scan_iter("*")}
    assert len(rows) > 20 and len(rows["memory_message"]) == 240
    context = full.build("invoice 2291", budget_tokens=2_000)
    assert context.call_id is None
    assert database() == rows
    assert {name: redis.dump(name) for name in redis.scan_iter("*")} == waiting


def test_a_preview_shows_what_the_call_will_be_given(full: Desk) -> None:
    messages.append(full.session.id, [NewMessage("user", "still waiting")], persistence="batched", actor=full.agent)
    preview = full.build("the refund", budget_tokens=2_000)
    call = full.build("the refund", budget_tokens=2_000, record=True)
    assert [block.text for block in preview.blocks] == [block.text for block in call.blocks]
    assert preview.text == call.text and "still waiting" in call.text
    holds(preview)
    holds(call)
    messages.flush(full.session.id)
    assert full.build("the refund", budget_tokens=2_000).text == call.text


def test_a_call_is_recorded_word_for_word(full: Desk) -> None:
    source = Source(run_id=new_id(), step_seq=4)
    context = full.build("invoice 2291", record=True, budget_tokens=1_500, source=source)
    assert source.run_id is not None
    lines = ledger_reads.of_step(source.run_id, 4)
    assert [(line.source, line.source_id, line.version, line.masked) for line in lines] == [
        (block.source, block.source_id, block.version, block.masked) for block in context.blocks
    ]
    assert [line.part for line in lines] == [block.part for block in context.blocks]
    whole = [(line.text, block.text) for line, block in zip(lines, context.blocks, strict=True) if not block.masked]
    assert whole and all(kept == given for kept, given in whole)
    assert {row.call_id for row in Injection.objects.all()} == {context.call_id}
    assert RecallQuestion.objects.filter(subject_id=full.subject.id).count() == 1


def test_a_call_without_a_question_keeps_none(full: Desk) -> None:
    full.build(record=True)
    assert not RecallQuestion.objects.exists()


def test_the_policy_decides_what_the_request_does_not(full: Desk) -> None:
    full.policy(strategy="window", budget_tokens=600)
    account = full.build().account
    assert (account.strategy, account.budget) == ("window", 600)


def test_an_undo_leaves_the_context_at_once(full: Desk) -> None:
    said = full.build(strategy="summary", budget_tokens=1_200)
    messages.undo(full.session.id, last_n=120, expected_version=1, reason="", actor=full.agent)
    context = full.build("invoice 2291", strategy="summary", budget_tokens=1_200)
    holds(context)
    assert all(block.seq <= 120 for block in context.blocks if block.source == "message")
    assert summary_reaches(context) <= 120 < summary_reaches(said)


def statements(act: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as orm, sql.watched() as raw:
        act()
    return len(orm) + len(raw)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_context_is_read_in_few_statements(full: Desk, strategy: str) -> None:
    full.build("invoice 2291", strategy=strategy)  # the tenant's keys are read once by a process
    preview = statements(lambda: full.build("invoice 2291", strategy=strategy, budget_tokens=1_500))
    call = statements(lambda: full.build("invoice 2291", strategy=strategy, budget_tokens=1_500, record=True))
    assert preview <= 10, "recall reads the tokens of units too when a model has made them: eleven"
    assert call <= preview + 5, call


def test_what_is_read_does_not_grow_with_the_session(full: Desk) -> None:
    full.build("invoice 2291")
    before = statements(lambda: full.build("invoice 2291", budget_tokens=1_500))
    full.say(*talk(400, seed=3))
    full.summarise()
    started = time.process_time()
    context = full.build("invoice 2291", budget_tokens=1_500)
    assert time.process_time() - started < 1.0
    assert statements(lambda: full.build("invoice 2291", budget_tokens=1_500)) == before
    assert context.account.candidates["tail"] == 640


def test_the_strategies_are_those_of_the_policy() -> None:
    assert set(strategies.STRATEGIES) == set(STRATEGIES)
