"""The local store: the RunStore protocol on the service's own database. Celery's workers and the REST API use it."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, Literal, ParamSpec, TypeVar, cast
from uuid import UUID

from django.conf import settings
from django.db import DatabaseError, InterfaceError, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import Q
from redis import RedisError

from agentstate.core import canonical
from agentstate.core.errors import Fenced, LockTimeout, NotFound, Unavailable
from agentstate.core.failpoints import hit, register
from agentstate.core.ids import new_id, parse_id, public_id
from agentstate.db import sql, wake
from agentstate.sdk import driving
from agentstate.sdk.store import (
    AgentSpec,
    Budget,
    Claim,
    Entry,
    Failure,
    Renewal,
    RunInfo,
    StepFinish,
    Turn,
    TurnReply,
    WorkerInfo,
)
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from checkpoints import keys
from runs import scratchpad, sealing
from runs.engine import leases, remembering, renewing, turns
from runs.engine import session as sessions
from runs.engine.presence import Presence
from runs.engine.session import RunSession
from runs.models import LateReply, Run, Step, Worker
from runs.services import admission, clock, registry, timers, workers
from runs.states import RunStatus

register("claim.registered", "the worker's row / the lease")
register("lease.renew", "anything / a longer lease")
register("note.before", "anything / entries shown in Redis")
register("late.before", "the lease lost / the reply kept as evidence")

AnyResult = TypeVar("AnyResult")
Given = ParamSpec("Given")

SESSIONS_MAX = 256  # claims that one process remembers; an older one is loaded again
CANDIDATES = 8


def _off_loop(
    method: Callable[Concatenate[LocalStore, Given], AnyResult],
) -> Callable[Concatenate[LocalStore, Given], AnyResult]:
    """An async main calls us from its event loop too, where Django refuses to work: go to another thread and wait."""

    @wraps(method)
    def around(self: LocalStore, *args: Given.args, **given: Given.kwargs) -> AnyResult:
        if self._connection is None or not driving.in_loop():
            return method(self, *args, **given)
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(method, self, *args, **given).result()

    return cast("Callable[Concatenate[LocalStore, Given], AnyResult]", around)


class LocalStore:
    """Acts for one actor in one tenant.

    `presence`: heartbeats go over this connection. `worker`: the row of this process, which claims. `shared`: the
    agent's own threads call us too, so all of them use the Django connection of the thread that made this store, one
    after the other.
    """

    def __init__(
        self,
        actor: Actor,
        *,
        kind: Literal["hosted", "http"] = "hosted",
        lease_s: float | None = None,
        presence: Presence | None = None,
        worker: Worker | None = None,
        shared: bool = False,
    ) -> None:
        assert actor.tenant_id is not None
        self.actor = actor
        self.tenant_id: UUID = actor.tenant_id
        self.kind = kind
        self.lease_s = lease_s or settings.LEASE_S
        self._presence = presence
        self._worker = worker
        self._workers: OrderedDict[tuple[WorkerInfo, tuple[str, ...]], tuple[Worker, float]] = OrderedDict()
        self._sessions: OrderedDict[tuple[str, int], RunSession] = OrderedDict()  # by public id and fence
        self._lock = threading.RLock()
        self._remembering = threading.Lock()  # the web process serves several claims at once
        self._home = threading.get_ident()
        self.on_turn: Callable[[], None] = lambda: None  # before each turn; a host gives its runs back there
        self._connection = connections["default"] if shared else None
        if self._connection is not None:
            self._connection.inc_thread_sharing()

    @_off_loop
    def register(self, agent: AgentSpec) -> None:
        with self._database(), tenant_scope(self.tenant_id):
            registry.register(agent)

    @_off_loop
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
        wanted = admission.Admission(
            agent=agent,
            input=input,
            external_id=external_id,
            session=session,
            session_policy=session_policy,
            tags=tags,
            budget=budget,
            context_budget_tokens=context_budget_tokens,
            idempotency_key=idempotency_key,
            trace_id=trace_id,
        )
        with self._database():
            run, created = admission.admit(wanted, actor=self.actor)
        return RunInfo(
            run_id=public_id("run", run.id),
            agent=run.agent,
            status=run.status,
            created=created,
            waiting_for=run.waiting_for,
            external_id=run.external_id or "",
        )

    @_off_loop
    def get(self, run_id: str) -> RunInfo:
        with self._database(), tenant_scope(self.tenant_id):
            run = Run.objects.filter(id=parse_id("run", run_id)).first()
            if run is None:
                raise NotFound("There is no such run.")
            key = keys.existing(run.id)
            output = sealing.open_run(key, run.tenant_id, run.id, "output", run.output)
            error = sealing.open_run(key, run.tenant_id, run.id, "error", run.error)
        return RunInfo(
            run_id=run_id,
            agent=run.agent,
            status=run.status,
            output=output,
            failure=None if error is None else Failure(**error),
            waiting_for=run.waiting_for,
            external_id=run.external_id or "",
        )

    @_off_loop
    def claim(
        self, worker: WorkerInfo, *, agents: Mapping[str, AgentSpec], run_id: str = "", wait_s: float = 0.0
    ) -> Claim | None:
        until = time.monotonic() + wait_s
        while True:
            try:
                found = self._claimed(worker, agents, run_id)
            except Unavailable:  # the server dropped our connection since the last use
                found = self._claimed(worker, agents, run_id)
            left = until - time.monotonic()
            if found is not None or left <= 0:
                return found
            self._wait(min(left, 1.0))

    @_off_loop
    def renew(self, claim: Claim) -> Renewal:
        run_id = parse_id("run", claim.run_id)
        hit("lease.renew")
        if self._presence is not None:
            return self._presence.renew(self.tenant_id, run_id, fence=claim.fence, lease_s=self.lease_s)
        with self._database():
            return renewing.renew(self.tenant_id, run_id, fence=claim.fence, lease_s=self.lease_s)

    @_off_loop
    def turn(self, claim: Claim, turn: Turn) -> TurnReply:
        self.on_turn()
        try:
            return self._turn(claim, turn)
        except Unavailable:  # the server dropped our connection since the last use; a turn may be sent twice
            return self._turn(claim, turn)

    def _turn(self, claim: Claim, turn: Turn) -> TurnReply:
        with self._database():
            try:
                return turns.apply(self._session(claim), turn)
            except turns.StaleSession:  # another process served this claim, or a transaction failed half way
                self._forget(claim)
                return turns.apply(self._session(claim), turn)

    @_off_loop
    def note(self, claim: Claim, entries: Sequence[Entry]) -> None:
        hit("note.before")
        with self._database():
            scratchpad.append(self._session(claim), entries)

    @_off_loop
    def memory(self, claim: Claim, act: str, body: Any, *, step_seq: int, key: str) -> Any:
        run_id = parse_id("run", claim.run_id)
        with self._database():
            return remembering.act(self.tenant_id, run_id, act, body, fence=claim.fence, step_seq=step_seq, key=key)

    @_off_loop
    def late(self, claim: Claim, finish: StepFinish) -> None:
        run_id = parse_id("run", claim.run_id)
        hit("late.before")
        with self._database(), tenant_scope(self.tenant_id):
            step = Step.objects.filter(run_id=run_id, seq=finish.seq).first()
            if step is None or finish.outcome not in ("done", "failed", "refused", "unknown", "not_sent"):
                raise NotFound("There is no such step.")
            body = {
                "outcome": finish.outcome,
                "output": finish.output,
                "error": finish.failure and {"type": finish.failure.type, "message": finish.failure.message},
            }
            late = LateReply(
                id=new_id(),
                run_id=run_id,
                seq=finish.seq,
                fence=claim.fence,
                outcome=finish.outcome,
                after_settled=step.authorised > 0 and finish.outcome in ("done", "unknown"),
                received_at=clock.database_now(),
            )
            key = keys.several([run_id]).get(run_id)  # erased: that it came is kept, and not one word of it
            late.body = sealing.seal_late(key, self.tenant_id, late.id, canonical.dumps(body)) if key else b""
            late.save(force_insert=True)
        wake.publish(wake.live_channel(self.tenant_id, run_id), "")

    def session_of(self, run_id: str, fence: int) -> RunSession:
        """The open claim as the engine sees it. Raises: NotFound, Fenced."""
        with self._database():
            return self._session(Claim(run_id=run_id, agent="", fence=fence, lease_s=self.lease_s))

    def _claimed(self, info: WorkerInfo, agents: Mapping[str, AgentSpec], run_id: str) -> Claim | None:
        with self._database():
            return self._claim_once(info, agents, run_id)

    def _claim_once(self, info: WorkerInfo, agents: Mapping[str, AgentSpec], run_id: str) -> Claim | None:
        names = sorted(agents)
        worker = self._worker or self._worker_of(info, names)
        candidates = [parse_id("run", run_id)] if run_id else self._candidates(names)
        hit("claim.registered")
        for candidate in candidates:
            found = leases.claim(
                candidate,
                tenant_id=self.tenant_id,
                worker=worker,
                agents=agents,
                lease_s=self.lease_s,
                actor=self.actor,
            )
            if found is not None:
                claim, session = found
                self._remember(session)
                return claim
        return None

    def _worker_of(self, info: WorkerInfo, agents: list[str]) -> Worker:
        """The row of a worker that calls us; asked for once in a while, since it may poll many times a second."""
        asked = info, tuple(agents)
        with self._remembering:
            found = self._workers.get(asked)
        if found is not None and time.monotonic() < found[1]:
            return found[0]
        tenant = None if self.kind == "hosted" else self.tenant_id
        with tenant_scope(self.tenant_id):
            worker = workers.register(info, kind=self.kind, agents=agents, for_tenant=tenant)
        with self._remembering:
            self._workers[asked] = worker, time.monotonic() + workers.SEEN_EVERY_S
            self._workers.move_to_end(asked)
            while len(self._workers) > SESSIONS_MAX:
                self._workers.popitem(last=False)
        return worker

    def _candidates(self, agents: list[str]) -> list[UUID]:
        """The oldest due runs of these agents; timers that are over become due first."""
        with tenant_scope(self.tenant_id):
            now = clock.database_now()
            ours = Run.objects.filter(agent__in=agents)
            for due in ours.filter(status=RunStatus.WAITING, due_at__lte=now).values_list("id", flat=True)[:CANDIDATES]:
                timers.fire(due, actor=self.actor)
            queued = Q(status=RunStatus.QUEUED, held=False, due_at__lte=clock.database_now())
            lost = Q(status=RunStatus.RUNNING) & (Q(lease_until__lte=now) | Q(worker__dead_at__isnull=False))
            return list(ours.filter(queued | lost).order_by("due_at", "id").values_list("id", flat=True)[:CANDIDATES])

    def _wait(self, left_s: float) -> None:
        """Until somebody wakes this tenant, or the time is over."""
        try:
            with wake.redis().pubsub(ignore_subscribe_messages=True) as channel:
                channel.subscribe(f"as:{self.tenant_id}:wake")
                channel.get_message(timeout=left_s)
        except (RedisError, OSError):
            time.sleep(min(left_s, 0.2))

    def _session(self, claim: Claim) -> RunSession:
        asked = claim.run_id, claim.fence
        with self._remembering:
            known = self._sessions.get(asked)
            if known is not None:
                self._sessions.move_to_end(asked)
                return known
        run_id = parse_id("run", claim.run_id)
        with tenant_scope(self.tenant_id):
            run = Run.objects.filter(id=run_id).first()
            if run is None:
                raise NotFound("There is no such run.")
            if run.fence != claim.fence or run.status != RunStatus.RUNNING:
                raise Fenced(
                    f"Run {claim.run_id} is {run.status} under fence {run.fence}; fence {claim.fence} is over."
                )
            session, _ = sessions.load(run, fence=run.fence, lease_s=self.lease_s)
        self._remember(session)
        return session

    def _remember(self, session: RunSession) -> None:
        with self._remembering:
            self._sessions[public_id("run", session.run_id), session.fence] = session
            while len(self._sessions) > SESSIONS_MAX:
                self._sessions.popitem(last=False)

    def _forget(self, claim: Claim) -> None:
        with self._remembering:
            self._sessions.pop((claim.run_id, claim.fence), None)

    @contextmanager
    def _database(self) -> Iterator[None]:
        """Our connection for this thread. Raises: Unavailable when the server is gone; the next use connects anew."""
        shared = self._connection
        borrowed = shared is not None and self._borrow(shared)
        try:
            yield
        except (DatabaseError, InterfaceError) as error:
            if sql.is_held(error):
                raise LockTimeout(retry_after_s=1) from error
            if not sql.is_lost(error):
                raise
            connections["default"].close_if_unusable_or_obsolete()
            raise Unavailable("The database does not answer; nothing is known of this request.") from error
        finally:
            if borrowed:
                del connections["default"]
            if shared is not None:
                self._lock.release()

    def _borrow(self, shared: BaseDatabaseWrapper) -> bool:
        """Wait until no other thread uses the shared connection; whether it took the place of this thread's own."""
        self._lock.acquire()
        if threading.get_ident() == self._home:
            return False
        connections["default"] = shared
        return True
