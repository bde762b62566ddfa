"""Moving a run to another status: the audited transition, its event, the counts, and whoever waited for it."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import orjson
from django.db import transaction
from django.db.models import F

from agentstate.audit import trail
from agentstate.db import sql, wake
from agentstate.tenants.actors import Actor
from runs import scratchpad
from runs.models import Run, StatusDelta
from runs.services import clock
from runs.states import RUN_LIVE, RUN_OVER, RUN_TRANSITIONS, RunStatus

# The month is the run's; a run that the same transaction inserts is there already.
FIRST_EVENT = """
insert into runs_event (month, run_id, seq, kind, detail, tokens, at)
  select date_trunc('month', r.created_at at time zone 'UTC')::date, r.id, r.event_seq, 'status', %s::text::jsonb, 0,
    r.created_at from runs_run r where r.id = %s
"""
EVENT = """
insert into runs_event (month, run_id, seq, kind, detail, body, tokens, at) values (
  date_trunc('month', %s::timestamptz at time zone 'UTC')::date, %s, %s, %s, %s::text::jsonb, %s, %s, clock_timestamp())
"""


def move(run: Run, *, to: str, actor: Actor, changes: Mapping[str, Any] | None = None, reason: str = "") -> Run:
    """Asserts a tenant scope. Locks: run. Raises: Conflict when the run's status is another one by now.

    A move to `queued` sends the hint after the commit.
    """
    was = run.status
    assert to in RUN_TRANSITIONS[was], f"a run does not go from {was} to {to}"
    run = trail.transition(
        run,
        to=to,
        actor=actor,
        reason=reason,
        action=f"run.{to}",
        set={"event_seq": F("event_seq") + 1, **(changes or {})},
        # frame and chain anchor the frame chain in the audit chain: a tail of frames cannot go unnoticed.
        detail={
            "waiting_for": (changes or {}).get("waiting_for", ""),
            "fence": run.fence,
            "frame": run.frame_n,
            "chain": bytes(run.chain).hex(),
        },
    )
    add_event(run, "status", {"from": was, "to": to, "by": actor.kind, "waiting_for": run.waiting_for})
    if to in RUN_OVER:
        StatusDelta.objects.create(status=to, delta=1)
    if to not in RUN_LIVE and run.session_key:
        release_next_of_session(run, actor=actor)
    if to == RunStatus.QUEUED:
        wake.wake(run.tenant_id, run.id)
    if to not in RUN_LIVE:
        transaction.on_commit(partial(scratchpad.drop, run.tenant_id, run.id), robust=True)
    wake.live(run.tenant_id, run.id)
    return run


def add_event(run: Run, kind: str, detail: Mapping[str, Any], *, body: bytes | None = None, tokens: int = 0) -> None:
    """Append a fact under the number run.event_seq, which the caller has just taken under the run's lock."""
    sql.execute(EVENT, [run.created_at, run.id, run.event_seq, kind, orjson.dumps(detail).decode(), body, tokens])


def first_event(run: Run, *, actor: Actor) -> sql.Query:
    """The statement that says how a run began; after the one that inserts it, in the same transaction."""
    detail = {"from": "", "to": run.status, "by": actor.kind}
    return FIRST_EVENT, [orjson.dumps(detail).decode(), run.id]


def release_next_of_session(run: Run, *, actor: Actor) -> None:
    """The session's next run, held until now, may be claimed. Locks: that run."""
    held = Run.objects.select_for_update(no_key=True).filter(
        session_key=run.session_key, held=True, status=RunStatus.QUEUED
    )
    following = held.order_by("id").first()
    if following is None:
        return
    following.held, following.due_at = False, clock.database_now()
    following.save(update_fields=["held", "due_at"])
    trail.record(following, action="run.released", actor=actor, detail={"after": str(run.id)})
    wake.wake(following.tenant_id, following.id)
