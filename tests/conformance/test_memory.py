"""Memory through every store: an act is fenced, a write is done once, a read is answered from its record."""

from __future__ import annotations

import functools
from collections import Counter
from typing import Any

import pytest

import agentstate as st
from agentstate.core.errors import Conflict, Fenced, Invalid, NotFound
from agentstate.sdk.store import Begun, Claim, StepStart
from agentstate.testing import Crashing, Killed, run_agent
from tests.conformance.turns import Bench
from tests.conformance.worlds import World

ADA = {"subject": "user:4411"}
TEA = "Ada drinks green tea in the morning."
CALLS: Counter[str] = Counter()
DIE_IN: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()
    DIE_IN.clear()


def begun(bench: Bench, claim: Claim, name: str, *, effect: str = "keyed", n: int = 1) -> Begun:
    start = StepStart(f"{name}#{n}", name, kind="memory", effect=effect, window_s=86_400.0, attempt=1)  # type: ignore[arg-type]
    return bench.turn(claim, start=[start]).begun[0]


def write(bench: Bench, claim: Claim, act: str, body: dict[str, Any], *, n: int = 1) -> Any:
    step = begun(bench, claim, f"memory.{act}", n=n)
    found = bench.store.memory(claim, act, body, step_seq=step.seq, key=step.key)
    bench.finish(claim, step.seq, output=found)
    return found


def read(bench: Bench, claim: Claim, act: str, body: dict[str, Any], *, n: int = 1) -> Any:
    step = begun(bench, claim, f"memory.{act}", effect="pure", n=n)
    found = bench.store.memory(claim, act, body, step_seq=step.seq, key="")
    bench.finish(claim, step.seq, output=found)
    return found


def test_what_is_said_and_remembered_is_recalled_by_the_next_run(bench: Bench) -> None:
    first = bench.admit()
    opened = write(bench, first, "session", ADA)
    write(bench, first, "say", {"role": "user", "text": "My parcel from the north has not come."})
    kept = write(
        bench,
        first,
        "remember",
        {"text": TEA, "attribute": "tea", "fact_kind": "preference", "facts": {"about": "tea", "value": "green"}},
    )
    second = bench.admit()
    again = write(bench, second, "session", ADA)
    assert again["subject_id"] == opened["subject_id"] and again["session_id"] != opened["session_id"]
    hits = read(bench, second, "recall", {"question": "Which tea does Ada drink in the morning?"})["hits"]
    assert (hits[0]["id"], hits[0]["kind"], hits[0]["text"]) == (kept["item_id"], "item", TEA)
    hits = read(bench, second, "recall", {"question": "parcel from the north"}, n=2)["hits"]
    assert hits[0]["text"] == "My parcel from the north has not come."


def test_a_context_holds_what_was_said_inside_its_budget(bench: Bench) -> None:
    claim = bench.admit()
    write(bench, claim, "session", ADA)
    write(bench, claim, "remember", {"text": TEA, "pinned": True})
    for n in range(1, 31):
        write(bench, claim, "say", {"role": "user", "text": f"Message number {n} says nothing of weight."}, n=n)
    found = read(bench, claim, "context", {"question": "What about tea?", "budget_tokens": 150})
    assert found["used_tokens"] <= found["budget_tokens"] == 150
    parts = [block["part"] for block in found["blocks"]]
    assert TEA in found["text"] and "number 30" in found["text"] and "number 1 " not in found["text"]
    assert "pinned" in parts and "tail" in parts
    assert all(block["tokens"] > 0 and block["source_id"] for block in found["blocks"])


def test_a_write_that_is_asked_for_again_is_done_once_and_answered_alike(bench: Bench) -> None:
    claim = bench.admit()
    write(bench, claim, "session", ADA)
    for act, body in {
        "say": {"role": "user", "text": "Hello, hello."},
        "remember": {"text": TEA},
        "write-progress": {"sections": {"Goal": "Find the parcel."}},
        "undo": {"n": 1},
    }.items():
        step = begun(bench, claim, f"memory.{act}")
        answers = [bench.store.memory(claim, act, body, step_seq=step.seq, key=step.key) for _ in range(3)]
        assert answers[0] == answers[1] == answers[2], act
        bench.finish(claim, step.seq, output=answers[0])
    assert read(bench, claim, "read-progress", {})["version"] == 1
    write(bench, claim, "say", {"role": "user", "text": "A parcel."}, n=2)
    hits = read(bench, claim, "recall", {"question": "hello parcel tea", "k": 50})["hits"]
    assert sorted(hit["text"] for hit in hits) == ["A parcel.", TEA]  # what was taken back is not found


def test_what_is_only_told_again_is_not_stored_and_says_so(bench: Bench) -> None:
    claim = bench.admit()
    write(bench, claim, "session", {**ADA, "name": "Ada"})
    kept = write(bench, claim, "remember", {"text": TEA})
    told = "As I recall, you drink green tea in the morning."
    again = write(bench, claim, "remember", {"text": told}, n=2)
    assert (again["item_id"], again["version"], again["change"]) == (kept["item_id"], 1, "duplicate")
    assert again["refused"] == f"it only restates an item ({kept['item_id']})"
    partly = write(bench, claim, "remember", {"text": f"{told} She has moved to Basel."}, n=3)
    assert (partly["change"], partly["refused"]) == ("created", again["refused"])
    found = read(bench, claim, "recall", {"question": "green tea Basel"})["hits"]
    assert sorted(hit["text"] for hit in found) == [TEA, "She has moved to Basel."]
    # What was forgotten does not come back by the echo of a run that read it; another run may learn it anew.
    write(bench, claim, "forget", {"item": kept["item_id"], "reason": "she asked"})
    echo = write(bench, claim, "remember", {"text": told}, n=4)
    assert (echo["item_id"], echo["change"]) == ("", "refused")
    assert echo["refused"] == f"it only restates an item ({kept['item_id']}@1)"
    other = bench.admit()
    write(bench, other, "session", ADA)
    assert write(bench, other, "remember", {"text": TEA})["change"] == "created"


def test_nearly_the_same_is_a_revision_and_a_correction_an_item_of_its_own(bench: Bench) -> None:
    claim = bench.admit()
    write(bench, claim, "session", ADA)
    text, more = "Wants the parcels brought to the office door", "Wants the parcels brought to the big office door"
    kept = write(bench, claim, "remember", {"text": text, "importance": 0.9})
    changes = {
        more: ("merged", 2),
        "Wants the parcels brought to the big garage door": ("created", 1),
        "Never wants the parcels brought to the big office door": ("created", 1),
        "Wants 3 parcels brought to the big office door": ("created", 1),
    }
    replies = [write(bench, claim, "remember", {"text": said}, n=n) for n, said in enumerate(changes, 2)]
    assert [(reply["change"], reply["version"]) for reply in replies] == list(changes.values())
    assert [reply["item_id"] == kept["item_id"] for reply in replies] == [True, False, False, False]
    elsewhere = write(bench, claim, "remember", {"text": f"{more} gladly", "kind": "episodic"}, n=6)
    assert (elsewhere["change"], elsewhere["version"]) == ("created", 1)
    hits = read(bench, claim, "recall", {"question": "parcels brought to the door", "k": 50})["hits"]
    assert sorted(hit["text"] for hit in hits) == sorted([*changes, f"{more} gladly"])
    [revised] = [hit for hit in hits if hit["id"] == kept["item_id"]]
    assert (revised["text"], revised["version"]) == (more, 2)


def test_what_may_say_otherwise_is_named_and_proposed_to_give_way(bench: Bench) -> None:
    claim = bench.admit()
    write(bench, claim, "session", ADA)

    def tea(value: str) -> dict[str, Any]:
        return {"fact_kind": "preference", "facts": {"about": "tea", "value": value}}

    said: dict[str, tuple[dict[str, Any], list[int]]] = {
        "Speaks German with us.": ({"attribute": "language"}, []),
        "Wants letters in French.": ({"attribute": "Language "}, [0]),
        "Has a garden.": ({"attribute": "home"}, []),
        "Wants letters in Dutch.": ({"attribute": "language", "namespace": "office"}, []),
        "Drinks green leaves.": (tea("green"), []),
        "Chose the dark sort.": (tea("black"), [4]),
        "The parcel weighs 5 kilos": ({}, []),
        "The parcel weighs 7 kilos": ({}, [6]),
        "The parcel weighs 9 kilos": ({"namespace": "office"}, []),
        "Promised to ring back.": ({"fact_kind": "commitment", "facts": {"what": "ring back"}}, []),
        "Has rung back.": ({"fact_kind": "commitment", "facts": {"what": "ring back", "by": "us", "done": True}}, [9]),
    }
    kept = []
    for n, (text, (how, otherwise)) in enumerate(said.items(), 1):
        kept.append(write(bench, claim, "remember", {"text": text, **how}, n=n))
        assert kept[-1]["contradicts"] == [kept[place]["item_id"] for place in otherwise], text
    # What both name is proposed by the service itself; what only their words suggest is not.
    for n, (text, replaced, outcome) in enumerate(
        [("Wants letters in French.", 0, "known"), ("The parcel weighs 7 kilos", 6, "proposed")], 1
    ):
        body = {"text": text, "act": "supersede", "item": kept[replaced]["item_id"]}
        assert write(bench, claim, "propose", body, n=n)["outcome"] == outcome, text


def test_a_proposal_is_fenced_and_made_once(bench: Bench) -> None:
    claim = bench.admit()
    write(bench, claim, "session", {**ADA, "name": "Ada"})
    kept = write(bench, claim, "remember", {"text": TEA})
    told = "As I recall, you drink green tea in the morning."
    answers = [
        write(bench, claim, "propose", {"text": text}, n=n)
        for n, text in enumerate(["Plays the violin.", "Plays  the VIOLIN.", told], 1)
    ]
    assert [answer["outcome"] for answer in answers] == ["proposed", "known", "known"]
    assert answers[0]["proposal_id"] == answers[1]["proposal_id"] and answers[1]["why"] == "it is proposed already"
    assert (answers[2]["proposal_id"], answers[2]["why"]) == ("", f"it only restates an item ({kept['item_id']})")
    change = {"text": "Ada drinks black tea.", "act": "update", "item": kept["item_id"]}
    assert write(bench, claim, "propose", change, n=4)["outcome"] == "proposed"
    read(bench, claim, "recall", {"question": "green tea"})
    write(bench, claim, "forget", {"item": kept["item_id"], "reason": "she asked"})
    echo = write(bench, claim, "propose", {"text": told}, n=5)
    assert (echo["outcome"], echo["why"]) == ("refused", f"it only restates an item ({kept['item_id']}@1)")
    for n, (body, refusal) in enumerate(
        [(change, Conflict), ({**change, "item": f"item_{'0' * 32}"}, NotFound), ({"text": " "}, Invalid)], 6
    ):
        step = begun(bench, claim, "memory.propose", n=n)
        with pytest.raises(refusal):
            bench.store.memory(claim, "propose", body, step_seq=step.seq, key=step.key)
        bench.finish(claim, step.seq, "refused")


def test_the_next_worker_repeats_a_lost_write_under_the_same_key(bench: Bench) -> None:
    claim = bench.admit()
    write(bench, claim, "session", ADA)
    step = begun(bench, claim, "memory.remember")
    first = bench.store.memory(claim, "remember", {"text": TEA}, step_seq=step.seq, key=step.key)
    claim = bench.retake(claim)
    start = StepStart("memory.remember#1", "memory.remember", kind="memory", effect="keyed", window_s=86_400.0)
    again = bench.turn(claim, start=[start]).begun[0]
    assert (again.action, again.key) == ("execute", step.key)
    assert bench.store.memory(claim, "remember", {"text": TEA}, step_seq=again.seq, key=again.key) == first


def test_a_worker_that_lost_the_run_neither_writes_nor_reads(bench: Bench) -> None:
    old = bench.admit()
    write(bench, old, "session", ADA)
    step, asked = begun(bench, old, "memory.remember"), begun(bench, old, "memory.recall", effect="pure")
    new = bench.retake(old)
    with pytest.raises(Fenced):
        bench.store.memory(old, "remember", {"text": TEA}, step_seq=step.seq, key=step.key)
    with pytest.raises(Fenced):
        bench.store.memory(old, "recall", {"question": "tea"}, step_seq=asked.seq, key="")
    assert read(bench, new, "recall", {"question": "green tea"}, n=2)["hits"] == []


def test_a_write_needs_the_key_that_its_step_was_given(bench: Bench) -> None:
    claim = bench.admit()
    write(bench, claim, "session", ADA)
    step, asked = begun(bench, claim, "memory.remember"), begun(bench, claim, "memory.recall", effect="pure")
    for seq, key in ((step.seq, ""), (step.seq, "0" * 64), (asked.seq, "0" * 64), (99, step.key)):
        with pytest.raises((Invalid, Conflict)):
            bench.store.memory(claim, "remember", {"text": TEA}, step_seq=seq, key=key)


@pytest.mark.parametrize(
    ("act", "body", "field"),
    [
        ("recall", {"question": "tea", "colour": "green"}, "/colour"),
        ("recall", {}, "/question"),
        ("recall", {"question": "tea", "k": "many"}, "/k"),
        ("context", {"strategy": "guess"}, "/strategy"),
    ],
)
def test_a_body_that_cannot_be_read_names_the_place(bench: Bench, act: str, body: dict[str, Any], field: str) -> None:
    claim = bench.admit()
    write(bench, claim, "session", ADA)
    step = begun(bench, claim, f"memory.{act}", effect="pure")
    with pytest.raises(Invalid) as refused:
        bench.store.memory(claim, act, body, step_seq=step.seq, key="")
    assert refused.value.field == field


def test_what_is_not_there_is_said(bench: Bench) -> None:
    claim = bench.admit()
    step = begun(bench, claim, "memory.recall", effect="pure")
    for act, body in {"recall": {"question": "tea"}, "context": {}, "guess": {}}.items():
        with pytest.raises(NotFound):
            bench.store.memory(claim, act, body, step_seq=step.seq, key="")
    assert read(bench, claim, "read-progress", {})["version"] == 0
    assert read(bench, claim, "prompt", {})["text"] == ""


def test_progress_says_who_was_first(bench: Bench) -> None:
    claim = bench.admit(session="parcel-7")
    write(bench, claim, "write-progress", {"sections": {"Goal": "Find it.", "Next": "Ask."}, "expected_version": 0})
    step = begun(bench, claim, "memory.write-progress", n=2)
    stale = {"sections": {"Goal": "Another."}, "expected_version": 0}
    with pytest.raises(Conflict):
        bench.store.memory(claim, "write-progress", stale, step_seq=step.seq, key=step.key)
    found = read(bench, claim, "read-progress", {})
    assert (found["version"], found["sections"]["next"]) == (1, "Ask.")
    bench.finish(claim, step.seq, "refused")
    assert read(bench, claim, "read-progress", {"key": "parcel-7"}, n=2)["sections"]["goal"] == "Find it."


# --- whole agents


@pytest.fixture(params=["straight", "suspending"])
def drive(request: pytest.FixtureRequest, world: World) -> Any:
    return functools.partial(run_agent, store=world.store, controls=world, suspend_always=request.param == "suspending")


@st.step
def think(text: str) -> str:
    CALLS["think"] += 1
    if "think" in DIE_IN:
        DIE_IN.remove("think")
        raise Killed
    return text.upper()


@st.step(kind="group")
def look_up(question: str) -> list[str]:
    """A read inside a step."""
    return list(st.memory.recall(question).texts)


@st.agent("conformance-memory")
def remembering(letter: str) -> dict[str, Any]:
    session = st.memory.session("user:4411", aliases={"email": "ada@example.com"})
    session.say("user", letter, author="Ada", importance="fact")
    kept = st.memory.remember(letter, importance=0.8)
    both = st.gather(
        functools.partial(st.memory.recall, "parcel north"), lambda: st.memory.recall("parcel", k=1), think_about
    )
    context = st.memory.context("Where is the parcel?", budget_tokens=400)
    thought = think(str(context))
    inside = look_up("parcel")
    session.say("assistant", "We look for it.")
    undone = session.undo(1)
    st.memory.progress.write({"Goal": "Find the parcel.", "Next": "Ask the carrier."})
    document = st.memory.progress.read()
    return {
        "kept": kept.change,
        "texts": [hit.text for hit in both[0].hits],
        "one": len(both[1].hits),
        "branch": both[2],
        "thought": letter.upper() in thought,
        "inside": letter in inside,
        "undone": undone.count,
        "next": document.sections["next"],
    }


@st.agent("conformance-memory-async")
async def remembering_async(letter: str) -> dict[str, Any]:
    """The same verbs, awaited; mypy reads this file, so each answer is of its type."""
    session = await st.memory.session("user:4411", aliases={"email": "ada@example.com"})
    await session.say("user", letter, author="Ada", importance="fact")
    kept = await st.memory.remember(letter, importance=0.8)
    both = await st.gather(st.memory.recall("parcel north"), st.memory.recall("parcel", k=1), think_about)
    context: str = (await st.memory.context("Where is the parcel?", budget_tokens=400)).text
    thought = think(context)
    inside = await look_up_async("parcel")
    await session.say("assistant", "We look for it.")
    undone = await session.undo(1)
    await st.memory.progress.write({"Goal": "Find the parcel.", "Next": "Ask the carrier."})
    document = await st.memory.progress.read()
    proposed = await st.memory.propose("Waits for a parcel.")
    forgotten = await st.memory.forget(kept)
    prompt = await st.memory.prompt()
    assert (await session.context("Where is it?")).used_tokens > 0
    assert proposed.proposal_id and forgotten.item_id == kept.item_id and prompt.text == ""
    return {
        "kept": kept.change,
        "texts": [hit.text for hit in both[0].hits],
        "one": len(both[1].hits),
        "branch": both[2],
        "thought": letter.upper() in thought,
        "inside": letter in inside,
        "undone": undone.count,
        "next": document.sections["next"],
    }


@st.step(kind="group")
async def look_up_async(question: str) -> list[str]:
    return list((await st.memory.recall(question)).texts)


def think_about() -> str:
    return think("aside")


WANTED = {
    "kept": "created",
    "one": 1,
    "branch": "ASIDE",
    "thought": True,
    "inside": True,
    "undone": 1,
    "next": "Ask the carrier.",
}
LETTER = "The parcel from the north has not come."


@pytest.mark.parametrize("agent", [remembering, remembering_async])
def test_an_agent_with_memory_ends_alike_on_every_store(drive: Any, agent: Any) -> None:
    info = drive(agent, {"letter": LETTER})
    assert info.status == "succeeded", info
    assert {name: info.output[name] for name in WANTED} == WANTED
    assert LETTER in info.output["texts"]
    assert CALLS["think"] == 2


@pytest.mark.parametrize("agent", [remembering, remembering_async])
def test_an_agent_killed_in_a_step_answers_its_reads_from_their_records(drive: Any, agent: Any) -> None:
    DIE_IN.append("think")
    info = drive(agent, {"letter": LETTER})
    assert info.status == "succeeded", info
    assert {name: info.output[name] for name in WANTED} == WANTED


@st.agent("conformance-memory-snapshot", mode="snapshot")
def remembering_turns(state: dict[str, Any]) -> Any:
    if state["n"] == 1:
        st.memory.session("user:4411")
    if state["n"] == 4:
        return st.Done({"texts": list(st.memory.recall("remark").texts)})
    st.memory.remember(f"Remark {state['n']} about {['tea', 'trains', 'paint'][state['n'] - 1]}.", namespace="remarks")
    return {"n": state["n"] + 1}


def test_a_snapshot_agent_remembers_once_a_turn(drive: Any) -> None:
    info = drive(remembering_turns, {"n": 1})
    assert info.status == "succeeded", info
    texts = sorted(info.output["texts"])
    assert texts == ["Remark 1 about tea.", "Remark 2 about trains.", "Remark 3 about paint."]


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_at_any_exchange_everything_is_written_once(world: World, when: Any) -> None:
    """Each exchange with the service is one place to die: turns, and the acts of memory between them."""
    at = 0
    while True:
        at += 1
        store = Crashing(world.store, at=at, when=when)
        letter = f"The parcel number {at}{when} from the north has not come."
        info = run_agent(solo, {"letter": letter}, store=store, controls=world)
        assert info.status == "succeeded", (at, info)
        assert info.output == {"said": 1, "kept": 1, "change": "created", "version": 1}, at
        if store.turns < at:
            return
        assert at < 60


@st.agent("conformance-memory-solo")
def solo(letter: str) -> dict[str, Any]:
    """A subject of its own, so that what is found counts what was written."""
    session = st.memory.session(f"user:{letter}")
    session.say("user", letter)
    kept = st.memory.remember(f"Wrote: {letter}")
    document = st.memory.progress.write({"Goal": letter})
    hits = st.memory.recall("parcel number from the north", k=50).hits
    kinds = Counter(hit.kind for hit in hits)
    return {"said": kinds["message"], "kept": kinds["item"], "change": kept.change, "version": document.version}


@st.agent("conformance-memory-refused")
def refused() -> str:
    st.memory.session("user:4411", key="ours")
    try:
        st.memory.session("user:9", key="ours")
    except st.Refused as no:
        return no.message
    return "opened"


def test_a_definite_no_is_an_exception_the_agent_handles(drive: Any) -> None:
    info = drive(refused, {})
    assert info.status == "succeeded" and info.output.startswith("Conflict: "), info


def test_outside_of_a_run_memory_says_where_it_works() -> None:
    with pytest.raises(RuntimeError, match="only inside a run"):
        st.memory.recall("tea")
    with pytest.raises(RuntimeError, match=r"st\.memory\.remember"):
        st.memory.remember(TEA)
