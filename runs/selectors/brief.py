"""Runs in a few words, for the pages of other tiers: agent, status, is it over, does it wait for an approval."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from agentstate.db import sql
from memory.standing import RunStanding
from runs.selectors.runs import shown_status
from runs.states import RUN_LIVE

LIVE = ", ".join(f"'{status}'" for status in sorted(RUN_LIVE))

# By primary key.
BRIEF = "select id, agent, status, control, waiting_for from runs_run where id = any(%s)"
# A run that is held back waits for one that is not. Index: runs_run_session_live.
OPEN_SESSIONS = f"""
select session_key from runs_run
where session_key = any(%s) and session_key <> '' and not held and status in ({LIVE})"""


def standings(run_ids: Sequence[UUID]) -> list[RunStanding]:
    """Asserts nothing: the tenant is the scope's. Runs that are gone are left out."""
    return [
        RunStanding(
            run_id=run_id,
            agent=agent,
            status=shown_status(status, control, waiting_for),
            is_open=status in RUN_LIVE,
            asks=status == "waiting" and waiting_for == "approval",
        )
        for run_id, agent, status, control, waiting_for in sql.rows(BRIEF, [list(run_ids)])
    ]


def open_sessions(keys: Sequence[str]) -> set[str]:
    """Those of these keys of sessions under which a run is open."""
    return {key for (key,) in sql.rows(OPEN_SESSIONS, [list(keys)])}
