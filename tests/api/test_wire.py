"""The codec that both sides share: what is written is read back the same, and what cannot be read names its place."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstate.core.errors import Invalid
from agentstate.sdk import wire
from agentstate.sdk.store import (
    UNCHANGED,
    AgentSpec,
    Begun,
    Claim,
    Continue,
    End,
    Entry,
    Failure,
    Park,
    Question,
    StepFinish,
    StepRecord,
    StepStart,
    ToolSpec,
    Turn,
    TurnReply,
    Usage,
)

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc/~é", max_size=5), inner, max_size=4),
    max_leaves=15,
)
questions = st.builds(
    Question, title=st.just("?"), args=plain, evidence=st.just((1, 2)), schema=st.just({"type": "object"})
)
finishes = st.builds(
    StepFinish,
    seq=st.integers(1, 9),
    outcome=st.sampled_from(["done", "failed", "unknown"]),
    output=plain,
    failure=st.none() | st.just(Failure("ValueError", "no", retryable=True)),
    usage=st.none() | st.just(Usage("m", 1, 2, 0.5)),
)
starts = st.builds(
    StepStart,
    identity=st.just("a#1"),
    name=st.just("a"),
    payload=plain,
    attempt=st.none() | st.integers(1, 5),
    timeout_s=st.none() | st.floats(0.1, 9),
    question=st.none() | questions,
    result=st.none() | finishes,
)
turns = st.builds(
    Turn,
    finish=st.lists(finishes, max_size=2).map(tuple),
    start=st.lists(starts, max_size=2).map(tuple),
    entries=st.just((Entry(1, "note", "x", at=datetime(2026, 1, 1, tzinfo=UTC)),)),
    state=st.just(UNCHANGED) | plain,
    then=st.none()
    | st.builds(End, st.just("succeeded"), plain)
    | st.builds(Continue, plain)
    | st.just(Park("timer", 2.5)),
)


@given(turns)
def test_a_turn_is_read_back_as_it_was_written(turn: Turn) -> None:
    read = wire.decode(Turn, wire.loads(wire.dumps(turn)))
    assert read == turn
    assert (read.state is UNCHANGED) == (turn.state is UNCHANGED)


@given(plain)
def test_a_claim_and_a_reply_are_read_back_as_they_were_written(value: Any) -> None:
    step = StepRecord(1, "a#1", "a", "tool", "keyed", "done", "00", output=value, failure=Failure("E", "m"))
    claim = Claim("run_1", "a", 3, 5.0, input=value, state=value, history=(step,), entries=(Entry(1, "note", "x"),))
    assert wire.decode(Claim, wire.loads(wire.reply(claim)), strict=False) == claim
    reply = TurnReply(begun=(Begun("execute", 1, args=value, wait_s=None),), control="pause")
    assert wire.decode(TurnReply, wire.loads(wire.reply(reply)), strict=False) == reply


def test_an_agent_with_tools_is_read_back_as_it_was_written() -> None:
    spec = AgentSpec("a", "1", tools=(ToolSpec("t", "keyed", schema={"x": 1}, window_s=60.0),), fingerprint={"m": "0a"})
    assert wire.decode(AgentSpec, wire.loads(wire.dumps(spec))) == spec


def test_a_request_leaves_defaults_out_and_tells_no_state_from_a_state_of_null() -> None:
    assert wire.dumps(Turn()) == b"{}"
    assert wire.dumps(Turn(state=None)) == b'{"state":null}'
    assert wire.dumps(Turn(then=End("failed"))) == b'{"then":{"end":{"outcome":"failed"}}}'


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), "\0", "\ud800", 2**64, {1: 2}, object(), datetime.now(UTC)]
)
def test_what_is_no_json_is_refused_before_it_is_sent(value: Any) -> None:
    with pytest.raises(Invalid) as refusal:
        wire.dumps(Turn(start=[StepStart("a#1", "a", payload={"deep": [value]})]))
    assert refusal.value.field.startswith("/start/0/payload/deep/0")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"start": {}}', "/start"),
        (b'{"start": [[]]}', "/start/0"),
        (b'{"start": [{"identity": "a#1", "name": "a", "question": {"title": "x", "evidence": ["1"]}}]}',
         "/start/0/question/evidence/0"),
        (b'{"start": [{"identity": "a#1", "name": "a", "a/b~c": 1}]}', "/start/0/a~1b~0c"),
        (b'{"finish": [{"seq": 1.0}]}', "/finish/0/seq"),
        (b'{"then": {"end": {"outcome": "succeeded", "failure": {"type": "E"}}}}', "/then/end/failure/message"),
    ],
)  # fmt: skip
def test_a_fault_is_named_by_its_place(body: bytes, field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        wire.decode(Turn, wire.loads(body))
    assert refusal.value.field == field


def test_a_reader_of_replies_overlooks_what_it_does_not_know() -> None:
    assert wire.decode(TurnReply, {"status": "running", "colour": "red"}, strict=False).status == "running"
    with pytest.raises(Invalid):
        wire.decode(TurnReply, {"status": "running", "colour": "red"})
