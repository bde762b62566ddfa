"""Runs in a few words, for the pages of other tiers: agent, status, is it over, does it wait for an approval."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from agentstate.db import sql
from memory.standing import RunStanding
from runs.selectors.runs import shown_status
from runs.states import RUN_LIVE

# By primary key.
BRIEF = "select id, agent, status, control, waiting_for from runs_run where id = any(%s)"


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
