"""Agents, stops and events as the API gives them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from agentstate.core.limits import PAGE_ROWS, PAGE_ROWS_MAX
from agentstate.http.schemas import Out


class AgentOut(Out):
    name: str
    version: str
    mode: str
    description: str
    registered_at: datetime
    worker_seen_at: datetime | None = Field(description="When a worker for this agent was last heard of.")
    workers: int = Field(description="Workers for this agent now.")
    tools: int


class AgentPageOut(Out):
    agents: list[AgentOut]


class RegisteredOut(Out):
    name: str
    version: str


class StopOut(Out):
    agent: str = Field(description="Empty: all agents.")
    stopped: bool


class EventQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")

    after: int = Field(0, ge=0, le=2**31 - 1, description="Events with a greater number only.")
    limit: int = Field(PAGE_ROWS_MAX, ge=1, le=PAGE_ROWS_MAX, description=f"Rows of one page; pages show {PAGE_ROWS}.")


class EventOut(Out):
    seq: int
    kind: str = Field(description="turn, status, entry, takeover or compacted.")
    detail: dict[str, Any]
    entry: dict[str, Any] | None = Field(None, description="entry: the scratchpad entry.")
    tokens: int
    at: datetime


class EventPageOut(Out):
    events: list[EventOut]
    next: int = Field(description="Send it as `after` for what came later; the number of the last event you have.")
