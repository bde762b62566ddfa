"""What people do with the runs of a MemoryStore: decide, settle, pause, cancel, stop, resume; and a clock to move."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, Literal

from agentstate.core import ids
from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.sdk.in_memory_run import Run, settled
from agentstate.sdk.judgement import Approval, Row
from agentstate.sdk.store import Control, Question, RunInfo

Verdict = Literal["approve", "edit", "reject", "respond", "withdraw"]
_LIVE = ("queued", "running", "waiting", "paused", "in_doubt")


class Desk:
    """The half of MemoryStore that tests talk to instead of a person."""

    runs: dict[str, Run]
    stopped: set[str]
    _changed: threading.Condition
    _offset_s: float

    def now(self) -> float:
        raise NotImplementedError

    def advance(self, seconds: float) -> None:
        """Move the store's clock on: leases end, timers come due."""
        with self._changed:
            self._offset_s += seconds
            self._changed.notify_all()

    def open_approvals(self, run_id: str = "") -> list[Approval]:
        with self._changed:
            runs = [self._run(run_id)] if run_id else list(self.runs.values())
            return [approval for run in runs for approval in run.approvals if approval.status == "pending"]

    def steps(self, run_id: str) -> list[Row]:
        """All rows of a run, of closed generations too, in the order of starting."""
        return sorted(self._run(run_id).all_rows(), key=lambda row: row.seq)

    def decide(
        self, approval_id: str, verdict: Verdict, *, args: Any = None, message: str = "", actor: str = "somebody"
    ) -> Approval:
        """`args`: the edited arguments of a call (edit), or the answer of a free question (respond).

        Raises: Conflict when it is decided already, Invalid for an edit of a locked argument.
        """
        with self._changed:
            run, approval = self._approval(approval_id)
            self._check_open(approval)
            row = next((row for row in run.rows.values() if row.seq == approval.seq), None)
            approval.actor, approval.message = actor, message
            if approval.kind == "budget":
                self._decide_budget(run, approval, verdict)
            elif row is not None:
                self._decide_step(row, approval, verdict, args)
            if not self._is_undecided(run) or run.status == "waiting":
                self._wake(run)
            return approval

    def settle(
        self, run_id: str, identity: str, verdict: Literal["happened", "not_happened"], *, output: Any = None
    ) -> None:
        """A person says how a call in doubt ended. "not_happened" allows one more call with the same key.

        Raises: Conflict when the step is not in doubt, or while its caller could still be about to call.
        """
        with self._changed:
            run = self._run(run_id)
            row = run.rows.get(identity)
            if row is None or row.status != "in_doubt":
                raise Conflict(f"{identity} is {row.status if row else 'not there'}, not in doubt.")
            if verdict == "happened":
                row.status, row.source, row.output, row.outcome = "done", "operator", settled(output), "done"
            else:
                open_at = row.call_by + row.timeout_s
                if self.now() < open_at:
                    raise Conflict("The call could still be on its way.", retry_after_s=open_at - self.now())
                row.may_repeat = True
            self._wake(run)

    def pause(self, run_id: str) -> None:
        self._request(run_id, "pause", rest="paused")

    def cancel(self, run_id: str) -> None:
        self._request(run_id, "cancel", rest="cancelled")

    def resume(self, run_id: str) -> None:
        """A paused run goes on; a failed one begins the step it failed by anew. Raises: Conflict."""
        with self._changed:
            run = self._run(run_id)
            if run.status not in ("paused", "failed"):
                raise Conflict(f"{run_id} is {run.status}; only paused and failed runs are resumed.")
            for row in run.rows.values():
                row.is_taken_back = row.is_taken_back or (row.status == "failed" and row.seq in run.failed_steps)
            run.reason = "resume" if run.status == "failed" else "wake"
            run.status, run.due_at, run.control, run.failure = "queued", None, None, None
            run.idle_claims, run.fingerprint = 0, None
            self._changed.notify_all()

    def stop(self, agent: str) -> None:
        """Emergency stop: no claim and no new step of this agent."""
        with self._changed:
            self.stopped.add(agent)
            for run in self.runs.values():
                if run.agent == agent and run.status == "running":
                    run.control = "stop"

    def lift_stop(self, agent: str) -> None:
        with self._changed:
            self.stopped.discard(agent)
            for run in self.runs.values():
                if run.agent == agent and run.control == "stop":
                    run.control = None
            self._changed.notify_all()

    def expire_lease(self, run_id: str) -> None:
        """As if the worker had been silent for a whole lease."""
        with self._changed:
            self._run(run_id).lease_until = self.now()
            self._changed.notify_all()

    def skip_wait(self, run_id: str) -> bool:
        """Move the clock to when the run is due by itself; False when it waits for a person, or for nothing."""
        with self._changed:
            run = self._run(run_id)
            due_at = run.lease_until if run.status == "running" else run.due_at
            if run.status not in ("queued", "waiting", "running") or due_at is None or run.agent in self.stopped:
                return False
            if run.status == "waiting" and self.open_approvals(run_id):
                return False
            self.advance(max(0.0, due_at - self.now()) + 0.001)
            return True

    # Pieces

    def _run(self, run_id: str) -> Run:
        if run_id not in self.runs:
            raise NotFound(f"There is no run {run_id}.")
        return self.runs[run_id]

    def _approval(self, approval_id: str) -> tuple[Run, Approval]:
        for run in self.runs.values():
            for approval in run.approvals:
                if approval.id == approval_id:
                    return run, approval
        raise NotFound(f"There is no approval {approval_id}.")

    def _check_open(self, approval: Approval) -> None:
        if approval.status == "pending" and approval.expires_at is not None and self.now() >= approval.expires_at:
            approval.status = "expired"
        if approval.status != "pending":
            raise Conflict(
                f"{approval.actor or 'The clock'} was first: {approval.status}.",
                status=approval.status,
                actor=approval.actor,
            )

    def _decide_step(self, row: Row, approval: Approval, verdict: Verdict, args: Any) -> None:
        if verdict in ("reject", "withdraw"):
            approval.status = "rejected" if verdict == "reject" else "withdrawn"
            row.status, row.decision, row.message = "rejected", approval.status, approval.message
        elif approval.kind == "ask":
            approval.status, approval.args = "responded", settled(args if args is not None else approval.message)
            row.status, row.output, row.outcome, row.decision = "done", approval.args, "done", "responded"
        elif verdict == "respond":
            approval.status = "responded"
            row.status, row.decision, row.message = "skipped", "responded", approval.message
        else:
            self._approve(row, approval, args if verdict == "edit" else approval.args, edited=verdict == "edit")

    def _approve(self, row: Row, approval: Approval, args: Any, *, edited: bool) -> None:
        _check_edit(approval.question, args)
        if edited:
            row.edit_version += 1
        approval.status, approval.args = ("edited" if edited else "approved"), settled(args)
        use_within_s = approval.question.use_within_s
        approval.use_by = None if use_within_s is None else self.now() + use_within_s
        row.derive_key()

    def _ask_for_budget(self, run: Run) -> None:
        question = Question("The run has used up its budget. Let it go on?")
        run.approvals.append(Approval(ids.public_id("apr", ids.new_id()), run.id, 0, question, kind="budget"))

    def _decide_budget(self, run: Run, approval: Approval, verdict: Verdict) -> None:
        run.control = None
        if verdict in ("reject", "withdraw"):
            approval.status, run.status = "rejected", "cancelled"
            return
        approval.status, run.budget = "approved", None

    def _is_undecided(self, run: Run) -> bool:
        """Is there anything a person has yet to say?"""
        return any(approval.status == "pending" for approval in run.approvals) or any(
            row.status == "in_doubt" and not row.may_repeat for row in run.rows.values()
        )

    def _wake(self, run: Run) -> None:
        if run.status in ("waiting", "in_doubt"):
            run.status, run.due_at, run.reason = "queued", None, "wake"
        self._changed.notify_all()

    def _withdraw_open(self, run: Run) -> None:
        for approval in run.approvals:
            if approval.status == "pending":
                approval.status = "withdrawn"

    def _request(self, run_id: str, control: Control, *, rest: str) -> None:
        with self._changed:
            run = self._run(run_id)
            if run.status == "running":
                run.control = control
            elif run.status in _LIVE:
                run.status = rest
                if rest == "cancelled":
                    self._withdraw_open(run)
            else:
                raise Conflict(f"{run_id} is {run.status} already.")
            self._changed.notify_all()

    def _known(self, agent: str, external_id: str, idempotency_key: str) -> Run | None:
        for run in self.runs.values():
            if external_id and run.agent == agent and run.external_id == external_id:
                return run
            if idempotency_key and run.admitted_by == idempotency_key:
                return run
        return None

    def _free_session(self, session: str, policy: Literal["reject", "queue", "replace"]) -> None:
        live = [run for run in self.runs.values() if session and run.session == session and run.status in _LIVE]
        if not live or policy == "queue":
            return
        if policy == "reject":
            raise Conflict(f"{live[0].id} is live in this session.", run_id=live[0].id)
        for run in live:
            self._request(run.id, "cancel", rest="cancelled")

    def _info(self, run: Run, *, created: bool = False) -> RunInfo:
        waiting_for = run.detail if run.status in ("waiting", "paused", "in_doubt") else ""
        info = RunInfo(run.id, run.agent, run.status, created, settled(run.output), run.failure, waiting_for)
        return replace(info, external_id=run.external_id)


def _check_edit(question: Question, args: Any) -> None:
    """A person may not change what the tool's author locked, nor leave out or invent arguments."""
    properties = question.schema.get("properties", {})
    if not isinstance(args, dict) or not isinstance(question.args, dict):
        raise Invalid("The arguments of a call are an object.", field="/args")
    for name, schema in properties.items():
        if schema.get("readOnly") and args.get(name) != question.args.get(name):
            raise Invalid(f"{name} is locked: it cannot be edited.", field=f"/args/{name}")
    strange = set(args) ^ set(question.args)
    if strange:
        raise Invalid(f"{min(strange)} is missing, or no argument of this call.", field=f"/args/{min(strange)}")
