"""What HttpStore repeats and what it does not, and which errors it raises. Only the network is replaced."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from agentstate.core import errors
from agentstate.sdk import http
from agentstate.sdk.http import HttpStore
from agentstate.sdk.store import Claim, StepFinish, Turn, WorkerInfo

CLAIM = Claim("run_1", "cleaner", fence=3, lease_s=5.0)
WORKER = WorkerInfo("w")
RUN = {"run_id": "run_1", "agent": "cleaner", "status": "queued", "created": True}


class Line:
    """A network that answers from a list: a response, or an exception to raise."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.asked: list[httpx.Request] = []
        self.store = HttpStore("http://service", "as_1", transport=httpx.MockTransport(self._answer))

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def rests(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds it would have slept."""
    slept: list[float] = []
    monkeypatch.setattr("agentstate.sdk.http.time.sleep", slept.append)
    return slept


def problem(status: int, code: str, **members: Any) -> httpx.Response:
    body = {"code": code, "status": status, "detail": "because", "request_id": "r-1", **members}
    return httpx.Response(status, json=body, headers={"Content-Type": "application/problem+json"})


Call = Callable[[HttpStore], Any]
HARMLESS: dict[str, tuple[Call, httpx.Response]] = {
    "turn": (lambda store: store.turn(CLAIM, Turn()), httpx.Response(200, json={"begun": [], "status": "running"})),
    "renew": (lambda store: store.renew(CLAIM), httpx.Response(200, json={"lease_s": 5.0})),
    "get": (lambda store: store.get("run_1"), httpx.Response(200, json=RUN)),
    "admit": (lambda store: store.admit("cleaner", 1), httpx.Response(201, json=RUN)),
    "note": (lambda store: store.note(CLAIM, []), httpx.Response(204)),
}
HARMFUL: dict[str, tuple[Call, httpx.Response]] = {
    "claim": (lambda store: store.claim(WORKER, agents={}), httpx.Response(204)),
    "late": (lambda store: store.late(CLAIM, StepFinish(1)), httpx.Response(204)),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_lost_answer_is_asked_for_again_where_a_repeat_is_harmless(name: str, rests: list[float]) -> None:
    call, good = HARMLESS[name]
    line = Line(httpx.ReadError("reset"), httpx.Response(502, text="<html>"), good)
    call(line.store)
    assert len(line.asked) == 3 and len({request.content for request in line.asked}) == 1
    assert len(rests) == 2


@pytest.mark.parametrize("name", HARMFUL)
def test_a_lost_answer_is_not_asked_for_again_where_a_repeat_does_harm(name: str) -> None:
    call, good = HARMFUL[name]
    for failure in (httpx.ReadError("reset"), httpx.ReadTimeout("slow"), httpx.Response(504, text="gateway")):
        line = Line(failure, good)
        with pytest.raises(errors.Unavailable):
            call(line.store)
        assert len(line.asked) == 1
    unsent = Line(httpx.ConnectError("refused"), problem(503, "unavailable"), good)
    call(unsent.store)
    assert len(unsent.asked) == 3


def test_a_repeated_admission_carries_the_same_key() -> None:
    line = Line(httpx.ReadError("reset"), httpx.Response(200, json=RUN))
    line.store.admit("cleaner", 1)
    first, second = (request.headers["Idempotency-Key"] for request in line.asked)
    assert first == second and len(first) >= 32
    other = Line(httpx.Response(201, json=RUN))
    other.store.admit("cleaner", 1, idempotency_key="mine")
    assert other.asked[0].headers["Idempotency-Key"] == "mine"


def test_it_gives_up_after_some_tries_and_waits_as_long_as_it_is_told(rests: list[float]) -> None:
    line = Line(*[httpx.ConnectError("refused") for _ in range(9)])
    with pytest.raises(errors.Unavailable, match="service did not answer"):
        line.store.get("run_1")
    assert len(line.asked) == http.TRIES
    busy = httpx.Response(503, json={"code": "lock-timeout", "request_id": "r"}, headers={"Retry-After": "2"})
    rests.clear()
    Line(busy, httpx.Response(200, json=RUN)).store.get("run_1")
    assert rests == [2.0]


def test_a_heartbeat_is_not_repeated_past_its_lease(rests: list[float]) -> None:
    busy = httpx.Response(503, json={"code": "unavailable", "request_id": "r"}, headers={"Retry-After": "6"})
    line = Line(busy)
    with pytest.raises(errors.Unavailable):
        line.store.renew(CLAIM)
    assert rests == []


REFUSALS: list[tuple[httpx.Response, type[errors.DomainError]]] = [
    (problem(409, "fenced"), errors.Fenced),
    (problem(409, "conflict", winner="Alice"), errors.Conflict),
    (problem(422, "non-determinism", step=4), errors.NonDeterminism),
    (problem(422, "invalid", field="/start/0"), errors.Invalid),
    (problem(413, "too-large"), errors.TooLarge),
    (problem(404, "not-found"), errors.NotFound),
    (problem(403, "forbidden"), errors.Forbidden),
    (problem(401, "unauthorised"), errors.Unauthorised),
    (problem(500, "corrupt"), errors.Corrupt),
    (problem(400, "malformed"), errors.Invalid),
    (problem(418, "brand-new-code"), errors.DomainError),
    (httpx.Response(404, text="a proxy's page"), errors.NotFound),
    (httpx.Response(500, text="a proxy's page"), errors.Unavailable),
]


@pytest.mark.parametrize(("answer", "raised"), REFUSALS)
def test_a_problem_is_the_error_that_the_local_store_raises(
    answer: httpx.Response, raised: type[errors.DomainError]
) -> None:
    line = Line(answer)
    with pytest.raises(errors.DomainError) as refusal:
        line.store.turn(CLAIM, Turn())
    assert type(refusal.value) is raised and len(line.asked) == 1
    if answer.headers.get("Content-Type") == "application/problem+json":
        sent = answer.json()
        assert refusal.value.message == "because" and refusal.value.field == sent.get("field", "")
        assert {name: refusal.value.data[name] for name in sent.keys() & {"winner", "step"}} == {
            name: sent[name] for name in sent.keys() & {"winner", "step"}
        }


def test_a_newer_service_may_say_more_and_an_id_stays_in_its_place() -> None:
    line = Line(httpx.Response(200, json={**RUN, "colour": "red"}))
    assert line.store.get("run_1/../../stop").run_id == "run_1"
    assert line.asked[0].url.raw_path == b"/api/v1/runs/run_1%2F..%2F..%2Fstop"
    assert line.asked[0].headers["Authorization"] == "Bearer as_1"


class Flow(httpx.SyncByteStream):
    """A body that arrives in parts and says whether it was closed; an exception among them breaks it off."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self.parts = parts
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        for part in self.parts:
            if isinstance(part, Exception):
                raise part
            yield part

    def close(self) -> None:
        self.closed = True


def test_an_answer_in_parts_is_read_whole_and_its_connection_given_back() -> None:
    body = json.dumps(RUN).encode()
    broken, whole = Flow(body[:9], httpx.ReadError("reset")), Flow(body[:9], body[9:])
    line = Line(httpx.Response(200, stream=broken), httpx.Response(200, stream=whole))
    assert line.store.get("run_1").run_id == "run_1"
    assert broken.closed and whole.closed and len(line.asked) == 2


def test_a_proxy_may_pack_an_answer() -> None:
    packed = Flow(gzip.compress(json.dumps(RUN).encode()))
    line = Line(httpx.Response(200, stream=packed, headers={"Content-Encoding": "gzip"}))
    assert line.store.get("run_1").run_id == "run_1" and packed.closed


def test_a_request_says_its_length_and_whom_it_asks() -> None:
    line = Line(httpx.Response(200, json={"begun": [], "status": "running"}), httpx.Response(200, json=RUN))
    line.store.turn(CLAIM, Turn(state={"a": "é"}))
    line.store.get("run_1")
    turn, get = line.asked
    assert turn.headers["Content-Length"] == str(len(turn.content)) and "Content-Length" not in get.headers
    assert turn.headers["Host"] == "service" and turn.headers["Run-Fence"] == "3"
    assert len(turn.headers.raw) == len({name.lower() for name, _ in turn.headers.raw})
    assert turn.extensions["timeout"]["read"] == http.TIMEOUT_S
