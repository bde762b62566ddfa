"""Vectors, made after the words: in batches, by whatever embedder the settings choose, and anew for another model.

One call does one batch from a cursor and says where the next begins; whoever calls keeps the cursor and the lock. A
unit that changed while its text was with the model keeps nothing of the answer. Two rounds at once, and one that was
killed, do a batch twice at worst.

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

from agentstate.core.clock import now
from agentstate.core.errors import DomainError
from agentstate.db import sql
from agentstate.llm import embedding, former_embedder
from agentstate.llm.embedding import Embedder
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
    """The next batch of vectors in this tenant. A provider that is down or answers nonsense costs a wait, no text.

    Asserts a tenant scope. Idempotent. Locks: the units of the batch, while they are written.
    """
    embedder = embedder or embedding.embedder()
    if embedder is None:
        return Batch("", 0, True)
    place = Place.read(cursor)
    if now().timestamp() < place.until:
        return Batch(cursor, 0, False, place.why)
    try:
        return PARTS[place.part](place, embedder, batch_units)
    except DOWN as error:
        return _backed_off(place, type(error).__name__)


def lacking() -> tuple[int, int]:
    """For Health: units without a vector of the model that the settings choose, and how many may be recalled at all."""
    found = sql.row(
        "SELECT count(*) FILTER (WHERE NOT starts_with(u.model, %(of)s)), count(*) FROM memory_unit u"
        f" WHERE {wanted.LIVE}",
        {"of": f"{target()}:", "now": now()},
    )
    return (int(found[0]), int(found[1])) if found else (0, 0)


def _missing(place: Place, embedder: Embedder, limit: int) -> Batch:
    """Units without any vector: they get one at once."""
    if place.after == FIRST:
        vectors.drop_staged(embedder)
    return _embedded(place, embedder, limit, which=wanted.MISSING, how=vectors.KEEP, then="other")


def _other(place: Place, embedder: Embedder, limit: int) -> Batch:
    """Units of another model, which is gone: replaced as they are met. One that can still be asked serves meanwhile."""
    former = _former(embedder)
    if former is not None and place.after == FIRST:
        return Batch(Place("stage").written(), 0, False)
    return _embedded(place, embedder, limit, which=wanted.REPLACEABLE, how=vectors.KEEP, then="")


def _stage(place: Place, embedder: Embedder, limit: int) -> Batch:
    return _embedded(place, embedder, limit, which=wanted.UNSTAGED, how=vectors.STAGE, then="check")


def _check(place: Place, embedder: Embedder, limit: int) -> Batch:
    former = _former(embedder)
    found = comparing.compare(embedder, former) if former else None
    if found is not None and not found.is_good:
        why = f"recall check: {embedder.model_id} finds {found.new:.0%}, the model in force {found.former:.0%}"
        return _backed_off(place, why, wait_s=BACK_OFF_S_MAX)
    return Batch(Place("swap").written(), 0, False)


def _swap(place: Place, embedder: Embedder, limit: int) -> Batch:
    count = vectors.swap(embedder, limit=SWAP_UNITS)
    return Batch(place.written() if count else "", count, not count)


PARTS: dict[str, Callable[[Place, Embedder, int], Batch]] = {
    "missing": _missing,
    "other": _other,
    "stage": _stage,
    "check": _check,
    "swap": _swap,
}


def _embedded(place: Place, embedder: Embedder, limit: int, *, which: str, how: str, then: str) -> Batch:
    """One batch of those units; when there are none the round goes on with the part `then`, or is over."""
    found = wanted.batch(which, model=vectors.label(embedder), after=place.after, limit=limit)
    if found.last is None:
        return Batch(Place(then).written() if then else "", 0, not then)
    done = vectors.write(how, embedder, found.texts)
    return Batch(replace(place, after=found.last, failures=0, until=0.0, why="").written(), done, False)


def _backed_off(place: Place, why: str, *, wait_s: float = 0.0) -> Batch:
    """Nothing more until then; twice as long after each failure, unless it is said how long."""
    failures = place.failures + 1
    wait_s = wait_s or min(BACK_OFF_S * 2 ** min(failures - 1, 10), BACK_OFF_S_MAX)
    until = now() + timedelta(seconds=wait_s)
    log.warning("recall.embedding_failed", why=why, failures=failures)
    return Batch(replace(place, failures=failures, until=until.timestamp(), why=why).written(), 0, False, why)


def _former(embedder: Embedder) -> Embedder | None:
    """The embedder of vectors that stand here and are of another model, when it can still be asked."""
    found = sql.rows(
        f"SELECT DISTINCT u.model FROM memory_unit u WHERE {wanted.OTHER}", {"model": vectors.label(embedder)}
    )
    known = (former_embedder.named(label.rpartition(":")[0]) for (label,) in sorted(found))
    return next((former for former in known if former is not None), None)


def wait_until(cursor: str) -> datetime | None:
    """When a failed round goes on, for Health."""
    until = Place.read(cursor).until
    return datetime.fromtimestamp(until, now().tzinfo) if until else None
