"""Celery tasks of memory: each is a round over all tenants, bounded in time; lost, late or doubled it does no harm."""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from celery import shared_task

from agentstate.tenants.scope import tenant_scope
from memory.recall import embedding, rewording
from memory.services import (
    consolidation,
    expiry,
    facts,
    learning,
    messages,
    receipts,
    retention,
    rounds,
    sessions,
    summaries,
    upkeep,
)
from memory.services.upkeep import Progressed

FLUSH_S, ROUND_S, LONG_ROUND_S = 5.0, 10.0, 12.0  # shorter than the beat: a round does not meet the next one


@shared_task(name="memory.flush")
def flush() -> int:
    """Record the messages whose time in the buffer is over."""
    return messages.flush_due(rounds.tenant_ids(), until_s=time.monotonic() + FLUSH_S)


@shared_task(name="memory.expire")
def expire() -> None:
    """End sessions that are due; items whose time is over leave recall; receipts nobody can ask for go."""
    rounds.over_tenants(_expire_sessions, for_s=ROUND_S)
    rounds.over_tenants(rounds.batches("expire", expiry.expire_due), for_s=ROUND_S)
    rounds.over_tenants(_drop_receipts, for_s=ROUND_S)


@shared_task(name="memory.summarise")
def summarise() -> None:
    """Tell sessions shorter, segment by segment."""
    rounds.over_tenants(_summarise, for_s=LONG_ROUND_S)


@shared_task(name="memory.extract")
def extract() -> None:
    """Propose what was said and is worth keeping."""
    rounds.over_tenants(_learn, for_s=LONG_ROUND_S)


@shared_task(name="memory.consolidate")
def consolidate() -> None:
    """Merge, shorten or drop what is over the cap."""
    rounds.over_tenants(rounds.batches("consolidate", consolidation.consolidate_due), for_s=LONG_ROUND_S)


@shared_task(name="memory.embed")
def embed() -> None:
    """Make vectors, or move to another model."""
    rounds.over_tenants(rounds.apart("embed", _embedded, target=embedding.target()), for_s=LONG_ROUND_S)


@shared_task(name="memory.reword")
def reword() -> None:
    """Keep the words of units as the tenant's setting now says: plain, blind or not at all."""
    rounds.over_tenants(_reword, for_s=LONG_ROUND_S)


@shared_task(name="memory.backfill")
def backfill() -> None:
    """Bring facts to the newest version of their shape."""
    rounds.over_tenants(rounds.batches("backfill", facts.backfill, target=facts.target()), for_s=LONG_ROUND_S)


@shared_task(name="memory.retain")
def retain() -> None:
    """Remove ended sessions and lines of the ledger that their tenant keeps no longer."""
    rounds.over_tenants(_retain, for_s=LONG_ROUND_S)


def _expire_sessions(tenant_id: UUID, until_s: float) -> bool:
    with tenant_scope(tenant_id, durable=True):
        return sessions.expire_due() > 0


def _drop_receipts(tenant_id: UUID, until_s: float) -> bool:
    with tenant_scope(tenant_id, durable=True):
        return receipts.drop_old() > 0


def _retain(tenant_id: UUID, until_s: float) -> bool:
    """A batch of each round that has not come to its end; whether there is more."""
    more = False
    for name, work, target in retention.rounds(tenant_id):
        with tenant_scope(tenant_id):
            is_over = upkeep.has_reached(name, target)
        if not is_over:
            more = rounds.batches(name, work, target=target)(tenant_id, until_s) or more
    return more


def _summarise(tenant_id: UUID, until_s: float) -> bool:
    return summaries.summarise_due(tenant_id, until_s=until_s) > 0


def _learn(tenant_id: UUID, until_s: float) -> bool:
    return learning.learn_due(tenant_id, until_s=until_s) > 0


def _embedded(tenant_id: UUID, cursor: str) -> Callable[[], Progressed]:
    write = embedding.ready(tenant_id, cursor)
    return lambda: _progressed(write())


def _reword(tenant_id: UUID, until_s: float) -> bool:
    with tenant_scope(tenant_id):
        target = rewording.target()
        if upkeep.has_reached("reword", target):
            return False
    return rounds.batches("reword", _reworded, target=target)(tenant_id, until_s)


def _reworded(cursor: str) -> Progressed:
    return _progressed(rewording.reword_batch(cursor))


def _progressed(batch: embedding.Batch) -> Progressed:
    return Progressed(batch.cursor, batch.done, batch.is_over, batch.failed)
