"""Whether search over a tenant is what it says it is: exact, over a table without an approximate index. For `doctor`.

An approximate index on the shared table is taken by the planner unasked, and behind it the filter by tenant leaves
fewer rows than were wanted, silently: that is looked for in the catalogue. And what search reads for a few stored
vectors is compared with distances computed here, from the rows themselves.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

from agentstate.core.clock import now
from agentstate.core.limits import TENANT_RECALL_UNITS
from agentstate.db import sql
from agentstate.tenants.scope import tenant_scope
from memory.recall import rows
from memory.recall.rows import Filters

Vector = NDArray[np.float64]

SAMPLED, FIRST_K = 3, 10
NOISE = 1e-5  # vectors are kept in single precision
UNITS_MAX = 20_000  # of a tenant whose distances are computed here
_INDEXES = """
SELECT c.relname, a.amname FROM pg_index i
JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
WHERE i.indrelid IN ('memory_unit'::regclass, 'memory_unitstaged'::regclass) AND a.amname IN ('hnsw', 'ivfflat')
ORDER BY c.relname"""
_SAMPLE = """
SELECT model, vector::text FROM memory_unit WHERE in_recall AND (expires_at IS NULL OR expires_at > %s)
  AND model <> '' ORDER BY md5(id::text) LIMIT %s"""
_ALL = """
SELECT vector::text FROM memory_unit WHERE in_recall AND (expires_at IS NULL OR expires_at > %s) AND model = %s"""


@dataclass(frozen=True, slots=True)
class Checked:
    """`recall`: share of the truly nearest that search found among its first ten, over the sampled texts; None when
    there was nothing to look for. `units`: of the tenant that may be recalled."""

    recall: float | None
    units: int

    @property
    def is_large(self) -> bool:
        return self.units > TENANT_RECALL_UNITS


def approximate_indexes() -> list[str]:
    """Names of approximate indexes on tables of vectors; there should be none. Needs no scope."""
    return [f"{name} ({method})" for name, method in sql.rows(_INDEXES)]


def check(tenant_id: UUID) -> Checked:
    """Compare search over this tenant with the distances of all its vectors."""
    with tenant_scope(tenant_id):
        counted = sql.row("SELECT count(*) FROM memory_unit WHERE in_recall")
        units = int(counted[0]) if counted else 0
        sampled = sql.rows(_SAMPLE, [now(), SAMPLED]) if units <= UNITS_MAX else []
        shares = [_share(model, np.array(json.loads(vector))) for model, vector in sampled]
    return Checked(sum(shares) / len(shares) if shares else None, units)


def _share(model: str, vector: Vector) -> float:
    """Of the truly nearest, as far as they are among the nearest that recall read. Equal distances are equally good."""
    truth = _nearest(model, vector)
    asked = rows.Vector(model, vector.tolist())
    read = rows.units(None, digests=[], vectors=[asked], filters=Filters(now=now())).units
    wanted = min(FIRST_K, len(truth))
    first = np.sort(read.sim[~np.isnan(read.sim)])[::-1][:wanted]
    return float((first >= truth[wanted - 1] - NOISE).sum()) / wanted


def _nearest(model: str, vector: Vector) -> Vector:
    """Cosines of all vectors of the model with this one, greatest first."""
    matrix = np.array([json.loads(text) for (text,) in sql.rows(_ALL, [now(), model])])
    cosines = matrix @ vector / (np.linalg.norm(matrix, axis=1) * np.linalg.norm(vector))
    return np.asarray(np.sort(cosines)[::-1])
