"""MemoryStore: the whole service in one object, for authors' tests. Judges like the server, keeps nothing.

Every value passes through canonical JSON, as on the way to a server, so that nothing is shared with the agent.
"""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from agentstate.core import canonical, ids
from agentstate.core.errors import Fenced, Invalid, NotFound
from agentstate.core.limits import CLAIMS_WITHOUT_PROGRESS_MAX, CONTEXT_BUDGET_TOKENS, GENERATION_STEPS_MAX
from agentstate.sdk import judgement, memory_acts, window
from agentstate.sdk.desk import Desk
from agentstate.sdk.in_memory_run import Run, atomic, checked_state, record_of, settled
from agentstate.sdk.in_memory_tier import Asker, Tier
from agentstate.sdk.judgement import Approval, Moment, Row
from agentstate.sdk.lease import TRUSTED_PART
from agentstate.sdk.store import (
    UNCHANGED,
    AgentSpec,
    Begun,
    Budget,
    Claim,
    Continue,
    End,
    Entry,
    Park,
    Renewal,
    RunInfo,
    StepFinish,
    StepStart,
    Turn,
    TurnReply,
    WorkerInfo,
)

LIVE = ("queued", "running", "waiting", "paused", "in_doubt")
_PARKED = {"in_doubt": "in_doubt", "pause": "paused", "code": "paused", "shutdown": "queued", "stop": "queued"}


class MemoryStore(Desk):
    """A RunStore in this process. `clock` gives seconds; `advance` moves it. Thread-safe; not shared by processes."""

    def __init__(
        self, *, lease_s: float = 30.0, clock: Callable[[], float] = time.monotonic, tenant: str = "memory"
    ) -> None:
        self.lease_s = lease_s
        self.tenant = tenant
        self.agents: dict[str, AgentSpec] = {}
        self.runs: dict[str, Run] = {}
        self.turns = 0  # answered
        self.stopped: set[str] = set()  # agents under an emergency stop
        self._clock = clock
        self._offset_s = 0.0
        self._changed = threading.Condition(threading.RLock())
        self.tier = Tier()  # what outlives a run

    def now(self) -> float:
        return self._clock() + self._offset_s

    # RunStore

    def register(self, agent: AgentSpec) -> None:
        with self._changed:
            self.agents[agent.name] = agent

    def admit(
        self,
        agent: str,
        input: Any,
        *,
        external_id: str = "",
        session: str = "",
        session_policy: Literal["reject", "queue", "replace"] = "reject",
        tags: Sequence[str] = (),
        budget: Budget | None = None,
        context_budget_tokens: int | None = None,
        idempotency_key: str = "",
        trace_id: str = "",
    ) -> RunInfo:
        canonical.check(input, where="/input")
        window.check_budget(context_budget_tokens)
        with self._changed:
            if agent not in self.agents:
                raise NotFound(f"No agent is called {agent!r}. Start its worker once, or register it.")
            known = self._known(agent, external_id, idempotency_key)
            if known is not None:
                return self._info(known)
            self._free_session(session, session_policy)
            run = Run(ids.public_id("run", ids.new_id()), agent, settled(input), external_id, session)
            run.tags, run.budget, run.created_at = tuple(tags), budget, self.now()
            run.trace_id = trace_id or ids.new_id().hex
            run.context_budget_tokens = context_budget_tokens
            self.runs[run.id] = run
            run.admitted_by = idempotency_key
            self._changed.notify_all()
            return self._info(run, created=True)

    def get(self, run_id: str) -> RunInfo:
        with self._changed:
            return self._info(self._run(run_id))

    def claim(
        self, worker: WorkerInfo, *, agents: Mapping[str, AgentSpec], run_id: str = "", wait_s: float = 0.0
    ) -> Claim | None:
        ends_at = time.monotonic() + wait_s
        with self._changed:
            while True:
                for run in self._claimable(agents, run_id):
                    claim = self._take(run, agents[run.agent])
                    if claim is not None:
                        return claim
                left_s = ends_at - time.monotonic()
                if left_s <= 0:
                    return None
                self._changed.wait(min(left_s, 0.05))  # timers come due without anybody telling

    def renew(self, claim: Claim) -> Renewal:
        with self._changed:
            run = self._held(claim)
            run.lease_until = self.now() + self.lease_s
            return Renewal(self.lease_s, run.control)

    def turn(self, claim: Claim, turn: Turn) -> TurnReply:
        with self._changed, atomic(self._run(claim.run_id), turn) as run:
            said = repr(turn).encode()
            if run.last is not None and run.last[:2] == (claim.fence, said):
                return run.last[2]
            self._held(claim)
            reply = self._apply(run, turn, Moment(self.now(), claim.fence, self.lease_s * TRUSTED_PART))
            # Only a turn that ends something cannot be judged again; every other one gives the same answer by itself.
            run.last = (claim.fence, said, reply) if turn.then is not None else None
            self.turns += 1
            self._changed.notify_all()
            return reply

    def note(self, claim: Claim, entries: Sequence[Entry]) -> None:
        with self._changed:
            self._held(claim).live_entries.extend(entries)

    def memory(self, claim: Claim, act: str, body: Any, *, step_seq: int, key: str) -> Any:
        with self._changed:
            run = self._held(claim)
            row = next((row for row in run.rows.values() if row.seq == step_seq), None)
            found, wanted = memory_acts.read(act, body)
            status = row.status if row else None
            memory_acts.check_step(
                found, status=status, step_key=row.key if row and row.effect == "keyed" else "", key=key
            )
            return self.tier.answer(found, wanted, asker=Asker(run.id, run.session or run.id, run.agent), key=key)

    def late(self, claim: Claim, finish: StepFinish) -> None:
        with self._changed:
            self._run(claim.run_id).late.append(finish)

    # Claims

    def _claimable(self, agents: Mapping[str, AgentSpec], run_id: str) -> list[Run]:
        runs = [self._run(run_id)] if run_id else sorted(self.runs.values(), key=lambda run: run.created_at)
        return [run for run in runs if run.agent in agents and run.agent not in self.stopped and self._is_due(run)]

    def _is_due(self, run: Run) -> bool:
        now = self.now()
        if run.session and any(
            other.session == run.session and other.status in LIVE and other.created_at < run.created_at
            for other in self.runs.values()
        ):
            return False
        if run.status == "running":
            return run.lease_until <= now
        if run.status == "waiting":
            return run.due_at is not None and run.due_at <= now
        return run.status == "queued" and (run.due_at is None or run.due_at <= now)

    def _take(self, run: Run, spec: AgentSpec) -> Claim | None:
        if run.idle_claims >= CLAIMS_WITHOUT_PROGRESS_MAX:
            self._set_aside(run, "poison", f"claimed {run.idle_claims} times without progress")
            return None
        if self._code_changed(run, spec):
            self._set_aside(run, "code", "the agent's code has changed since the run began")
            return None
        if run.status == "running":
            run.reason = "recover"
        run.status, run.fence, run.claims, run.idle_claims = (
            "running",
            run.fence + 1,
            run.claims + 1,
            run.idle_claims + 1,
        )
        run.lease_until, run.due_at, run.last = self.now() + self.lease_s, None, None
        run.fingerprint = dict(spec.fingerprint)
        run.events.append(f"claimed {run.fence} {run.reason}")
        return Claim(
            run.id,
            run.agent,
            run.fence,
            self.lease_s,
            mode=spec.mode,
            input=settled(run.input),
            state=settled(run.state),
            base_state=settled(run.base),
            generation=run.generation,
            history=tuple(record_of(row) for row in run.rows.values() if not row.is_taken_back),
            entries=tuple(run.window),
            entry_next=(run.entries[-1].n if run.entries else 0) + 1,
            noted=dict(run.noted),
            context_budget_tokens=run.context_budget_tokens or spec.context_budget_tokens or CONTEXT_BUDGET_TOKENS,
            trace_id=run.trace_id,
            session=run.session,
            attempt=run.claims,
            reason=run.reason,
            control=run.control,
        )

    def _set_aside(self, run: Run, why: str, detail: str) -> None:
        run.status, run.reason, run.detail, run.due_at = "paused", why, detail, None

    def _code_changed(self, run: Run, spec: AgentSpec) -> bool:
        known = run.fingerprint
        return (
            spec.on_code_change == "pause" and bool(run.rows) and known is not None and known != dict(spec.fingerprint)
        )

    def _held(self, claim: Claim) -> Run:
        run = self._run(claim.run_id)
        if run.fence != claim.fence or run.status != "running" or run.lease_until <= self.now():
            raise Fenced(f"{run.id} is no longer held under fence {claim.fence}.", status=run.status)
        return run

    # Turns

    def _apply(self, run: Run, turn: Turn, moment: Moment) -> TurnReply:
        for end in turn.finish:
            self._finish(run, end, moment)
        self._note(run, turn.entries)
        if turn.state is not UNCHANGED:
            run.state = checked_state(turn.state)
        self._check_budget(run)
        reads = [start for start in turn.start if start.result is not None]
        starts = reads if run.control is not None else turn.start
        begun = tuple(self._begin(run, start, moment) for start in starts)
        if turn.finish or any(answer.action in ("execute", "wait") for answer in begun):
            run.idle_claims = 0
        run.lease_until = moment.now + self.lease_s
        if turn.then is not None:
            self._go_on(run, turn.then)
        return TurnReply(begun, run.control, run.status)

    def _note(self, run: Run, entries: Sequence[Entry]) -> None:
        last = run.entries[-1].n if run.entries else 0
        fresh = [window.counted(entry) for entry in entries if entry.n > last]
        run.entries.extend(fresh)
        run.window = window.folded(run.window, fresh)
        run.noted = window.noted_after(run.noted, fresh)

    def _finish(self, run: Run, end: StepFinish, moment: Moment) -> None:
        row = next((row for row in run.rows.values() if row.seq == end.seq), None)
        if row is None:
            if any(row.seq == end.seq for row in run.closed_rows):
                return
            raise Invalid(f"There is no step {end.seq} in this run.", field="/finish")
        was_done = row.status == "done"
        end = copy.copy(end)
        object.__setattr__(end, "output", settled(end.output))
        judgement.finish(row, end, now=moment.now, fence=moment.fence)
        if end.usage is not None and not was_done:
            run.tokens += end.usage.tokens_in + end.usage.tokens_out
            run.cost += end.usage.cost

    def _begin(self, run: Run, start: StepStart, moment: Moment) -> Begun:
        row = run.rows.get(start.identity)
        if row is not None:
            return judgement.judge(row, start, moment)
        if sum(row.kind != "summary" for row in run.rows.values()) >= GENERATION_STEPS_MAX:
            raise Invalid(f"A generation has at most {GENERATION_STEPS_MAX:,} steps.", field="/start")
        run.seq += 1
        row = self._new_row(run, start, moment)
        run.rows[start.identity] = row
        return judgement.begin(row, moment)

    def _new_row(self, run: Run, start: StepStart, moment: Moment) -> Row:
        payload = settled(start.payload)
        sha = canonical.digest(payload).hex()
        row = Row(
            self.tenant,
            run.id,
            run.generation,
            run.seq,
            start.identity,
            start.name,
            start.kind,
            start.effect,
            payload,
            sha,
        )
        row.window_s, row.has_probe = start.window_s, start.has_probe
        row.settles_within_s = start.settles_within_s or 0.0
        row.timeout_s = row.timeout_s if start.timeout_s is None else start.timeout_s
        if start.result is not None:
            row.status, row.outcome, row.output = "done", "done", settled(start.result.output)
        elif start.kind == "timer":
            row.status, row.due_at = "waiting", moment.now + (start.due_s or 0.0)
        elif start.question is not None:
            row.status, row.approval = "waiting", self._ask(run, row, start.question, moment.now)
        return row

    def _ask(self, run: Run, row: Row, question: Any, now: float) -> Approval:
        approval = Approval(ids.public_id("apr", ids.new_id()), run.id, row.seq, question)
        approval.kind = "tool" if question.tool else "ask"
        approval.args = settled(question.args)
        approval.expires_at = None if question.expires_in_s is None else now + question.expires_in_s
        run.approvals.append(approval)
        return approval

    def _check_budget(self, run: Run) -> None:
        budget = run.budget
        if budget is None or run.control is not None:
            return
        used = (len(run.all_rows()), run.tokens, run.cost, self.now() - run.created_at)
        caps = (budget.steps, budget.tokens, budget.cost, budget.wall_s)
        if any(cap is not None and amount >= cap for amount, cap in zip(used, caps, strict=True)):
            run.control = "budget"

    def _go_on(self, run: Run, then: Park | End | Continue) -> None:
        if isinstance(then, Continue):
            run.base, run.state = settled(then.state), checked_state(then.state)
            run.closed_rows.extend(run.rows.values())
            run.rows = {}
            run.generation += 1
            run.noted = {}
            return
        run.lease_until = 0.0
        if isinstance(then, End):
            run.status, run.output, run.failure = then.outcome, settled(then.output), then.failure
            run.failed_steps = tuple(then.steps)
            self._withdraw_open(run)
        else:
            self._park(run, then)

    def _park(self, run: Run, park: Park) -> None:
        run.status, run.detail = _PARKED.get(park.why, "waiting"), park.detail
        run.reason = "wake" if park.why not in ("pause", "code") else park.why
        run.due_at = None if park.due_s is None else self.now() + park.due_s
        if run.control == "pause" and run.status != "paused":
            run.status = "paused"
        if run.status == "paused":
            run.control = None
        if park.why == "budget":
            self._ask_for_budget(run)
        if park.why in ("approval", "in_doubt") and not self._is_undecided(run):
            self._wake(run)
