"""Eleven broken runtimes, each without one of the rules. A drill that does not notice them proves nothing.

Applied in the worker group (and, for the rule about people, where people act) by AGENTSTATE_MUTANT, which nothing that
is shipped ever reads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

Patch = Callable[[], None]
MEANING = {
    "none": "the runtime as it is: nothing may be noticed",
    "no_fence": "a worker that has lost its lease may go on writing",
    "no_before_row": "an effect is called first and recorded after",
    "key_rederived": "a repeated call gets a key of its own",
    "early_takeover": "a run is taken over while its lease holds",
    "probe_believed_at_once": "a probe's no counts before a late act can show",
    "retry_on_timeout": "a call without an answer counts as not sent",
    "ack_lost": "a message that is taken and lost has no net below it",
    "settle_without_right": "anybody may say at once that it did not happen",
    "trim_before_flush": "the scratchpad drops what no turn has made durable",
    "deferred_finish_lost": "the result of a step that waits for the next turn is dropped",
    "memory_unkeyed": "a write of memory that is asked for again is done again",
}


def apply() -> None:
    """In this process. Raises: KeyError for an unknown name."""
    name = os.environ.get("AGENTSTATE_MUTANT", "")
    if name:
        _PATCHES[name]()


def _put(owner: Any, name: str, broken: Any) -> Any:
    """`broken` in the place of what the owner (a module or class) has by that name, which is returned."""
    whole = getattr(owner, name)
    setattr(owner, name, broken)
    return whole


def _no_fence() -> None:
    """The SQL half is changed by the conductor (see sql_of); here neither the engine nor the executor looks."""
    from agentstate.core.ids import parse_id
    from agentstate.sdk.lease import Trust
    from agentstate.tenants.scope import tenant_scope
    from runs.engine import session as sessions
    from runs.engine import store

    def session_of(self: Any, claim: Any) -> Any:
        run_id = parse_id("run", claim.run_id)
        known = self._sessions.get((run_id, claim.fence))
        if known is None:
            with tenant_scope(self.tenant_id):
                run = vars(store)["Run"].objects.get(id=run_id)
                known = sessions.load(run, fence=claim.fence, lease_s=self.lease_s)[0]
            self._remember(known)
        return known

    _put(store.LocalStore, "_session", session_of)
    _put(Trust, "lose", lambda self, why: None)
    _put(Trust, "remaining_s", lambda self: 1.0)


def sql_of(mutant: str, function: str, definition: str) -> str:
    """A function of the database without its rule: the conductor puts it into the throw-away database."""
    broken = _SQL.get((mutant, function))
    return broken(definition) if broken else definition


def functions() -> list[str]:
    """Those of the database that some mutant breaks."""
    return sorted({function for _, function in _SQL})


def _without_fence(*, fences: int, leases: int) -> Callable[[str], str]:
    """Takes so many comparisons of the fence and of the lease out of a turn, or refuses to."""

    def broken(definition: str) -> str:
        definition, fenced = re.subn(r"(\w+\.)?fence = p_fence and ", "", definition)
        definition, leased = re.subn(r" and r\.lease_until > v_now", "", definition)
        assert fenced >= fences and leased >= leases, "a turn is fenced in another way by now: break that instead"
        return definition

    return broken


def _claim_of_the_living(definition: str) -> str:
    definition, looks = re.subn(r" and run\.held_by_a_living", " and false", definition)
    assert looks == 1, "runs_claim respects a lease in another way by now: break that instead"
    return definition


def _no_before_row() -> None:
    from agentstate.sdk.store import Begun, Turn, TurnReply
    from runs.engine import starting
    from runs.engine.store import LocalStore

    waiting: dict[int, Any] = {}

    def turn(self: Any, claim: Any, wanted: Any) -> Any:
        for finish in wanted.finish:
            if finish.seq in waiting:
                recorded(self, claim, Turn(start=[waiting.pop(finish.seq)]))
        effects = [start for start in wanted.start if start.effect in starting.EFFECTS and not start.question]
        session = self._session(claim)
        if not effects or effects[0].identity in session.steps:
            return recorded(self, claim, wanted)
        rest = tuple(start for start in wanted.start if start not in effects)
        reply = recorded(self, claim, replace(wanted, start=rest))
        seq = session.step_seq + 1
        waiting[seq] = effects[0]
        key = starting.effect_key(session, effects[0], payload=effects[0].payload)
        return TurnReply([*reply.begun, Begun("execute", seq, key=key, call_for_s=0.3)], reply.control, reply.status)

    recorded = _put(LocalStore, "turn", turn)


def _key_rederived() -> None:
    from runs.engine import starting

    again = starting._ACTS["again"]

    def act(*args: Any) -> Any:
        begun = again(*args)
        return replace(begun, key=sha256(f"{begun.key} {begun.attempt}".encode()).hexdigest())

    vars(starting)["_ACTS"]["again"] = act


def _early_takeover() -> None:
    """The look of the engine; that of the plain claim is in SQL."""
    from runs.engine import leases

    _put(leases, "_holder_is_gone", lambda run: True)


def _probe_believed_at_once() -> None:
    from datetime import timedelta

    from runs.services import waiting_times

    _put(waiting_times, "probe_settles_at", lambda step, dead_at: step.started_at - timedelta(days=1))


def _retry_on_timeout() -> None:
    from agentstate.sdk import calls
    from agentstate.sdk.store import Failure

    def hopeful(error: BaseException, *, has_effect: bool) -> Any:
        outcome, failure = classify(error, has_effect=has_effect)
        if outcome == "unknown":
            return "not_sent", Failure("NotSent", failure.message, retryable=True)
        return outcome, failure

    classify = _put(calls, "classify", hopeful)


def _ack_lost() -> None:
    from runs.services import sweep

    _put(sweep, "look", lambda agents=None, *, limit=0: 0)


def _settle_without_right() -> None:
    from datetime import timedelta

    from agentstate.tenants import actors
    from runs.services import waiting_times

    _put(actors, "require", lambda actor, verb: None)
    _put(waiting_times, "did_not_happen_opens_at", lambda step, dead_at: step.started_at - timedelta(days=1))


def _trim_before_flush() -> None:
    from runs import scratchpad

    script = scratchpad._APPEND.replace("first <= flushed and ", "")
    assert script != scratchpad._APPEND
    _put(scratchpad, "_APPEND", script)


def _deferred_finish_lost() -> None:
    from agentstate.sdk.deferred import Deferred

    def add_finish(self: Any, finish: Any, *, view: Any = None, change: Any = None) -> None:
        with self._lock:
            if view is not None and change:
                view.commit(change)

    _put(Deferred, "add_finish", add_finish)


def _memory_unkeyed() -> None:
    from memory.services import receipts
    from memory.sources import Source
    from runs.engine import remembering

    _put(receipts, "once", lambda key, asked, act, *, by="": act())
    _put(remembering, "Source", lambda **fields: Source(**{**fields, "key": None}))


_SQL: dict[tuple[str, str], Callable[[str], str]] = {
    ("no_fence", "runs_turn"): _without_fence(fences=3, leases=2),
    ("no_fence", "runs_turn_plain"): _without_fence(fences=2, leases=1),
    ("early_takeover", "runs_claim"): _claim_of_the_living,
}
_PATCHES: dict[str, Patch] = {
    "no_fence": _no_fence,
    "no_before_row": _no_before_row,
    "key_rederived": _key_rederived,
    "early_takeover": _early_takeover,
    "probe_believed_at_once": _probe_believed_at_once,
    "retry_on_timeout": _retry_on_timeout,
    "ack_lost": _ack_lost,
    "settle_without_right": _settle_without_right,
    "trim_before_flush": _trim_before_flush,
    "deferred_finish_lost": _deferred_finish_lost,
    "memory_unkeyed": _memory_unkeyed,
}
