"""Retention: ended sessions and lines of the ledger go when their tenant keeps them no longer, in bounded batches.

A session goes whole, in one transaction with its messages, summaries, units and counts: nobody reads half of one. One
of 50,000 messages takes about three seconds and 9 MB of WAL; its subject's row is taken last, so nobody waits that
long. What a run that is still open said or was given stays while it is open. What is gone still counts for an
erasure: its runs and its key are kept as rows of memory_removed. Killed anywhere or done twice at once, all is
removed once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import partial
from itertools import accumulate
from uuid import UUID

from django.db import connection, transaction
from django.db.models import F, Q

from agentstate.audit import notes, trail
from agentstate.core import clock
from agentstate.core.errors import NotFound
from agentstate.core.ids import first_at, new_id, parse_id
from agentstate.db import locks, sql
from agentstate.tenants import actors
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import current_tenant, tenant_scope
from memory import policies, standing
from memory.models import Session, Subject
from memory.selectors import removed
from memory.selectors import summaries as summary_reads
from memory.services import buffering, summaries
from memory.services.upkeep import Progressed
from memory.states import SessionStatus, SubjectStatus

SESSIONS, LINES = "retain_sessions", removed.LEDGER  # how Health calls them
BATCH_SESSIONS = 50
BATCH_MESSAGES = 2_000  # a batch ends with the session that reaches it
BATCH_LINES = 2_000
FIRST = UUID(int=0)

# Indexes: memory_message_seq, memory_injection_session, memory_injection_source, memory_summary_so_far.
RUNS = """
SELECT DISTINCT session_id, run_id FROM (
  SELECT session_id, run_id FROM memory_message WHERE session_id = ANY(%(sessions)s)
  UNION ALL SELECT session_id, run_id FROM memory_injection WHERE session_id = ANY(%(sessions)s)
  UNION ALL SELECT m.session_id, i.run_id FROM memory_message m JOIN memory_injection i ON i.source_id = m.id
    WHERE m.session_id = ANY(%(sessions)s)
  UNION ALL SELECT s.session_id, i.run_id FROM memory_summary s JOIN memory_injection i ON i.source_id = s.id
    WHERE s.session_id = ANY(%(sessions)s)) r
WHERE run_id IS NOT NULL"""
KEEP_RUNS = """
INSERT INTO memory_removed (id, subject_id, run_id, at)
SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::uuid[], %s::timestamptz[])
ON CONFLICT (subject_id, run_id) DO NOTHING"""
KEEP_KEYS = """
INSERT INTO memory_removed (id, subject_id, session_key, at)
SELECT * FROM unnest(%s::uuid[], %s::uuid[], %s::text[], %s::timestamptz[])
ON CONFLICT (subject_id, session_key) DO NOTHING"""
_MESSAGES = "(SELECT id FROM memory_message WHERE session_id = ANY(%(sessions)s))"
REMOVE = (  # in this order: nothing is left that names a row above it
    f"DELETE FROM memory_unitstaged WHERE unit_id IN {_MESSAGES}",
    f"DELETE FROM memory_unittokens WHERE unit_id IN {_MESSAGES}",
    f"DELETE FROM memory_unit WHERE id IN {_MESSAGES}",
    "DELETE FROM memory_summary WHERE session_id = ANY(%(sessions)s)",
    "DELETE FROM memory_message WHERE session_id = ANY(%(sessions)s)",
    "DELETE FROM memory_session WHERE id = ANY(%(sessions)s)",
)
# What their sessions had come to before it was told anew. Index: memory_summary_subject.
REMOVE_TOLD = "DELETE FROM memory_summary WHERE subject_id = ANY(%s) AND level = 'subject' AND stale"
# In the order of their ids, which is that of time. Index: memory_injection_tenant_id.
OLD_LINES = """
SELECT id, call_id, run_id, subject_id FROM memory_injection
WHERE tenant_id = agentstate_tenant() AND id > %s AND id < %s AND at < %s ORDER BY id LIMIT %s"""
REMOVE_LINES = "DELETE FROM memory_injection WHERE id = ANY(%s)"
COUNT_LINES = """
SELECT run_id, count(*) FROM memory_injection
WHERE tenant_id = agentstate_tenant() AND id < %s AND at < %s GROUP BY run_id"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be removed now. `kept_*`: what would stay only because a run is open. None: it is kept for ever."""

    sessions_before: datetime | None
    ledger_before: datetime | None
    sessions: int = 0
    messages: int = 0
    kept_sessions: int = 0
    lines: int = 0
    kept_lines: int = 0


def sessions_before() -> datetime | None:
    """Sessions that ended before this moment are kept no longer; None: they all are."""
    return _horizon(policies.for_tenant().session_keep_days)


def ledger_before() -> datetime | None:
    """As sessions_before(), of what calls were given before this moment."""
    return _horizon(policies.for_tenant().ledger_keep_days)


def target(before: datetime | None) -> str:
    """How upkeep calls a round up to this moment."""
    return f"{removed.BEFORE}{before:%Y-%m-%d}" if before is not None else ""


def remove_sessions(cursor: str) -> Progressed:
    """One batch of ended sessions, the longest over first; those of open runs, or held by somebody, are passed by.

    Locks: the sessions, then, when all of theirs is deleted, their subjects in the order of their ids.
    """
    assert connection.in_atomic_block, "a session and all that is its own go together"
    before = sessions_before()
    looked = _ended(before, cursor, hold=True) if before is not None else []
    if before is None or not looked:
        return Progressed("", 0, is_over=True)
    runs = _runs_of(looked)
    kept = _kept(looked, runs)
    going = [session for session in looked if session.id not in kept and _is_nobodys(session)]
    if going:
        _remove(going, runs, before=before)
    return Progressed(_place(looked[-1]), len(going), is_over=False)


def remove_lines(cursor: str) -> Progressed:
    """One batch of the ledger, the oldest first, whole calls; those of open runs are passed by."""
    assert connection.in_atomic_block, "lines go together with what an erasure needs of them"
    before = ledger_before()
    if before is None:
        return Progressed("", 0, is_over=True)
    after = UUID(cursor) if cursor else FIRST
    found = sql.rows(OLD_LINES, [after, first_at(before), before, BATCH_LINES], binary=True)
    is_over = len(found) < BATCH_LINES
    if not is_over:
        found = [row for row in found if row[1] != found[-1][1]] or found  # the rest of the last call comes next
    open_runs = _open(run_id for _, _, run_id, _ in found)
    going = [row for row in found if row[2] not in open_runs]
    _keep_runs({(subject_id, run_id) for _, _, run_id, subject_id in going if subject_id and run_id})
    if going:
        sql.execute(REMOVE_LINES, [[id for id, *_ in going]])
        tenant = Tenant.objects.get(id=current_tenant())
        detail = {"lines": len(going), "before": before}
        trail.record(tenant, action="ledger_removed", actor=actors.system("retention"), detail=detail)
    return Progressed(str(found[-1][0]) if found else "", len(going), is_over)


def plan() -> Plan:
    """What both would remove now. Asserts a tenant scope; reads in batches, holds nothing."""
    sessions_end, ledger_end = sessions_before(), ledger_before()
    sessions = messages = kept_sessions = lines = kept_lines = 0
    cursor = ""
    while sessions_end is not None and (looked := _ended(sessions_end, cursor, hold=False)):
        kept = _kept(looked, _runs_of(looked))
        going = [session for session in looked if session.id not in kept]
        sessions, kept_sessions = sessions + len(going), kept_sessions + len(kept)
        messages += sum(session.last_seq for session in going)
        cursor = _place(looked[-1])
    if ledger_end is not None:
        counted = sql.rows(COUNT_LINES, [first_at(ledger_end), ledger_end])
        open_runs = _open(run_id for run_id, _ in counted)
        kept_lines = sum(count for run_id, count in counted if run_id in open_runs)
        lines = sum(count for _, count in counted) - kept_lines
    return Plan(sessions_end, ledger_end, sessions, messages, kept_sessions, lines, kept_lines)


def rounds(tenant_id: UUID) -> list[tuple[str, Callable[[str], Progressed], str]]:
    """Name, work and target of the rounds of a tenant; those that keep for ever are left out. Opens its own scope."""
    with tenant_scope(tenant_id):
        ends = [(SESSIONS, remove_sessions, sessions_before()), (LINES, remove_lines, ledger_before())]
    return [(name, work, target(before)) for name, work, before in ends if before is not None]


def _horizon(keep_days: int | None) -> datetime | None:
    """The beginning of a day: a round removes what one day has brought over it."""
    if keep_days is None:
        return None
    return datetime.combine(clock.now().date(), time(), UTC) - timedelta(days=keep_days)


def _ended(before: datetime, cursor: str, *, hold: bool) -> list[Session]:
    """The next that ended before this moment, with about BATCH_MESSAGES messages. Index: memory_session_ended."""
    ended = Session.objects.filter(ended_at__lt=before, subject__status=SubjectStatus.ACTIVE)
    ended = ended.exclude(status=SessionStatus.OPEN).order_by("ended_at", "id")
    if cursor:
        at, _, session_id = cursor.partition(" ")
        ended = ended.filter(
            Q(ended_at__gt=datetime.fromisoformat(at)) | Q(ended_at=datetime.fromisoformat(at), id__gt=UUID(session_id))
        )
    if hold:
        ended = ended.select_for_update(of=("self",), skip_locked=True)
    found = list(ended[:BATCH_SESSIONS])
    reached = accumulate((session.last_seq for session in found), initial=0)
    return [session for session, messages in zip(found, reached, strict=False) if messages < BATCH_MESSAGES]


def _place(session: Session) -> str:
    assert session.ended_at is not None
    return f"{session.ended_at.isoformat()} {session.id}"


def _runs_of(sessions: Sequence[Session]) -> dict[UUID, set[UUID]]:
    """The runs that spoke in each session, or were given something in or of it."""
    runs: dict[UUID, set[UUID]] = defaultdict(set)
    for session_id, run_id in sql.rows(RUNS, {"sessions": [session.id for session in sessions]}, binary=True):
        runs[session_id].add(run_id)
    return runs


def _kept(sessions: Sequence[Session], runs: dict[UUID, set[UUID]]) -> set[UUID]:
    """Sessions that stay because a run is open that has to do with them, or that will speak in them."""
    own = {session.id: _run_of_key(session.key) for session in sessions}  # a run without a session has one of its own
    open_runs = _open({run_id for found in runs.values() for run_id in found} | {id for id in own.values() if id})
    open_keys = standing.open_sessions([session.key for session in sessions])
    return {
        session.id
        for session in sessions
        if session.key in open_keys or own[session.id] in open_runs or runs[session.id] & open_runs
    }


def _run_of_key(key: str) -> UUID | None:
    try:
        return parse_id("run", key)
    except NotFound:
        return None


def _open(run_ids: Iterable[UUID | None]) -> set[UUID]:
    wanted = sorted({run_id for run_id in run_ids if run_id is not None})
    return {run.run_id for run in standing.of(wanted) if run.is_open}


def _is_nobodys(session: Session) -> bool:
    """False while somebody opens a session of this key: it opens this one again."""
    return locks.try_hold("memory.session", current_tenant(), session.key)


def _remove(sessions: Sequence[Session], runs: dict[UUID, set[UUID]], *, before: datetime) -> None:
    ids = [session.id for session in sessions]
    for session in sessions:
        detail = {"messages": session.last_seq, "ended_at": session.ended_at, "before": before}
        trail.record(session, action="removed", actor=actors.system("retention"), detail=detail)
    notes.erase_about(trail.object_type(Session), ids)
    _keep_runs({(session.subject_id, run_id) for session in sessions for run_id in runs[session.id]})
    now = clock.now()
    about = [session.subject_id for session in sessions]
    keys = [session.key for session in sessions]
    sql.execute(KEEP_KEYS, [[new_id() for _ in ids], about, keys, [now for _ in ids]])
    for statement in REMOVE:
        sql.execute(statement, {"sessions": ids})
    for subject_id in sorted(set(about)):
        _count_out(subject_id, [session for session in sessions if session.subject_id == subject_id])
    sql.execute(REMOVE_TOLD, [sorted(set(about))])
    tenant_id = current_tenant()
    for session_id in ids:
        transaction.on_commit(partial(buffering.drop, tenant_id, session_id), robust=True)


def _keep_runs(pairs: Iterable[tuple[UUID, UUID]]) -> None:
    """An erasure of the subject reaches these runs still."""
    kept = sorted(pairs)
    if kept:
        subjects, runs = (list(column) for column in zip(*kept, strict=True))
        sql.execute(KEEP_RUNS, [[new_id() for _ in kept], subjects, runs, [clock.now() for _ in kept]])


def _count_out(subject_id: UUID, sessions: Sequence[Session]) -> None:
    """The subject's counts, and what its sessions have come to without these."""
    Subject.objects.filter(id=subject_id).update(
        session_count=F("session_count") - len(sessions),
        message_count=F("message_count") - sum(session.message_count for session in sessions),
    )
    if summary_reads.of_subject(subject_id) is not None:
        summaries.tell_subject(subject_id)
