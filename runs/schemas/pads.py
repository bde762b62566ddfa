"""The scratchpad of a run as the API gives it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from agentstate.http.schemas import Out
from agentstate.sdk.store import EntryKind


class PadEntryOut(Out):
    n: int
    kind: EntryKind
    text: str = Field(description="masked: one line about it.")
    at: datetime | None
    important: bool = Field(description="Word for word in the window, whatever happens.")
    step_seq: int | None = None
    tokens: int = Field(description="Counted offline, erring upwards.")
    masked: bool = False
    replaces: list[int] = Field([], description="summary: the entries it stands for.")


class PadSummaryOut(Out):
    """One recorded summary."""

    step: int
    at: datetime
    entry: int
    method: str = Field(description="extract or model.")
    why: str = Field(description="Why a model's summary was not used, or was shortened; else empty.")
    replaced: list[int]
    masked: list[int]
    tokens_before: int
    tokens_after: int
    model: str
    cost: float = Field(description="US dollars.")


class PadAccountOut(Out):
    times: int
    entries_replaced: int
    summaries: int
    results_masked: int
    tokens_noted: int = Field(description="tokens, and what masks and summaries freed.")
    tokens: int
    whole: bool = Field(description="false: earlier summaries are not counted here.")
    steps: list[PadSummaryOut] = Field(description="Newest first.")


class PadOut(Out):
    live: bool = Field(description="false: as of the newest checkpoint.")
    budget_tokens: int
    budget_from: Literal["run", "agent", "model", "default"]
    tokens: int
    share: float = Field(description="Of the budget, or of the scratchpad's own bounds; summarised at 0.7.")
    important_over_budget: bool = Field(description="The important entries alone are over the budget.")
    entries: list[PadEntryOut] = Field(description="Those in force, in their order.")
    account: PadAccountOut
