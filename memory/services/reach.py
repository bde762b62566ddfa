"""What a policy that is not saved yet would reach, counted by rows as they stand now; nothing is changed."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from typing import Any

from agentstate.core.clock import now
from agentstate.core.ids import first_at
from agentstate.db import sql
from memory.models import Unit
from memory.policies import TenantPolicy
from memory.services.cap import HALF_LIFE
from memory.states import ItemStatus, SessionStatus, SubjectStatus

COUNTED_MAX = 100_000  # rows; beyond, pages say "more than"
SUBJECTS_LOOKED_INTO_MAX = 2_000  # whose items are put into their order
# As memory.services.cap takes them: what is due to expire, then the least worth. Index: memory_item_of_subject.
_OVER_CAP = """
WITH over AS MATERIALIZED (
  SELECT id, item_bytes, pinned_bytes FROM memory_subject
  WHERE cap_bytes IS NULL AND status = %(kept)s AND item_bytes > %(cap)s
), looked AS (
  SELECT id, item_bytes - %(cap)s AS excess FROM over WHERE pinned_bytes <= %(cap)s LIMIT %(subjects)s
), going AS (
  SELECT o.excess, sum(i.bytes) OVER (
    PARTITION BY o.id ORDER BY (i.expires_at IS NOT NULL AND i.expires_at <= %(now)s) DESC,
      i.importance * power(0.5, extract(epoch FROM greatest(%(now)s - i.updated_at, interval '0')) / %(half_life_s)s),
      i.updated_at, i.id
    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS gone
  FROM looked o JOIN memory_item i ON i.subject_id = o.id AND i.status = %(active)s AND NOT i.pinned
)
SELECT (SELECT count(*) FROM over), (SELECT count(*) FROM over WHERE pinned_bytes > %(cap)s),
  (SELECT count(*) FROM going WHERE coalesce(gone, 0) < excess)
"""
# Index: memory_item_expiry.
_OLDER_ITEMS = """
SELECT count(*), count(*) FILTER (WHERE i.updated_at < %(before)s) FROM (
  SELECT updated_at FROM memory_item WHERE status = %(active)s AND NOT pinned AND expires_at IS NOT NULL LIMIT %(rows)s
) i
"""
# Index: memory_session_ended.
_ENDED = """
SELECT count(*), coalesce(sum(s.last_seq), 0) FROM (
  SELECT last_seq FROM memory_session WHERE status <> %(open)s AND ended_at < %(before)s LIMIT %(rows)s
) s
"""
# Ids are in the order of time. Index: memory_injection_tenant_id.
_GIVEN = """
SELECT count(*) FROM (
  SELECT 1 FROM memory_injection
  WHERE tenant_id = agentstate_tenant() AND id < %(first)s AND at < %(before)s LIMIT %(rows)s
) i
"""


@dataclass(frozen=True, slots=True)
class Counted:
    """A number of rows; `is_more`: there are more than were counted."""

    rows: int
    is_more: bool = False

    def __bool__(self) -> bool:
        return self.rows > 0


@dataclass(frozen=True, slots=True)
class OverCap:
    """Subjects without a cap of their own that hold more: each is brought under it at the next write about it."""

    subjects: int
    items: Counted  # that would leave recall
    refused: int  # subjects whose pinned items alone are larger: writes about them would be refused


@dataclass(frozen=True, slots=True)
class Ageing:
    items: Counted  # that expire one day
    older: Counted  # of those, written longer ago than the new number of days


@dataclass(frozen=True, slots=True)
class Reach:
    """Only what the change touches is counted; the rest is None."""

    cap: OverCap | None = None
    ageing: Ageing | None = None
    reworded: Counted | None = None  # units whose words are made anew
    sessions: Counted | None = None  # ended ones that retention would delete, but for those of open runs
    messages: int = 0  # in those
    given: Counted | None = None  # lines of the ledger, likewise

    @property
    def is_silent(self) -> bool:
        return not any((self.cap, self.ageing, self.reworded, self.sessions, self.given))


def of_tenant(before: TenantPolicy, after: TenantPolicy) -> Reach:
    """What this change of the tenant's policy means. One statement for each field that counts."""
    found: dict[str, Any] = {}
    if after.cap_bytes < before.cap_bytes:
        found["cap"] = over_cap(after.cap_bytes)
    if after.expiry_days < before.expiry_days:
        found["ageing"] = _ageing(after.expiry_days)
    if (after.fulltext, after.language) != (before.fulltext, before.language):
        found["reworded"] = _counted(Unit.objects.order_by().values("id")[: COUNTED_MAX + 1].count())
    if _is_shorter(after.session_keep_days, before.session_keep_days):
        found["sessions"], found["messages"] = _ended(after.session_keep_days or 0)
    if _is_shorter(after.ledger_keep_days, before.ledger_keep_days):
        found["given"] = _counted(_one(_GIVEN, _days_ago(after.ledger_keep_days or 0, whole=True))[0])
    return Reach(**found)


def over_cap(cap_bytes: int) -> OverCap:
    """Whom a cap of the tenant would reach. One statement."""
    subjects, refused, items = _one(
        _OVER_CAP,
        {
            "cap": cap_bytes,
            "kept": SubjectStatus.ACTIVE,
            "active": ItemStatus.ACTIVE,
            "now": now(),
            "half_life_s": HALF_LIFE.total_seconds(),
            "subjects": SUBJECTS_LOOKED_INTO_MAX,
        },
    )
    return OverCap(subjects, Counted(items, subjects - refused > SUBJECTS_LOOKED_INTO_MAX), refused)


def _ageing(days: int) -> Ageing:
    items, older = _one(_OLDER_ITEMS, _days_ago(days) | {"active": ItemStatus.ACTIVE})
    is_more = items > COUNTED_MAX
    return Ageing(_counted(items), Counted(older, is_more))


def _ended(days: int) -> tuple[Counted, int]:
    sessions, messages = _one(_ENDED, _days_ago(days, whole=True) | {"open": SessionStatus.OPEN})
    return _counted(sessions), messages


def _is_shorter(after: int | None, before: int | None) -> bool:
    return after is not None and (before is None or after < before)


def _days_ago(days: int, *, whole: bool = False) -> dict[str, Any]:
    """`whole`: from the beginning of a day, as retention counts."""
    at = datetime.combine(now().date(), time(), UTC) if whole else now()
    before = at - timedelta(days=days)
    return {"before": before, "first": first_at(before), "rows": COUNTED_MAX + 1}


def _counted(rows: int) -> Counted:
    return Counted(min(rows, COUNTED_MAX), rows > COUNTED_MAX)


def _one(statement: str, args: dict[str, Any]) -> Any:
    found = sql.row(statement, args)
    assert found is not None, "a count answers one row"
    return found
