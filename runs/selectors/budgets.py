"""The context budget of a run: its own, else its agent's, else what its model can read at once, else the default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from agentstate.core.limits import CONTEXT_BUDGET_TOKENS, CONTEXT_BUDGET_TOKENS_MAX
from agentstate.db import sql
from agentstate.llm import prices

# Primary keys; the model is that of the newest step that has one, among the last 2,000.
CONTEXT = """
select r.context_budget_tokens, v.context_budget_tokens,
  (select s.model from runs_step s where s.run_id = r.id and s.seq > r.step_seq - 2000 and s.model <> ''
    order by s.seq desc limit 1)
from runs_run r left join runs_agentversion v on v.id = r.version_id and v.tenant_id = r.tenant_id
where r.id = %s
"""


@dataclass(frozen=True, slots=True)
class ContextBudget:
    tokens: int
    source: str  # run | agent | model | default
    model: str = ""


def context(run_id: UUID) -> ContextBudget:
    """Asserts a tenant scope."""
    return found(sql.rows(*asked(run_id)))


def asked(run_id: UUID) -> sql.Query:
    """The query whose rows found() reads, for whoever asks for other things in the same round trip."""
    return CONTEXT, [run_id]


def found(rows: Sequence[sql.Row]) -> ContextBudget:
    own, of_agent, model = rows[0]
    if own:
        return ContextBudget(own, "run")
    if of_agent:
        return ContextBudget(min(of_agent, CONTEXT_BUDGET_TOKENS_MAX), "agent")
    window = prices.context_window(model) if model else None
    if window:
        return ContextBudget(min(window, CONTEXT_BUDGET_TOKENS_MAX), "model", model)
    return ContextBudget(CONTEXT_BUDGET_TOKENS, "default")
