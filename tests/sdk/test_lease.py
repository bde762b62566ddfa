"""Trust in the lease: by our own clock, from before we asked; gone means that nothing is called and nothing written."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

import agentstate as st
from agentstate.core.errors import Fenced, TooLarge, Unavailable
from agentstate.sdk.agents import Agent
from agentstate.sdk.executor import Driven, Executor
from agentstate.sdk.lease import TRUSTED_PART, Trust
from agentstate.sdk.signals import LeaseLost
from agentstate.sdk.store import Claim, Failure, Renewal, Turn, TurnReply
from agentstate.sdk.testing import WORKER
from agentstate.sdk.worker import Hosted, serve_one
from agentstate.testing import MemoryStore, drive_once, run_agent

LEASE_S = 10.0


class Time:
    """A monotonic clock that tests move."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def trust(clock: Time, *, asked_at: float | None = None) -> Trust:
    return Trust(LEASE_S, asked_at=clock() if asked_at is None else asked_at, monotonic=clock)


def test_trust_ends_before_the_lease_does() -> None:
    clock = Time()
    lease = trust(clock)
    clock.now += LEASE_S * TRUSTED_PART - 0.001
    lease.check()
    clock.now += 0.002
    with pytest.raises(LeaseLost):
        lease.check()


def test_a_slow_successful_renewal_extends_trust_only_from_when_it_was_asked() -> None:
    clock = Time()
    lease = trust(clock)
    asked_at = clock()
    clock.now += 8.0  # the answer was on its way for eight seconds
    lease.extend(asked_at=asked_at, lease_s=LEASE_S)
    assert lease.remaining_s() == pytest.approx(LEASE_S * TRUSTED_PART - 8.0)


def test_an_overtaken_renewal_does_not_shorten_trust() -> None:
    clock = Time()
    lease = trust(clock)
    clock.now += 2.0
    lease.extend(asked_at=clock(), lease_s=LEASE_S)
    lease.extend(asked_at=clock() - 1.0, lease_s=LEASE_S)
    assert lease.remaining_s() == pytest.approx(LEASE_S * TRUSTED_PART)


def test_lost_trust_never_comes_back() -> None:
    clock = Time()
    lease = trust(clock)
    lease.lose("fenced")
    lease.extend(asked_at=clock(), lease_s=LEASE_S)
    assert lease.remaining_s() == 0
    with pytest.raises(LeaseLost, match="fenced"):
        lease.check()


class Counted(MemoryStore):
    """Renewals are counted, and take no time."""

    renewals = 0

    def renew(self, claim: Claim) -> Renewal:
        self.renewals += 1
        return super().renew(claim)


@pytest.mark.parametrize(("late_s", "renewals"), [(0.0, 0), (LEASE_S * 2, 1)])
def test_a_claim_that_came_late_is_renewed_before_main_begins(late_s: float, renewals: int) -> None:
    store = Counted(lease_s=LEASE_S)

    @st.agent("late")
    def main() -> int:
        look("first")
        return store.renewals

    store.register(main.spec())
    run_id = store.admit(main.name, {}).run_id
    claim = store.claim(WORKER, agents={"late": main.spec()}, run_id=run_id)
    assert claim is not None
    driven = Executor(store, claim, main, asked_at=time.monotonic() - late_s).run()
    assert (driven.status, store.get(run_id).output, CALLS) == ("succeeded", renewals, ["first"])


CALLS: list[str] = []


@pytest.fixture(autouse=True)
def _clean() -> None:
    CALLS.clear()


@st.step
def look(name: str) -> str:
    CALLS.append(name)
    return name


def driven(store: Any, main: Agent, **options: Any) -> tuple[str, Driven | None]:
    store.register(main.spec())
    run_id = store.admit(main.name, {}).run_id
    return run_id, drive_once(main, run_id, store=store, **options)


class Wrapped:
    """A store with one method put in front of."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


class Unheard(Wrapped):
    """Renewals do not get through."""

    def renew(self, claim: Claim) -> Renewal:
        raise Unavailable("no route")


def test_a_zombie_writes_nothing_and_its_reply_is_kept_as_evidence() -> None:
    store = MemoryStore()

    @st.tool(effect="destructive")
    def delete(path: str) -> str:
        CALLS.append("delete")
        store.expire_lease(run_ids[0])  # stopped in the middle; somebody else takes the run
        claim = store.claim(WORKER, agents={"zombie": spec}, run_id=run_ids[0])
        assert claim is not None
        return path

    @st.agent("zombie", tools=[delete])
    def main() -> str:
        deleted = delete("/x")
        return look(deleted)

    run_ids: list[str] = []
    spec = main.spec()
    store.register(spec)
    run_ids.append(store.admit("zombie", {}).run_id)
    result = drive_once(main, run_ids[0], store=store)
    assert result is not None
    assert (result.then, result.status) == (None, "lost")
    assert CALLS == ["delete"]
    (late,) = store.runs[run_ids[0]].late
    assert (late.outcome, late.output) == ("done", "/x")
    assert [row.status for row in store.steps(run_ids[0])] == ["started"]
    info = run_agent(main, run_id=run_ids[0], store=store)
    assert (info.status, CALLS) == ("in_doubt", ["delete"])


def test_an_effect_is_not_called_when_trust_ran_out_on_the_way() -> None:
    clock = Time()

    class Slow(Wrapped):
        def turn(self, claim: Claim, turn: Turn) -> TurnReply:
            reply = self.store.turn(claim, turn)
            if turn.start:
                clock.now += 31.0  # frozen between the answer and the call
                self.store.expire_lease(claim.run_id)
            return reply

    @st.tool(effect="destructive")
    def delete() -> None:
        CALLS.append("delete")

    @st.agent("frozen", tools=[delete])
    def main() -> None:
        delete()

    store = MemoryStore()
    run_id, result = driven(Slow(store), main, monotonic=clock)
    assert result is not None
    assert result.status == "lost"
    assert CALLS == []
    assert [late.outcome for late in store.runs[run_id].late] == ["not_sent"]


def test_a_missed_moment_is_recorded_as_not_sent_and_tried_again_while_the_lease_is_ours() -> None:
    clock = Time()

    class Slow(Wrapped):
        delays = [1_000.0]

        def turn(self, claim: Claim, turn: Turn) -> TurnReply:
            reply = self.store.turn(claim, turn)
            if turn.start and self.delays:
                clock.now += self.delays.pop()
            return reply

    @st.tool(effect="destructive")
    def delete() -> str:
        CALLS.append("delete")
        return "gone"

    @st.agent("slow", tools=[delete])
    def main() -> str:
        return delete()

    store = MemoryStore()
    run_id, result = driven(Slow(store), main, monotonic=clock)
    assert result is not None
    assert (result.status, CALLS) == ("succeeded", ["delete"])
    (row,) = store.steps(run_id)
    assert [attempt for attempt, _ in row.attempts] == [1, 2]
    assert row.attempts[0][1] != row.attempts[1][1]


def test_a_slow_answer_to_a_turn_leaves_that_much_less_trust() -> None:
    clock = Time()

    class Slow(Unheard):
        def turn(self, claim: Claim, turn: Turn) -> TurnReply:
            reply = self.store.turn(claim, turn)
            clock.now += 20.0
            return reply

    @st.agent("slow-turn", tools=[look])
    def main() -> None:
        look("one")
        clock.now += 8.0  # 28 s after the turn was sent; 30 s is the lease, 27 s of it are trusted
        look("two")

    _, result = driven(Slow(MemoryStore()), main, monotonic=clock)
    assert result is not None
    assert (result.status, CALLS) == ("lost", ["one"])


def test_a_slow_answer_to_a_renewal_leaves_that_much_less_trust() -> None:
    clock = Time()
    renewed = threading.Event()

    class Slow(Wrapped):
        def renew(self, claim: Claim) -> Renewal:
            if renewed.is_set():
                raise Unavailable("no route")
            clock.now += 0.3
            renewed.set()
            return Renewal(0.4)

    @st.agent("slow-renewal", tools=[look])
    def main() -> None:
        clock.now += 0.2  # a renewal is due, and takes 0.3 s
        assert renewed.wait(5)
        time.sleep(0.05)
        clock.now += 0.1  # 0.4 s after it was asked for; 0.36 s are trusted
        look("never")

    _, result = driven(Slow(MemoryStore(lease_s=0.4)), main, monotonic=clock)
    assert result is not None
    assert (result.why_lost, CALLS) == ("the lease was not renewed in time", [])


def test_no_step_begins_once_trust_is_gone() -> None:
    clock = Time()

    @st.agent("late", tools=[look])
    def main() -> None:
        look("one")
        clock.now += 31.0
        look("two")

    store = MemoryStore()
    _, result = driven(Unheard(store), main, monotonic=clock)
    assert result is not None
    assert (result.status, result.why_lost) == ("lost", "the lease was not renewed in time")
    assert CALLS == ["one"]


def test_agent_code_cannot_swallow_a_lost_lease() -> None:
    clock = Time()

    @st.agent("swallow", tools=[look])
    def main() -> str:
        clock.now += 31.0
        for _ in range(3):
            try:
                look("one")
            except BaseException:
                continue
        return "done"

    store = MemoryStore()
    run_id, result = driven(Unheard(store), main, monotonic=clock)
    assert result is not None
    assert (result.status, CALLS, store.get(run_id).status) == ("lost", [], "running")


def test_the_heartbeat_keeps_a_long_step_alive() -> None:
    @st.step
    def long() -> str:
        time.sleep(1.5)
        return "done"

    @st.agent("long", tools=[long])
    def main() -> str:
        return long()

    store = MemoryStore(lease_s=0.9)
    _, result = driven(store, main)
    assert result is not None
    assert result.status == "succeeded"


def test_a_fenced_heartbeat_ends_trust_at_once() -> None:
    store = MemoryStore(lease_s=0.2)
    fenced = threading.Event()

    class Watching(Wrapped):
        def renew(self, claim: Claim) -> Renewal:
            try:
                return self.store.renew(claim)
            except Fenced:
                fenced.set()
                raise

    @st.agent("fenced", tools=[look])
    def main() -> None:
        store.expire_lease(run_ids[0])
        assert fenced.wait(2)
        time.sleep(0.02)
        look("never")

    run_ids: list[str] = []
    store.register(main.spec())
    run_ids.append(store.admit("fenced", {}).run_id)
    result = drive_once(main, run_ids[0], store=Watching(store))
    assert result is not None
    assert (result.status, CALLS) == ("lost", [])


def away(times: int) -> Callable[[MemoryStore], Any]:
    class Away(Wrapped):
        left = times
        sent: list[Turn] = []

        def turn(self, claim: Claim, turn: Turn) -> TurnReply:
            self.sent.append(turn)
            if self.left:
                self.left -= 1
                self.store.turn(claim, turn)  # it arrived; the answer did not
                raise Unavailable("the reply was lost")
            return self.store.turn(claim, turn)

    return Away


def test_a_lost_reply_is_asked_for_again_and_the_turn_counts_once() -> None:
    @st.tool(effect="destructive")
    def delete() -> str:
        CALLS.append("delete")
        return "gone"

    @st.agent("away", tools=[delete, look])
    def main() -> str:
        look("one")
        return delete()

    memory = MemoryStore()
    store = away(3)(memory)
    _, result = driven(store, main)
    assert result is not None
    assert (result.status, CALLS) == ("succeeded", ["one", "delete"])


def test_a_service_that_stays_away_costs_the_lease_and_nothing_is_called() -> None:
    @st.agent("gone", tools=[look])
    def main() -> str:
        return look("one")

    class Gone(Wrapped):
        def turn(self, claim: Claim, turn: Turn) -> TurnReply:
            raise Unavailable("no route")

    _, result = driven(Gone(MemoryStore(lease_s=0.3)), main)
    assert result is not None
    assert (result.status, CALLS) == ("lost", [])
    assert "no route" in result.why_lost


def test_a_store_that_breaks_is_not_an_exception_the_agent_can_catch() -> None:
    class Broken(Wrapped):
        def turn(self, claim: Claim, turn: Turn) -> TurnReply:
            if any(start.name == "two" for start in turn.start):
                raise ValueError("a bug of the driver")
            return self.store.turn(claim, turn)

    @st.step
    def two() -> None:
        CALLS.append("two")

    @st.agent("broken", tools=[look, two])
    def main() -> str:
        look("one")
        try:
            two()
        except Exception:
            CALLS.append("caught")
        return "went on"

    store = MemoryStore()
    run_id, result = driven(Broken(store), main)
    assert result is not None
    assert (result.status, store.get(run_id).status, CALLS) == ("lost", "running", ["one"])
    assert run_agent(main, run_id=run_id, store=store, controls=store).output == "went on"


def test_an_output_the_service_cannot_keep_is_a_failure_of_the_run() -> None:
    class Strict(Wrapped):
        def turn(self, claim: Claim, turn: Turn) -> TurnReply:
            if turn.then is not None and getattr(turn.then, "output", None):
                raise TooLarge("too large here")
            return self.store.turn(claim, turn)

    @st.agent("large", tools=[look])
    def main() -> str:
        return look("one")

    store = MemoryStore()
    run_id, _ = driven(Strict(store), main)
    assert store.get(run_id).failure == Failure("TooLarge", "too large here")
    assert [row.status for row in store.steps(run_id)] == ["done"]


def test_after_a_long_poll_trust_counts_from_a_fresh_renewal() -> None:
    @st.agent("polled", tools=[look])
    def main() -> str:
        return look("one")

    class Polling(Wrapped):
        renewals = 0

        def claim(self, *args: Any, **options: Any) -> Claim | None:
            time.sleep(0.3)
            return self.store.claim(*args, **options)

        def renew(self, claim: Claim) -> Renewal:
            self.renewals += 1
            return self.store.renew(claim)

    store = Polling(MemoryStore(lease_s=0.6))
    store.register(main.spec())
    store.admit("polled", {})
    seen: list[Executor] = []
    result = serve_one(store, Hosted.of((main,)), info=WORKER, wait_s=1.0, on_claimed=seen.append)
    assert result is not None
    assert result.status == "succeeded"
    assert store.renewals >= 1


def test_after_the_lease_is_lost_no_later_entry_is_shown() -> None:
    refused = threading.Event()
    shown: list[str] = []

    class Refusing(Wrapped):
        def turn(self, claim: Claim, turn: Turn) -> TurnReply:
            if turn.entries or refused.is_set():
                refused.set()
                raise Fenced("somebody else has the run")
            return self.store.turn(claim, turn)

        def note(self, claim: Claim, entries: Any) -> None:
            shown.extend(entry.text for entry in entries)

    @st.agent("noting")
    def main() -> None:
        st.note("rides in the turn that is refused")
        refused.wait(5)  # nobody begins a step: the heartbeat sends what waits too long
        st.note("after it")
        time.sleep(0.3)  # several times as long as an entry waits to be shown

    _, ended = driven(Refusing(MemoryStore()), main)
    assert refused.is_set()
    assert ended is not None
    assert ended.status == "lost"
    assert "after it" not in shown
