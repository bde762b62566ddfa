"""Runs as the API takes and gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentstate.core.limits import (
    CONTEXT_BUDGET_TOKENS_MAX,
    EXTERNAL_ID_CHARS_MAX,
    NAME_CHARS_MAX,
    PAGE_ROWS,
    PAGE_ROWS_MAX,
    REASON_CHARS_MAX,
    TAG_CHARS_MAX,
    TAGS_MAX,
)
from agentstate.http.schemas import Out, Strict, one_of
from runs.states import RunStatus

Status = Literal["", "queued", "running", "waiting", "paused", "in_doubt", "failed", "succeeded", "cancelled"]


class BudgetIn(Strict):
    """Caps of one run; left out is no cap. Over any of them the run waits for a person."""

    steps: int | None = Field(None, ge=1, le=2**31 - 1, description="Most steps.", examples=[500])
    tokens: int | None = Field(None, ge=1, description="Most tokens, in and out together.", examples=[200_000])
    cost: float | None = Field(None, gt=0, description="Most cost in US dollars.", examples=[2.5])
    wall_s: float | None = Field(None, gt=0, description="Most seconds since the run started.", examples=[3600])


class RunIn(Strict):
    agent: str = Field(min_length=1, max_length=NAME_CHARS_MAX, description="Name of the agent.", examples=["cleaner"])
    input: Any = Field(None, description="What the agent is given; checked against its input schema when it has one.")
    external_id: str = Field(
        "", max_length=EXTERNAL_ID_CHARS_MAX, description="Your own id: the same one is the same run.", examples=["t-7"]
    )
    session: str = Field("", max_length=NAME_CHARS_MAX, description="One live run per session.", examples=["user-91"])
    session_policy: Literal["reject", "queue", "replace"] = Field(
        "reject", description="What happens while the session has a live run."
    )
    tags: list[str] = Field(
        [], max_length=TAGS_MAX, description=f"At most {TAG_CHARS_MAX} characters each.", examples=[["nightly"]]
    )
    budget: BudgetIn | None = None
    context_budget_tokens: int | None = Field(
        None,
        ge=1,
        le=CONTEXT_BUDGET_TOKENS_MAX,
        description="Tokens of its scratchpad, which is summarised at 70 %. Left out: the agent's, else its model's.",
        examples=[16_000],
    )
    trace_id: str = Field("", description="32 hex digits; left out: taken from `traceparent`.")


class RunQuery(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    state: Status = Field("", description="Only runs of this status.")
    agent: str = Field("", max_length=NAME_CHARS_MAX)
    tag: str = Field("", max_length=TAG_CHARS_MAX)
    external_id: str = Field("", max_length=EXTERNAL_ID_CHARS_MAX)
    since: datetime | None = Field(None, alias="from", description="Created at or after this time.")
    until: datetime | None = Field(None, alias="to", description="Created before this time.")
    cursor: str = Field("", max_length=1000, description="`next` of the page before.")
    limit: int = Field(PAGE_ROWS, ge=1, le=PAGE_ROWS_MAX, description="Rows of one page.")


class RunOut(Out):
    """One run as lists show it."""

    run_id: str
    agent: str
    status: str = one_of(RunStatus)
    waiting_for: str = Field(description="approval, timer, retry, probe, in_doubt, budget or code; empty: nothing.")
    control: str = Field(description="Asked for and not yet obeyed: pause or cancel.")
    external_id: str
    tags: list[str]
    error_type: str
    steps: int
    tokens: int
    cost: float = Field(description="US dollars.")
    created_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    due_at: datetime | None


class FailureOut(Out):
    type: str
    message: str
    retryable: bool = False


class RunFullOut(RunOut):
    created: bool = Field(default=False, description="POST: false when the run was there already.")
    session: str = ""
    trace_id: str = ""
    attempt: int = 0
    generation: int = 0
    fence: int = 0
    worker: str = ""
    lease_until: datetime | None = None
    input: Any = None
    output: Any = None
    failure: FailureOut | None = None


class RunPageOut(Out):
    runs: list[RunOut]
    next: str = Field(description="Cursor of the next page; empty on the last.")


class RunInfoOut(Out):
    """What POST /runs answers."""

    run_id: str
    agent: str
    status: str = one_of(RunStatus)
    created: bool
    output: Any = None
    failure: FailureOut | None = None
    waiting_for: str = ""
    external_id: str = ""


class ReasonIn(Strict):
    reason: str = Field("", max_length=REASON_CHARS_MAX, description="Kept sealed in the audit trail.")


class StopIn(ReasonIn):
    agent: str = Field("", max_length=NAME_CHARS_MAX, description="The agent to stop; empty: all agents.")


class ControlOut(Out):
    run_id: str
    status: str = one_of(RunStatus)
    control: str = Field(description="pause or cancel while the worker has not stopped yet; else empty.")
