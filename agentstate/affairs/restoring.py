"""The restore drill: can the runs that are stored be restored, each by its own agent, without calling anybody?"""

from __future__ import annotations

from uuid import UUID

from agentstate.audit.models import AuditEntry
from agentstate.core.ids import parse_id
from agentstate.tenants.scope import tenant_scope
from checkpoints import reading
from runs.engine import hosting, rehearsal
from runs.engine.rehearsal import Rehearsal


def drill(tenant_id: UUID, *, runs_max: int = 20, run_id: UUID | None = None) -> list[Rehearsal]:
    """Rehearse live runs first, then a random choice of the others. Writes nothing."""
    agents = hosting.agents()
    found = []
    for id, agent in rehearsal.chosen(tenant_id, runs_max=runs_max, run_id=run_id):
        rehearsed = rehearsal.rehearse(tenant_id, id, agents.get(agent))
        _compare_with_audit(tenant_id, rehearsed)
        found.append(rehearsed)
    return found


def _compare_with_audit(tenant_id: UUID, rehearsed: Rehearsal) -> None:
    """Each move of a run wrote its frame chain's head into the audit trail; the frame of that number has it."""
    run_id = parse_id("run", rehearsed.run_id)
    with tenant_scope(tenant_id):
        kept = {head.n: head.chain.hex() for head in reading.heads(run_id, limit=100_000)}
        moves = AuditEntry.objects.filter(object_type="run", object_id=run_id, detail__has_key="chain")
        for detail in moves.values_list("detail", flat=True):
            n, chain = detail["frame"], detail["chain"]
            if n in kept and kept[n] != chain:
                rehearsed.problems.append(
                    f"Frame {n} has another chain than the audit trail recorded when the run moved."
                )
