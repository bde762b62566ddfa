"""Vectors, made after the words: in batches, by whatever embedder the settings choose, and anew for another model.

One call does one batch from a cursor and says where the next begins; whoever calls keeps the cursor. Texts are read in
one short transaction and vectors written in another: while a model is asked, none is held. A unit that changed
meanwhile keeps nothing of the answer. Two rounds at once, and one that was killed, do a batch twice at worst.

Moving to another model: while questions can still be asked in the former one, its vectors serve. The new ones are made
beside them; when every unit has one, both models must find sampled texts again; then the new vectors take effect, batch
by batch. When the former model is gone, its vectors serve nobody and are replaced as they are met.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from django.db import connection

from agentstate.core.clock import now
from agentstate.core.errors import DomainError
from agentstate.db import sql
from agentstate.llm import embedding, former_embedder
from agentstate.llm.embedding import Embedder
from agentstate.tenants.scope import current_tenant, tenant_scope
from memory.recall import comparing, vectors, wanted
from memory.recall.wanted import FIRST

log = structlog.get_logger(__name__)

BATCH_UNITS, SWAP_UNITS = 32, 500
BACK_OFF_S, BACK_OFF_S_MAX = 5.0, 600.0
DOWN = (DomainError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True, slots=True)
class Batch:
    """What one batch came to: `services.upkeep.Progressed` with the same fields. `failed`: why nothing more was done
    now; the cursor then holds how long to wait."""

    cursor: str
    done: int
    is_over: bool
    failed: str = ""


Write = Callable[[], Batch]  # writes what was made, inside a scope of the tenant


@dataclass(frozen=True, slots=True)
class Place:
    """Where a round stands: its part, the last unit seen in it, and after failures how many and until when to wait."""

    part: str = "missing"  # missing, other, stage, check, swap
    after: UUID = FIRST
    failures: int = 0
    until: float = 0.0
    why: str = ""

    @classmethod
    def read(cls, cursor: str) -> Place:
        """A cursor that cannot be read begins the round again: everything here may be done twice."""
        try:
            part, after, failures, until, why = json.loads(cursor)
            return cls(str(part), UUID(after), int(failures), float(until), str(why)) if part in PARTS else cls()
        except (ValueError, TypeError, AttributeError):
            return cls()

    def written(self) -> str:
        """At most 200 characters."""
        return json.dumps([self.part, self.after.hex, self.failures, round(self.until), self.why[:100]])


def target() -> str:
    """The model that this tenant works toward: the target of its upkeep. Empty: there is no embedder."""
    embedder = embedding.embedder()
    return embedder.model_id if embedder else ""


def embed_batch(cursor: str, *, embedder: Embedder | None = None, batch_units: int = BATCH_UNITS) -> Batch:
    """All of the next batch inside the caller's scope, for whoever has an embedder that answers at once."""
    return ready(current_tenant(), cursor, embedder=embedder, batch_units=batch_units)()


def ready(
    tenant_id: UUID, cursor: str, *, embedder: Embedder | None = None, batch_units: int = BATCH_UNITS
) -> Callable[[], Batch]:
    """Read the next batch of vectors and have them made; what comes back writes them, inside a scope of the tenant.

    Call it outside of any scope: it opens its own, and holds neither a transaction nor a connection while a model is
    asked. A provider that is down or answers nonsense costs a wait, no text. Idempotent. Locks, when writing: the units
    of the batch.
    """
    embedder = embedder or embedding.embedder()
    if embedder is None:
        return lambda: Batch("", 0, True)
    place = Place.read(cursor)
    if now().timestamp() < place.until:
        return lambda: Batch(cursor, 0, False, place.why)

    def written() -> Batch:
        try:
            return write()
        except DOWN as error:
            return _backed_off(place, type(error).__name__)

    try:
        vectors.label(embedder)  # an endpoint may have to be asked for it
        write = PARTS[place.part](tenant_id, place, embedder, batch_units)
    except DOWN as error:
        why = type(error).__name__
        return lambda: _backed_off(place, why)
    return written


def lacking() -> tuple[int, int]:
    """For Health: units without a vector of the model that the settings choose, and how many may be recalled at all."""
    found = sql.row(
        "SELECT count(*) FILTER (WHERE NOT starts_with(u.model, %(of)s)), count(*) FROM memory_unit u"
        f" WHERE {wanted.LIVE}",
        {"of": f"{target()}:", "now": now()},
    )
    return (int(found[0]), int(found[1])) if found else (0, 0)


def _missing(tenant_id: UUID, place: Place, embedder: Embedder, limit: int) -> Write:
    """Units without any vector: they get one at once."""
    if place.after == FIRST:
        with tenant_scope(tenant_id):
            vectors.drop_staged(embedder)
    return _embedded(tenant_id, place, embedder, limit, which=wanted.MISSING, how=vectors.KEEP, then="other")


def _other(tenant_id: UUID, place: Place, embedder: Embedder, limit: int) -> Write:
    """Units of another model, which is gone: replaced as they are met. One that can still be asked serves meanwhile."""
    if place.after == FIRST and _former(tenant_id, embedder) is not None:
        return lambda: Batch(Place("stage").written(), 0, False)
    return _embedded(tenant_id, place, embedder, limit, which=wanted.REPLACEABLE, how=vectors.KEEP, then="")


def _stage(tenant_id: UUID, place: Place, embedder: Embedder, limit: int) -> Write:
    return _embedded(tenant_id, place, embedder, limit, which=wanted.UNSTAGED, how=vectors.STAGE, then="check")


def _check(tenant_id: UUID, place: Place, embedder: Embedder, limit: int) -> Write:
    found = _compared(tenant_id, embedder)
    if found is not None and not found.is_good:
        why = f"recall check: {embedder.model_id} finds {found.new:.0%}, the model in force {found.former:.0%}"
        return lambda: _backed_off(place, why, wait_s=BACK_OFF_S_MAX)
    return lambda: Batch(Place("swap").written(), 0, False)


def _swap(tenant_id: UUID, place: Place, embedder: Embedder, limit: int) -> Write:
    def write() -> Batch:
        count = vectors.swap(embedder, limit=SWAP_UNITS)
        return Batch(place.written() if count else "", count, not count)

    return write


PARTS: dict[str, Callable[[UUID, Place, Embedder, int], Write]] = {
    "missing": _missing,
    "other": _other,
    "stage": _stage,
    "check": _check,
    "swap": _swap,
}


def _embedded(
    tenant_id: UUID, place: Place, embedder: Embedder, limit: int, *, which: str, how: str, then: str
) -> Write:
    """One batch of those units; when there are none the round goes on with the part `then`, or is over."""
    with tenant_scope(tenant_id):
        found = wanted.batch(which, model=vectors.label(embedder), after=place.after, limit=limit)
    if found.last is None:
        return lambda: Batch(Place(then).written() if then else "", 0, not then)
    _let_go()
    made = vectors.made(embedder, found.texts)
    further = replace(place, after=found.last, failures=0, until=0.0, why="").written()
    return lambda: Batch(further, vectors.write(how, embedder, made), False)


def _compared(tenant_id: UUID, embedder: Embedder) -> comparing.Compared | None:
    former = _former(tenant_id, embedder)
    if former is None:
        return None
    _let_go()
    label, of_former = vectors.label(embedder), vectors.label(former)  # an endpoint may have to be asked for it
    with tenant_scope(tenant_id):
        pool = comparing.pool(label, of_former)
    _let_go()
    return comparing.compare(pool, embedder, former) if pool else None


def _let_go() -> None:
    """Of the connection, unless a transaction of the caller holds it: a model may take minutes."""
    if not connection.in_atomic_block:
        connection.close()


def _backed_off(place: Place, why: str, *, wait_s: float = 0.0) -> Batch:
    """Nothing more until then; twice as long after each failure, unless it is said how long."""
    failures = place.failures + 1
    wait_s = wait_s or min(BACK_OFF_S * 2 ** min(failures - 1, 10), BACK_OFF_S_MAX)
    until = now() + timedelta(seconds=wait_s)
    log.warning("recall.embedding_failed", why=why, failures=failures)
    return Batch(replace(place, failures=failures, until=until.timestamp(), why=why).written(), 0, False, why)


def _former(tenant_id: UUID, embedder: Embedder) -> Embedder | None:
    """The embedder of vectors that stand here and are of another model, when it can still be asked."""
    with tenant_scope(tenant_id):
        found = sql.rows(
            f"SELECT DISTINCT u.model FROM memory_unit u WHERE {wanted.OTHER}", {"model": vectors.label(embedder)}
        )
    known = (former_embedder.named(label.rpartition(":")[0]) for (label,) in sorted(found))
    return next((former for former in known if former is not None), None)


def wait_until(cursor: str) -> datetime | None:
    """When a failed round goes on, for Health."""
    until = Place.read(cursor).until
    return datetime.fromtimestamp(until, now().tzinfo) if until else None
