"""How one call ends: classified, retried, timed out, recorded; and what of it rides in which turn."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import httpx
import pytest

import agentstate as st
from agentstate.sdk.outcomes import classify
from agentstate.sdk.pacing import RETRY_S_MAX, back_off_s
from agentstate.testing import MemoryStore, drive_once, run_agent

REQUEST = httpx.Request("POST", "https://example.com")
CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()


def status_error(status: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("x", request=REQUEST, response=httpx.Response(status, request=REQUEST))


@pytest.mark.parametrize(
    ("error", "effect", "pure"),
    [
        (st.NotSent("x"), "not_sent", "not_sent"),
        (httpx.ConnectError("x"), "not_sent", "not_sent"),
        (httpx.ConnectTimeout("x"), "not_sent", "not_sent"),
        (httpx.PoolTimeout("x"), "not_sent", "not_sent"),
        (ConnectionRefusedError(), "not_sent", "not_sent"),
        (socket.gaierror(), "not_sent", "not_sent"),
        (st.Refused("x"), "refused", "refused"),
        (status_error(404), "refused", "refused"),
        (status_error(422), "refused", "refused"),
        (status_error(408), "unknown", "failed"),
        (status_error(409), "unknown", "failed"),
        (status_error(425), "unknown", "failed"),
        (status_error(429), "unknown", "failed"),
        (status_error(500), "unknown", "failed"),
        (httpx.ReadTimeout("x"), "unknown", "failed"),
        (httpx.WriteTimeout("x"), "unknown", "failed"),
        (httpx.RemoteProtocolError("x"), "unknown", "failed"),
        (ConnectionResetError(), "unknown", "failed"),
        (TimeoutError(), "unknown", "failed"),
        (KeyError("x"), "unknown", "failed"),
    ],
)
def test_only_what_proves_that_nothing_happened_counts_as_proof(error: Exception, effect: str, pure: str) -> None:
    assert classify(error, has_effect=True)[0] == effect
    assert classify(error, has_effect=False)[0] == pure


def test_an_error_that_calls_itself_connect_error_proves_nothing() -> None:
    class ConnectError(Exception):
        pass

    assert classify(ConnectError(), has_effect=True)[0] == "unknown"


def test_back_off_grows_to_its_cap_and_is_the_same_in_every_replay() -> None:
    pauses = [back_off_s("a#1", tries) for tries in range(12)]
    assert pauses == [back_off_s("a#1", tries) for tries in range(12)]
    assert all(0.75 * min(0.2 * 2**n, RETRY_S_MAX) <= pause <= RETRY_S_MAX for n, pause in enumerate(pauses))
    assert back_off_s("a#1", 3) != back_off_s("b#1", 3)


def driven(main: Any, store: MemoryStore | None = None, **options: Any) -> Any:
    store = store or MemoryStore()
    info = run_agent(main, store=store, **options)
    return info, store


@pytest.mark.parametrize("is_async", [False, True])
def test_a_tool_that_is_refused_raises_the_same_in_every_replay(is_async: bool) -> None:
    def post() -> None:
        CALLS.append("post")
        raise status_error(404)

    async def post_async() -> None:
        post()

    tool: st.Step[[], Any] = st.tool(effect="destructive", name="post")(post_async if is_async else post)

    def caught(error: st.Refused) -> str:
        return f"{type(error).__name__}: {error.message}"

    @st.agent("refused", tools=[tool])
    def main() -> str:
        try:
            tool()
        except st.Refused as error:
            st.sleep(60)
            return caught(error)
        return "?"

    @st.agent("refused", tools=[tool])
    async def main_async() -> str:
        try:
            await tool()
        except st.Refused as error:
            await st.sleep(60)
            return caught(error)
        return "?"

    info, _ = driven(main_async if is_async else main)
    assert (info.output, CALLS) == ("Refused: HTTPStatusError: x", ["post"])


def test_what_was_not_sent_is_sent_again_with_a_new_key_as_often_as_declared() -> None:
    keys: list[str] = []

    @st.tool(effect="destructive", retries=2)
    def post(*, idempotency_key: str = "") -> str:
        keys.append(idempotency_key)
        if len(keys) < 3:
            raise httpx.ConnectError("refused")
        return "ok"

    @st.agent("unsent", tools=[post])
    def main() -> str:
        return post()

    info, _ = driven(main)
    assert (info.output, len(set(keys))) == ("ok", 3)


def test_retries_that_are_used_up_fail_the_step() -> None:
    @st.tool(effect="destructive", retries=1)
    def post() -> str:
        CALLS.append("post")
        raise httpx.ConnectError("refused")

    @st.agent("given-up", tools=[post])
    def main() -> str:
        try:
            return post()
        except st.NotSent as error:
            return str(error)

    info, _ = driven(main)
    assert (info.output, CALLS) == ("ConnectError: refused", ["post", "post"])


def test_a_keyed_call_that_got_no_answer_is_made_again_with_its_key() -> None:
    keys: list[str] = []

    @st.tool(effect="keyed", window="1h")
    def post(*, idempotency_key: str = "") -> str:
        keys.append(idempotency_key)
        if len(keys) < 3:
            raise httpx.ReadTimeout("?")
        return "ok"

    @st.agent("keyed", tools=[post])
    def main() -> str:
        return post()

    info, _ = driven(main)
    assert (info.output, len(keys), len(set(keys))) == ("ok", 3, 1)


def test_a_call_that_was_not_sent_says_nothing_of_the_one_before_it() -> None:
    """Which got no answer: the agent is not told that nothing was sent, and no other key is used."""
    keys: list[str] = []
    errors = [httpx.ReadTimeout("?"), httpx.ConnectError("refused"), httpx.ConnectError("refused")]

    @st.tool(effect="keyed", window="1h")
    def post(*, idempotency_key: str = "") -> str:
        keys.append(idempotency_key)
        if errors:
            raise errors.pop(0)
        return "ok"

    @st.agent("unreached", tools=[post])
    def main() -> str:
        return post()

    info, _ = driven(main)
    assert (info.output, len(keys), len(set(keys))) == ("ok", 4, 1)


def test_a_keyed_call_that_never_gets_an_answer_is_in_doubt_after_its_window() -> None:
    @st.tool(effect="keyed", window="10m")
    def post() -> str:
        CALLS.append("post")
        raise httpx.ReadTimeout("?")

    @st.agent("deaf", tools=[post])
    def main() -> str:
        return post()

    info, _ = driven(main)
    assert info.status == "in_doubt"
    assert 5 < len(CALLS) < 40


def test_a_probed_call_that_got_no_answer_is_asked_about() -> None:
    def probe(key: str) -> Any:
        CALLS.append(key)
        return st.Happened({"id": 7})

    @st.tool(effect="probed", probe=probe)
    def post(*, idempotency_key: str = "") -> dict[str, int]:
        CALLS.append(idempotency_key)
        raise httpx.ReadTimeout("?")

    @st.agent("probed", tools=[post])
    def main() -> Any:
        return post()

    info, store = driven(main)
    assert info.output == {"id": 7}
    assert len(set(CALLS)) == 1
    assert store.steps(info.run_id)[0].source == "probe"


@pytest.mark.parametrize("is_async", [False, True], ids=["tool", "async tool"])
def test_a_probe_may_be_async(is_async: bool) -> None:
    async def probe(key: str) -> Any:
        await asyncio.sleep(0)
        return st.Happened("found")

    def post() -> str:
        raise httpx.ReadTimeout("?")

    async def post_async() -> str:
        raise httpx.ReadTimeout("?")

    tool: st.Step[[], Any] = st.tool(effect="probed", probe=probe, name="post")(post_async if is_async else post)

    @st.agent("async-probe", tools=[tool])
    async def main() -> Any:
        return await tool() if is_async else tool()

    info, _ = driven(main)
    assert info.output == "found"


def test_a_probe_that_knows_nothing_three_times_leaves_it_to_a_person() -> None:
    @st.tool(effect="probed", probe=lambda key: 1 / 0)
    def post() -> str:
        raise httpx.ReadTimeout("?")

    @st.agent("unprobed", tools=[post])
    def main() -> str:
        return post()

    info, _ = driven(main)
    assert info.status == "in_doubt"


def test_an_effect_is_a_leaf() -> None:
    @st.step
    def inner() -> None:
        CALLS.append("inner")

    @st.tool(effect="keyed", window=60)
    def post() -> str:
        inner()
        return "x"

    @st.agent("leaf", tools=[post, inner])
    def main() -> str:
        return post()

    store = MemoryStore()
    store.register(main.spec())
    run_id = store.admit("leaf", {}).run_id
    drive_once(main, run_id, store=store)
    (row,) = store.steps(run_id)
    assert CALLS == []
    assert row.failure is not None
    assert (row.failure.type, row.is_unknown) == ("TypeError", True)
    assert "is a leaf" in row.failure.message


def test_an_unusable_result_of_an_effect_is_recorded_as_done_and_ends_the_run() -> None:
    @st.tool(effect="destructive")
    def post() -> Any:
        CALLS.append("post")
        return object()

    @st.agent("unusable", tools=[post])
    def main() -> Any:
        try:
            return post()
        except BaseException:
            return "swallowed"

    info, store = driven(main)
    assert (info.status, info.failure.type) == ("failed", "Invalid")
    assert [row.status for row in store.steps(info.run_id)] == ["done"]
    assert CALLS == ["post"]


def test_an_unusable_result_of_a_step_fails_the_step_without_retries() -> None:
    @st.step(retries=5)
    def look() -> Any:
        CALLS.append("look")
        return {"when": object()}

    @st.agent("unusable-step", tools=[look])
    def main() -> Any:
        return look()

    info, _ = driven(main)
    assert (info.status, info.failure.type, CALLS) == ("failed", "Invalid", ["look"])
    assert "/output/when" in info.failure.message
