"""Upkeep: work that is done in bounded batches, goes on where it was left, and is visible while it does.

A batch and the cursor behind it commit together, so a killed round repeats nothing. Two rounds at once are one: who
comes second does nothing. Where others are asked for part of a batch, it is done apart: no transaction is open
meanwhile, and what another round has got ahead with is not written again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from traceback import extract_tb
from uuid import UUID

import structlog
from django.db import connection, transaction

from agentstate.core.clock import now
from agentstate.core.errors import DomainError
from agentstate.core.failpoints import hit, register
from agentstate.db import locks
from agentstate.tenants.scope import current_tenant, tenant_scope
from memory.models import Upkeep

log = structlog.get_logger(__name__)
register("memory.upkeep.worked", "a batch of upkeep done / its cursor written")
register("memory.upkeep.asked", "what a batch needs from others is here / it is written")
register("memory.upkeep.between", "a batch of upkeep committed / the next one")

BATCHES_MAX = 1_000  # of one call of drive(): the next beat goes on


@dataclass(frozen=True, slots=True)
class Progressed:
    """What one batch came to. `cursor`: where the next one begins; it is empty again after a round that is over."""

    cursor: str
    done: int
    is_over: bool
    failed: str = ""  # class and place of an error; the batch was rolled back, the next call tries it again


@dataclass(frozen=True, slots=True)
class Standing:
    """How far one kind of upkeep has come, for Health."""

    name: str
    state: str  # idle, running, failed
    done: int
    total: int | None
    target: str
    error: str
    started_at: datetime | None
    moved_at: datetime | None
    finished_at: datetime | None


def step(
    name: str, work: Callable[[str], Progressed], *, target: str = "", total: int | None = None
) -> Progressed | None:
    """Do one batch: `work` gets the cursor ("" at the start of a round). None when another round is at it.

    Another `target` than that of the unfinished round begins a new one. An error of `work` rolls its batch back, is
    kept in the row and answered in `failed`: nothing that is done is lost by it. Asserts a tenant scope.
    Locks: the row, for the length of the batch.
    """
    row = _held(name, target=target, total=total)
    return _moved(row, lambda: work(row.cursor)) if row is not None else None


def apart(
    tenant_id: UUID, name: str, ready: Callable[[str], Callable[[], Progressed]], *, target: str = ""
) -> Progressed | None:
    """As step(), for a batch of which others do a part: a model, which may take minutes.

    `ready` gets the cursor while no transaction is open, has that part done, and answers what writes it: that is called
    in the transaction that moves the cursor, and not at all when another round has moved it. The row says running from
    the beginning. Opens its own scopes. Killed between: the next call does the batch again.
    """
    with tenant_scope(tenant_id, durable=True):
        begun = _held(name, target=target)
        if begun is None:
            return None
        begun.state, begun.moved_at = "running", now()
        begun.save()
    try:
        write = ready(begun.cursor)
    except Exception as error:  # as in _worked(): the row tells it
        failed = _failed(name, begun.cursor, error)
        write = lambda: failed  # noqa: E731
    hit("memory.upkeep.asked")
    with tenant_scope(tenant_id, durable=True):
        row = _held(name, target=target)
        if row is None or (row.cursor, row.started_at) != (begun.cursor, begun.started_at):
            return None
        return _moved(row, write)


def _held(name: str, *, target: str, total: int | None = None) -> Upkeep | None:
    """The row, locked, of the unfinished round or of a new one. None when another round holds it."""
    assert connection.in_atomic_block, "a batch and its cursor are one transaction"
    # The named lock comes first: making the row would wait for another who makes it.
    if not locks.try_hold("memory.upkeep", current_tenant(), name):
        return None
    row, _ = Upkeep.objects.select_for_update(no_key=True).get_or_create(name=name)
    if row.state == "idle" or row.target != target:
        row.cursor, row.done, row.total, row.target, row.started_at = "", 0, total, target, now()
    return row


def _moved(row: Upkeep, work: Callable[[], Progressed]) -> Progressed:
    progressed = _worked(row.name, work, row.cursor)
    hit("memory.upkeep.worked")
    row.state = "failed" if progressed.failed else "idle" if progressed.is_over else "running"
    row.error = progressed.failed
    row.moved_at = now()
    row.cursor = "" if progressed.is_over else progressed.cursor  # after a failure it may hold how long to wait
    if not progressed.failed:
        row.done += progressed.done
    if progressed.is_over:
        row.finished_at = row.moved_at
    row.save()
    return progressed


def drive(
    tenant_id: UUID,
    name: str,
    work: Callable[[str], Progressed],
    *,
    target: str = "",
    batches_max: int = BATCHES_MAX,
) -> Progressed | None:
    """Batches, each in a transaction of its own, until the round is over, fails, or had its number of batches.

    `done` of the answer counts all of them. None when another round is at it.
    """
    last: Progressed | None = None
    for _ in range(batches_max):
        with tenant_scope(tenant_id, durable=True):
            progressed = step(name, work, target=target)
        if progressed is None:
            break
        last = replace(progressed, done=progressed.done + (last.done if last is not None else 0))
        if progressed.is_over or progressed.failed:
            break
        hit("memory.upkeep.between")
    return last


def has_reached(name: str, target: str) -> bool:
    """Whether the last round worked toward this target and came to its end: nothing is left for another."""
    return Upkeep.objects.filter(name=name, target=target, state="idle", finished_at__isnull=False).exists()


def standing() -> list[Standing]:
    """Every kind of upkeep that has ever run in this tenant."""
    return [
        Standing(
            row.name,
            row.state,
            row.done,
            row.total,
            row.target,
            row.error,
            row.started_at,
            row.moved_at,
            row.finished_at,
        )
        for row in Upkeep.objects.order_by("name")
    ]


def _worked(name: str, work: Callable[[], Progressed], cursor: str) -> Progressed:
    try:
        with transaction.atomic():
            return work()
    except Exception as error:  # a batch is a boundary: the row tells, the next beat tries again
        return _failed(name, cursor, error)


def _failed(name: str, cursor: str, error: Exception) -> Progressed:
    failed = place_of(error)
    log.warning("memory.upkeep_failed", name=name, failed=failed)
    return Progressed(cursor, 0, False, failed=failed)


def place_of(error: BaseException) -> str:
    """Class and place of an error, never its words: they may be a customer's."""
    frames = extract_tb(error.__traceback__)
    place = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    code = f" ({error.code})" if isinstance(error, DomainError) else ""
    return f"{type(error).__name__}{code}{place}"[:400]
