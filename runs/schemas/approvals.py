"""Questions to people, and their answers, as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentstate.core.limits import NAME_CHARS_MAX, REASON_CHARS_MAX
from agentstate.http.schemas import Out, Strict, one_of
from runs.states import ApprovalStatus

HASH = "The hash of the proposal that you saw, 64 hex digits: a decision is good for exactly that one."


class ApprovalQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    tool: str = Field("", max_length=NAME_CHARS_MAX)
    risk: Literal["", "low", "high"] = ""
    sort: Literal["due", "risk", "oldest", "newest"] = Field("due", description="Order of the open ones.")
    decided: bool = Field(False, description="The newest decided ones instead of the open ones.")


class DecisionIn(Strict):
    decision: Literal["approve", "edit", "reject", "respond"]
    proposal_hash: str = Field(pattern=r"^[0-9a-f]{64}$", description=HASH)
    args: Any = Field(None, description="edit: the arguments to use. respond to a free question: the answer.")
    message: str = Field("", max_length=REASON_CHARS_MAX, description="reject, respond: what the agent is told.")


class SettleIn(Strict):
    verdict: Literal["happened", "did_not_happen", "give_up"] = Field(
        description="did_not_happen authorises one further call; give_up fails the run."
    )
    proposal_hash: str = Field(pattern=r"^[0-9a-f]{64}$", description=HASH)
    reason: str = Field(min_length=1, max_length=REASON_CHARS_MAX, description="How you know; kept in the audit trail.")
    output: Any = Field(None, description="happened: what the call gave, as the agent will see it.")
    evidence: str = Field("", max_length=REASON_CHARS_MAX, description="Where this can be looked up.")


class DecisionOut(Out):
    """What was decided."""

    args: Any = None
    message: str = ""
    answer: Any = None


class ApprovalOut(Out):
    approval_id: str
    run_id: str
    step_seq: int | None
    kind: str = one_of(("tool", "ask", "budget", "settle"))
    tool: str
    agent: str
    risk: str = one_of(("low", "high"))
    status: str = one_of(ApprovalStatus)
    version: int = Field(description="Send it as If-Match with a decision; also the ETag.")
    proposal_hash: str = Field(description="Send it in the body of a decision.")
    title: str
    args: Any = None
    schema_: dict[str, Any] = Field(alias="schema", description="JSON Schema of the arguments or the answer.")
    reason: str = Field(description="The agent's claim.")
    evidence: list[int] = Field(description="Numbers (seq) of the steps that the question rests on.")
    requested_at: datetime
    expires_at: datetime | None
    decided_at: datetime | None
    decided_by: str
    decision: DecisionOut | None = None
    use_within_s: float | None = Field(description="Seconds for which an approval may be used.")
    use_by: datetime | None
    used_at: datetime | None
    corrupt: str = Field("", description="Why the sealed part could not be read; empty: it could.")


class ApprovalPageOut(Out):
    approvals: list[ApprovalOut]
    pending: int
    more: bool
