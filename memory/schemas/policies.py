"""Policies as the API takes and gives them: what is set in one place, and what is in force there."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agentstate.core.limits import NAME_CHARS_MAX
from agentstate.http.schemas import Out
from memory.policies import PREFIX, AgentPolicy, TenantPolicy
from memory.schemas.parts import BecauseIn

OF_AGENT = Field(
    min_length=1,
    max_length=NAME_CHARS_MAX - len(PREFIX),
    description="Name of the agent; `*`: every agent that has nothing of its own set.",
    examples=["support"],
)
VERSION = "Send it as If-Match with a change, 0 where nothing was ever set; also the ETag."
CLEARED = "Names of fields that shall be inherited again."


class PolicyQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    agent: str = Field("", max_length=NAME_CHARS_MAX, description="Only that of this agent; `*`: of every agent.")


class VersionsQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    agent: str = Field("", max_length=NAME_CHARS_MAX, description="Of this agent; empty: of the tenant.")


class AgentPolicyIn(BecauseIn):
    """These fields and no others are set; what is left out is inherited."""

    agent: str = OF_AGENT
    fields: AgentPolicy


class AgentPolicyPatch(BecauseIn):
    """These fields are set, those in `clear` are inherited again, the others stay as they are."""

    agent: str = OF_AGENT
    fields: AgentPolicy = AgentPolicy()
    clear: list[str] = Field([], max_length=len(AgentPolicy.model_fields), description=CLEARED)


class TenantPolicyIn(BecauseIn):
    """These fields and no others are set; what is left out is the default."""

    fields: TenantPolicy


class TenantPolicyPatch(BecauseIn):
    """These fields are set, those in `clear` are the defaults again, the others stay as they are."""

    fields: TenantPolicy = TenantPolicy()
    clear: list[str] = Field([], max_length=len(TenantPolicy.model_fields), description=CLEARED)


class UnusableOut(Out):
    """A stored value that is not in force."""

    field: str = Field(description="Empty: the whole setting.")
    why: str


class PolicyOut(Out):
    agent: str | None = Field(description="`*`: every agent's; null: the tenant's.")
    version: int = Field(description=VERSION)
    fields: dict[str, Any] = Field(description="What is set here.")
    in_force: dict[str, Any]
    origins: dict[str, str] = Field(
        description="Where each field in force is from: default, every agent, this agent, this tenant."
    )
    unusable: list[UnusableOut]
    updated_at: datetime | None


class PolicyListOut(Out):
    policies: list[PolicyOut] = Field(
        description="The tenant's, every agent's, then agents with settings of their own."
    )


class DifferenceOut(Out):
    field: str
    was: Any = Field(description="Null also where it was not set; see `was_set`.")
    now: Any
    was_set: bool
    is_set: bool


class PolicyVersionOut(Out):
    version: int
    differences: list[DifferenceOut]
    fields: dict[str, Any] | None = Field(description="What was set after it; null when that is not known.")
    by: str
    reason: str
    at: datetime


class PolicyVersionsOut(Out):
    versions: list[PolicyVersionOut] = Field(description="The newest first, at most 200.")
