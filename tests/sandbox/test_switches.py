"""Each switch does what it says, seen from the caller and in the ledger."""

from __future__ import annotations

import socket
import time
from concurrent.futures import wait

import httpx
import pytest

from agentstate.dev.sandbox.client import Sandbox
from agentstate.dev.sandbox.ledger import Json
from tests.sandbox.conftest import Caller


def test_a_call_is_accepted_then_acted_then_replied(sandbox: Sandbox, caller: Caller) -> None:
    assert caller.call("crane.lift", "k1", {"floor": 3}).status_code == 201
    sandbox.wait_for("replied", "crane.lift")
    (call,) = sandbox.calls("crane.lift", "k1")
    assert call.phases == ["accepted", "acted", "replied"]
    assert (call.attempt, call.caller_pid, call.status, call.result["payload"]) == (1, 4711, 201, {"floor": 3})


def test_a_blind_tool_acts_every_time_it_is_called(sandbox: Sandbox, caller: Caller) -> None:
    for _ in range(2):
        caller.call("crane.lift", "k1")
    assert [call.attempt for call in sandbox.acts("crane.lift", "k1")] == [1, 2]
    assert caller.probe("crane.lift", "k1") == 501


def test_dedupe_gives_the_first_answer_again_and_acts_once(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.behave("crane.lift", dedupe=True)
    first, second = caller.call("crane.lift", "k1"), caller.call("crane.lift", "k1")
    assert first.json() == second.json()
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(sandbox.calls("crane.lift", "k1")) == 2
    assert len(sandbox.acts("crane.lift", "k1")) == 1
    assert caller.call("crane.lift", "k2").json() != first.json()


def test_dedupe_refuses_a_key_with_another_payload(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.behave("crane.lift", dedupe=True)
    caller.call("crane.lift", "k1", {"floor": 1})
    assert caller.call("crane.lift", "k1", {"floor": 2}).status_code == 422
    assert len(sandbox.acts("crane.lift")) == 1


def test_dedupe_forgets_a_key_after_its_window(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.behave("crane.lift", dedupe=True, dedupe_window_s=0)
    for _ in range(2):
        caller.call("crane.lift", "k1")
    assert len(sandbox.acts("crane.lift", "k1")) == 2


def test_two_calls_with_one_key_at_once_act_once(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.behave("crane.lift", dedupe=True, act_delay_s=0.1)
    answers = [caller.later("crane.lift", "k1") for _ in range(4)]
    wait(answers)
    assert len({str(answer.result().json()) for answer in answers}) == 1
    assert len(sandbox.acts("crane.lift", "k1")) == 1


def test_a_probe_answers_what_is_true_now(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.behave("crane.lift", probe=True)
    assert caller.probe("crane.lift", "k1") == 404
    caller.call("crane.lift", "k1")
    assert caller.probe("crane.lift", "k1") == 200
    sandbox.behave("crane.lift", probe="fail")
    assert caller.probe("crane.lift", "k1") == 503


def test_a_slow_act_happens_although_the_caller_is_gone(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.behave("crane.lift", act_delay_s=0.4, probe=True)
    with pytest.raises(httpx.ReadTimeout):
        caller.call("crane.lift", "k1", s=0.1)
    assert caller.probe("crane.lift", "k1") == 404  # a probe that is believed now is wrong
    sandbox.wait_for("acted", "crane.lift", "k1")
    assert caller.probe("crane.lift", "k1") == 200
    assert len(sandbox.acts("crane.lift", "k1")) == 1


def test_a_slow_reply_comes_after_the_act(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.behave("crane.lift", reply_delay_s=0.3)
    asked = time.monotonic()
    answer = caller.later("crane.lift", "k1")
    sandbox.wait_for("acted", "crane.lift")
    assert sandbox.calls("crane.lift")[0].status is None
    assert answer.result().status_code == 201
    assert time.monotonic() - asked >= 0.3


def test_refuse_and_fail_answer_without_acting(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.behave("crane.lift", refuse=409)
    assert caller.call("crane.lift", "k1").status_code == 409
    sandbox.behave("crane.lift", fail=503)
    assert caller.call("crane.lift", "k1").status_code == 503
    assert len(sandbox.calls("crane.lift")) == 2
    assert sandbox.acts("crane.lift") == []


def test_fail_after_acts_and_then_says_it_failed(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.behave("crane.lift", fail_after=500)
    assert caller.call("crane.lift", "k1").status_code == 500
    assert len(sandbox.acts("crane.lift")) == 1


def test_drop_reply_acts_and_resets_the_connection(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.behave("crane.lift", drop_reply=True)
    with pytest.raises(httpx.ReadError):
        caller.call("crane.lift", "k1")
    sandbox.wait_for("replied", "crane.lift")
    (call,) = sandbox.calls("crane.lift")
    assert (call.acted, call.note) == (True, "lost")


def test_dropping_is_a_reset_and_not_a_tidy_end(sandbox: Sandbox) -> None:
    sandbox.behave("crane.lift", drop_reply=True)
    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=5) as raw:
        head = "POST /acts/crane.lift HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        raw.sendall(f"{head}Content-Length: 2\r\n\r\n{{}}".encode())
        with pytest.raises(ConnectionResetError):
            raw.recv(100)


def test_drop_early_resets_first_and_acts_later(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.behave("crane.lift", drop_early=True, act_delay_s=0.3)
    with pytest.raises(httpx.ReadError):
        caller.call("crane.lift", "k1")
    assert sandbox.acts("crane.lift") == []
    sandbox.wait_for("acted", "crane.lift")


def test_a_switch_holds_for_the_next_calls_only(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.behave("crane.lift", fail={"value": 500, "calls": 2}, refuse={"value": 422, "calls": 1})
    assert [caller.call("crane.lift", "k1").status_code for _ in range(4)] == [422, 500, 201, 201]


def test_calls_beside_the_switches_counts_for_all_of_them(sandbox: Sandbox, caller: Caller) -> None:
    sandbox.behave("crane.lift", fail=500, act_delay_s=0.01, calls=1)
    assert [caller.call("crane.lift", "k1").status_code for _ in range(2)] == [500, 201]


def test_put_replaces_what_was_set_before(sandbox: Sandbox) -> None:
    sandbox.behave("crane.lift", fail=500)
    sandbox.behave("crane.lift", reply_delay_s=1)
    now = sandbox.get("/behaviour/crane.lift")
    assert (now["fail"], now["reply_delay_s"]) == (0, 1.0)
    sandbox.behave("crane.lift")
    assert sandbox.get("/behaviour/crane.lift")["reply_delay_s"] == 0


@pytest.mark.parametrize(
    "body",
    [
        {"explode": True},
        {"fail": 200},
        {"refuse": 503},
        {"fail": True},
        {"act_delay_s": -1},
        {"act_delay_s": 1e9},
        {"act_delay_s": "2"},
        {"dedupe": 1},
        {"probe": "sometimes"},
        {"probe": []},
        {"fail": {"value": 500}},
        {"fail": 500, "calls": 0},
        [],
        None,
    ],
)
def test_a_switch_that_does_not_exist_is_refused_and_changes_nothing(sandbox: Sandbox, body: Json) -> None:
    sandbox.behave("crane.lift", reply_delay_s=0.5)
    answer = httpx.put(f"{sandbox.url}/behaviour/crane.lift", json=body, trust_env=False)
    assert answer.status_code == 422
    assert sandbox.get("/behaviour/crane.lift")["reply_delay_s"] == 0.5


def test_reads_can_be_made_slow_and_failing_too(sandbox: Sandbox) -> None:
    sandbox.behave("orders.read", fail=500, calls=1)
    assert httpx.get(f"{sandbox.url}/orders/4467", trust_env=False).status_code == 500
    assert sandbox.get("/orders/4467")["order_id"] == "4467"
