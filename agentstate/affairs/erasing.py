"""Erasing a subject across the tiers: what it would reach, the act in small transactions, and the receipt.

The first commit destroys the subject's keys, so nothing about it is written, recalled or opened from then on. What
follows (runs stopped, their keys destroyed, rows deleted, everything searched) may be killed anywhere: the erasure's
row says where to go on, every step may be done twice, and a task goes on with whatever was left.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import transaction

from agentstate.affairs import receipts, residue
from agentstate.affairs.models import Erasure
from agentstate.affairs.states import ERASURE_OPEN, ERASURE_TRANSITIONS, ErasureStatus
from agentstate.audit import trail
from agentstate.core import canonical
from agentstate.core.clock import now
from agentstate.core.errors import Conflict, DomainError, Invalid, NotFound
from agentstate.core.failpoints import hit, register
from agentstate.core.ids import public_id
from agentstate.core.limits import ERASE_GRACE_S, ERASED_ROWS, ERASED_RUNS, REASON_CHARS_MAX
from agentstate.db import locks, sql
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory.selectors import directory
from memory.selectors import erasure as memory_reads
from memory.services import erasing as memory_erasing
from runs.engine import overtaking
from runs.services import erasing as run_erasing
from runs.services.erasing import Concerned

log = structlog.get_logger(__name__)
register("erase.begun", "the subject's keys are destroyed / its runs are asked to stop")
register("erase.stopped", "a batch of runs was asked to stop / the next look at them")
register("erase.runs", "keys of a batch of runs are destroyed / the next batch")
register("erase.rows", "a batch of rows is deleted / the next batch")
register("erase.sessions", "a batch of sessions is deleted / the next batch")
register("erase.verified", "the receipt is written / the answer")

WAIT_S = 10.0  # of the call that asks for it; what is left then is done by the task
LOOK_S = 0.25  # between two looks at runs that are being stopped
RUNS, ROWS, SESSIONS, SUBJECT = "runs", "rows", "sessions", "subject"
WHY_STOPPED = "its subject is being erased"
WHY_ENDED = "its subject is being erased, and its worker did not come back in time"
# What is kept, and why. Said before the act and on the receipt.
STAYS = {
    "audit": residue.STAYS["audit_entry"],
    "receipt": residue.STAYS["affairs_erasure"],
    "keys": residue.STAYS["memory_ownerkey"],
    "runs": "that they ran: times, statuses, names of agents, tools and steps, external ids, counts, HMACs and sealed "
    "bytes that nobody can open; the session's name and tags are emptied",
    "others": "memories of other subjects, byte for byte, with the ids of sessions in which they were used",
    "backups": "what older backups and the write-ahead log hold, until they run out: replay erasures after a restore",
}


@dataclass(frozen=True, slots=True)
class ErasePlan:
    """What an erasure would do; nothing of it was done."""

    subject_id: UUID
    name: str  # what has to be typed to confirm, or the external id, or the public id
    external_id: str
    counts: dict[str, int]  # rows by table
    runs: list[Concerned]
    shared_ids: frozenset[UUID]  # runs that were given words of other subjects, too: unreadable for those as well
    stays: dict[str, str] = field(default_factory=lambda: dict(STAYS))

    @property
    def live(self) -> list[Concerned]:
        return [run for run in self.runs if run.is_live]

    @property
    def public_id(self) -> str:
        return public_id("subject", self.subject_id)

    def is_confirmed(self, typed: str) -> bool:
        return typed.strip() in {self.name.strip(), self.external_id, self.public_id} - {""}


def plan(subject_id: UUID) -> ErasePlan:
    """Reads only; inside the tenant's scope. Raises: NotFound."""
    row, _ = directory.get(subject_id)
    runs = _concerned(subject_id, [])
    return ErasePlan(
        subject_id=subject_id,
        name=row.name,
        external_id=row.external_id or "",
        counts=memory_reads.counts(subject_id),
        runs=runs,
        shared_ids=frozenset(memory_reads.shared(subject_id, [run.run_id for run in runs])),
    )


def erase(subject_id: UUID, *, actor: Actor, reason: str, confirm: str, wait_s: float = WAIT_S) -> Erasure:
    """Erase a subject; what is not done within wait_s goes on by itself. `confirm`: its name, or one of its ids.

    Raises: Forbidden, Invalid (reason, confirm), NotFound, Conflict when an earlier one failed. Idempotent: asked
    again, it goes on with the one that was begun. Opens its own transactions.
    """
    actors.require(actor, "memory.erase")
    canonical.check(reason, where="/reason")
    if not reason.strip() or len(reason) > REASON_CHARS_MAX:
        raise Invalid(f"Say why, in at most {REASON_CHARS_MAX:,} characters: it is kept in the audit.", field="reason")
    tenant_id = actors.tenant_of(actor)
    with tenant_scope(tenant_id, durable=True):
        locks.hold("affairs.erase", subject_id)
        erasure = Erasure.objects.filter(subject_id=subject_id).first()
        if erasure is None:
            if not plan_name(subject_id).is_confirmed(confirm):
                raise Invalid("Type the name of the subject as it stands on the page, to confirm.", field="confirm")
            erasure = _begin(subject_id, actor=actor, reason=reason)
        elif erasure.status == ErasureStatus.FAILED:
            _move(erasure, ErasureStatus.ERASING, actor=actor, reason=reason, cursor=RUNS, problem="")
    hit("erase.begun")
    return go_on(tenant_id, erasure.id, for_s=wait_s)


def go_on(tenant_id: UUID, erasure_id: UUID, *, for_s: float) -> Erasure:
    """Work on an erasure for about so long; where it stands then. Any number may at once: one does the work.

    Raises: NotFound.
    """
    until = time.monotonic() + for_s
    while True:
        with tenant_scope(tenant_id, durable=True):
            erasure, waits, passed = _worked(erasure_id)
        if erasure.status not in ERASURE_OPEN:
            if passed:
                hit(passed)
            return erasure
        if passed:
            hit(passed)
        left_s = until - time.monotonic()
        if left_s <= 0:
            return erasure
        if waits:
            time.sleep(min(LOOK_S, left_s))


def go_on_with_all(*, for_s: float, rows_max: int = 100) -> int:
    """Every erasure that is open, of all tenants; how many. One that cannot go on does not keep the others."""
    found = sql.rows("SELECT * FROM affairs_erasures_open(%s)", [rows_max])
    until = time.monotonic() + for_s
    for tenant_id, erasure_id in found:
        try:
            go_on(tenant_id, erasure_id, for_s=max(0.0, until - time.monotonic()) / len(found))
        except DomainError as error:
            log.error("erasure.stuck", tenant=str(tenant_id), erasure=str(erasure_id), error=error.code)
    return len(found)


def find(subject_id: UUID) -> Erasure:
    """The erasure of this subject. Raises: NotFound."""
    found = Erasure.objects.filter(subject_id=subject_id).first()
    if found is None:
        raise NotFound("This subject was not erased.")
    return found


def document(erasure: Erasure) -> dict[str, Any]:
    """The receipt as a file. Raises: Conflict while there is none."""
    if erasure.receipt is None or erasure.signature is None:
        raise Conflict(
            f"This erasure is {erasure.status}: the receipt comes when everything is searched.", status=erasure.status
        )
    return receipts.document(erasure.tenant_id, erasure.receipt, bytes(erasure.signature))


def plan_name(subject_id: UUID) -> ErasePlan:
    """As plan(), without looking at what it holds."""
    row, _ = directory.get(subject_id)
    return ErasePlan(subject_id, row.name, row.external_id or "", {}, [], frozenset())


def _begin(subject_id: UUID, *, actor: Actor, reason: str) -> Erasure:
    """The row, and in the same transaction the end of everything that its keys have sealed."""
    at = now()
    erasure = Erasure(
        subject_id=subject_id,
        requested_by_kind=actor.kind,
        requested_by_id=actor.id,
        requested_by_name=actor.name,
        started_at=at,
        moved_at=at,
    )
    erasure.save(force_insert=True)
    trail.record(erasure, action="erasure.asked", actor=actor, reason=reason, detail={"subject": str(subject_id)})
    begun = memory_erasing.begin(subject_id, actor=actor, detail={"erasure": str(erasure.id)})
    erasure.external_id_hmac, erasure.keys_destroyed = begun.external_id_hmac, begun.keys_destroyed
    erasure.save(update_fields=["external_id_hmac", "keys_destroyed"])
    return _move(erasure, ErasureStatus.STOPPING, actor=actor)


def _worked(erasure_id: UUID) -> tuple[Erasure, bool, str]:
    """One small piece of work under the erasure's lock: where it stands, whether to wait, the failpoint passed."""
    held = Erasure.objects.select_for_update(no_key=True, skip_locked=True).filter(id=erasure_id).first()
    if held is None:
        erasure = Erasure.objects.filter(id=erasure_id).first()
        if erasure is None:
            raise NotFound("There is no such erasure.")
        return erasure, True, ""  # somebody else is at it
    if held.status == ErasureStatus.STOPPING:
        return _stop(held)
    if held.status == ErasureStatus.ERASING:
        return held, False, _STAGES[held.cursor.partition(":")[0] or RUNS](held)
    return held, False, ""


def _stop(erasure: Erasure) -> tuple[Erasure, bool, str]:
    actor = _actor(erasure)
    runs = _concerned(erasure.subject_id, erasure.run_ids)
    live = [run for run in runs if run.is_live]
    asked = [run for run in live if run.control == "cancel"]
    erasure.run_ids = [run.run_id for run in runs]
    erasure.stopped_ids = sorted({*erasure.stopped_ids, *(run.run_id for run in live)})
    erasure.shared_ids = memory_reads.shared(erasure.subject_id, erasure.run_ids)
    erasure.waits = {run.public_id: erasure.waits.get(run.public_id, _patience()) for run in asked}
    _keep(erasure, "run_ids", "stopped_ids", "shared_ids", "waits")
    if not live:
        _move(erasure, ErasureStatus.ERASING, actor=actor, cursor=RUNS)
        return erasure, False, "erase.stopped"
    unasked = [run.run_id for run in live if run.control != "cancel"][:ERASED_RUNS]
    run_erasing.stop(unasked, actor=actor, reason=WHY_STOPPED)
    ended = [_overtaken(erasure, run, actor=actor) for run in asked[:ERASED_RUNS]]
    return erasure, not unasked and not any(ended), "erase.stopped"


def _patience() -> str:
    """Until when a worker that was asked just now may finish its call and say so."""
    return (now() + timedelta(seconds=settings.LEASE_S + ERASE_GRACE_S)).isoformat()


def _overtaken(erasure: Erasure, run: Concerned, *, actor: Actor) -> bool:
    """A worker that is gone, or does not end in time, does not keep an erasure from its end."""
    is_late = datetime.fromisoformat(erasure.waits[run.public_id]) <= now()
    return overtaking.end(run.run_id, actor=actor, reason=WHY_ENDED, at_once=is_late)


def _runs(erasure: Erasure) -> str:
    place = int(erasure.cursor.partition(":")[2] or 0)
    batch = erasure.run_ids[place : place + ERASED_RUNS]
    if not batch:
        erasure.cursor = ROWS
        _keep(erasure, "cursor")
        return "erase.runs"
    reach = memory_reads.reach(erasure.subject_id)
    erasure.keys_destroyed += run_erasing.destroy(
        batch, session_keys=set(reach.session_keys), actor=_actor(erasure), erasure=str(erasure.id)
    )
    erasure.cursor = f"{RUNS}:{place + len(batch)}"
    _keep(erasure, "cursor", "keys_destroyed")
    return "erase.runs"


def _rows(erasure: Erasure) -> str:
    deleted = memory_erasing.delete_some(erasure.subject_id, actor=_actor(erasure), rows_max=ERASED_ROWS)
    if deleted is None:
        return _check_sessions(erasure)
    _count(erasure, *deleted)
    return "erase.rows"


def _has_new_runs(erasure: Erasure) -> bool:
    """A run of one of its sessions that began since we looked: stopped before anything that names it goes."""
    known = set(erasure.run_ids)
    if all(run.run_id in known for run in _concerned(erasure.subject_id, [])):
        return False
    _move(erasure, ErasureStatus.STOPPING, actor=_actor(erasure), cursor="")
    return True


def _check_sessions(erasure: Erasure) -> str:
    """While the rows of its sessions are still there, nothing else of it may name them."""
    if _has_new_runs(erasure):
        return "erase.rows"
    found = residue.search(
        memory_erasing.session_ids(erasure.subject_id),
        but=[*residue.STAYS, "memory_session"],
        besides=erasure.subject_id,
    )
    if found:
        _fail(erasure, found)
    else:
        erasure.cursor = SESSIONS
        _keep(erasure, "cursor")
    return "erase.rows"


def _sessions(erasure: Erasure) -> str:
    deleted = memory_erasing.delete_sessions(erasure.subject_id, actor=_actor(erasure), rows_max=ERASED_ROWS)
    if deleted:
        _count(erasure, "memory_session", deleted)
    else:
        erasure.cursor = SUBJECT
        _keep(erasure, "cursor")
    return "erase.sessions"


def _subject(erasure: Erasure) -> str:
    """The last row, the search, and the receipt: one transaction, so a receipt says what is so."""
    actor = _actor(erasure)
    left = memory_erasing.delete_some(erasure.subject_id, actor=actor, rows_max=ERASED_ROWS)
    if left is not None:  # of a transaction that began before the erasure
        _count(erasure, *left)
        return "erase.rows"
    with transaction.atomic():
        head = memory_erasing.delete_subject(erasure.subject_id, actor=actor)
        found = residue.search([erasure.subject_id])
        if found:  # its row stays, so that the erasure can go on when the cause is gone
            transaction.set_rollback(True)
    if found:
        _fail(erasure, found)
        return "erase.rows"
    _count(erasure, "memory_subject", 1)
    receipt = _receipt(erasure, head)
    signature = receipts.sign(erasure.tenant_id, receipt)
    _move(
        erasure,
        ErasureStatus.VERIFIED,
        actor=actor,
        receipt=receipt,
        signature=signature,
        finished_at=now(),
        cursor="",
        detail={"rows": sum(erasure.counts.values()), "keys": erasure.keys_destroyed, "signature": signature.hex()},
    )
    log.info("erasure.verified", tenant=str(erasure.tenant_id), erasure=str(erasure.id))
    return "erase.verified"


_STAGES: dict[str, Callable[[Erasure], str]] = {RUNS: _runs, ROWS: _rows, SESSIONS: _sessions, SUBJECT: _subject}


def _receipt(erasure: Erasure, head: str) -> dict[str, Any]:
    """Ids, counts and hashes only: it may be handed to whoever was erased."""
    tenant = Tenant.objects.get(id=erasure.tenant_id)
    return {
        "format": receipts.FORMAT,
        "version": receipts.VERSION,
        "erasure": public_id("erasure", erasure.id),
        "tenant_id": str(tenant.id),
        "tenant": tenant.slug,
        "subject": public_id("subject", erasure.subject_id),
        "external_id_hmac": erasure.external_id_hmac,
        "requested_by": {"kind": erasure.requested_by_kind, "name": erasure.requested_by_name},
        "started_at": erasure.started_at.isoformat(),
        "finished_at": now().isoformat(),
        "rows_deleted": dict(sorted(erasure.counts.items())),
        "keys_destroyed": erasure.keys_destroyed,
        "runs_unreadable": [public_id("run", run_id) for run_id in erasure.run_ids],
        "runs_stopped": [public_id("run", run_id) for run_id in erasure.stopped_ids],
        "runs_shared": [public_id("run", run_id) for run_id in erasure.shared_ids],
        "searched": {"tables": sorted(set(residue.tables()) - set(residue.STAYS)), "found": 0},
        "stays": STAYS,
        "stays_rows": dict(sorted(residue.staying(erasure.subject_id).items())),
        "audit_head": head,
        "erasure_audit": {"seq": erasure.audit_seq, "head": bytes(erasure.audit_head).hex()},
    }


def _concerned(subject_id: UUID, known: list[UUID]) -> list[Concerned]:
    reach = memory_reads.reach(subject_id)
    return run_erasing.concerned(run_ids={*reach.run_ids, *known}, session_keys=reach.session_keys)


def _count(erasure: Erasure, table: str, rows: int) -> None:
    erasure.counts = {**erasure.counts, table: erasure.counts.get(table, 0) + rows}
    _keep(erasure, "counts")


def _keep(erasure: Erasure, *fields: str) -> None:
    erasure.moved_at = now()
    erasure.save(update_fields=[*fields, "moved_at"])


def _fail(erasure: Erasure, found: dict[str, int]) -> None:
    """Something is left that nobody expected: said, and never papered over by a receipt."""
    problem = ", ".join(f"{place}: {count}" for place, count in sorted(found.items()))[:400]
    _move(erasure, ErasureStatus.FAILED, actor=_actor(erasure), problem=problem)
    log.error("erasure.failed", tenant=str(erasure.tenant_id), erasure=str(erasure.id), places=sorted(found))


def _move(
    erasure: Erasure,
    to: ErasureStatus,
    *,
    actor: Actor,
    reason: str = "",
    detail: dict[str, Any] | None = None,
    **fields: Any,
) -> Erasure:
    assert to in ERASURE_TRANSITIONS[erasure.status], f"an erasure does not go from {erasure.status} to {to}"
    return trail.transition(
        erasure,
        to=to,
        actor=actor,
        reason=reason,
        action=f"erasure.{to}",
        set={"moved_at": now(), **fields},
        detail=detail,
    )


def _actor(erasure: Erasure) -> Actor:
    """Who asked for it: what follows is done in that name, whoever does it."""
    return Actor(
        kind=erasure.requested_by_kind,  # type: ignore[arg-type]
        id=erasure.requested_by_id,
        name=erasure.requested_by_name,
        tenant_id=erasure.tenant_id,
    )
