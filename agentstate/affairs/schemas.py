"""Bodies of what spans tiers: erasures, and what came in by an import."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from agentstate.core.limits import PAGE_ROWS, PAGE_ROWS_MAX


class EraseIn(BaseModel):
    """A subject is erased by whoever can name it."""

    model_config = ConfigDict(extra="forbid")

    confirm: str = Field(
        description="The subject's name as it is shown, its external id, or its public id.", max_length=800
    )
    reason: str = Field(description="Why; kept sealed in the audit.", min_length=1, max_length=4000)


class RunConcernedOut(BaseModel):
    run_id: str
    agent: str
    status: str
    live: bool = Field(description="It would be cancelled, and waited for.")
    shared: bool = Field(description="It was given words of another subject, too: unreadable for both.")


class ErasePlanOut(BaseModel):
    """What an erasure would reach. Nothing was done."""

    subject_id: str
    rows: dict[str, int] = Field(description="By table.")
    runs: list[RunConcernedOut]
    stays: dict[str, str] = Field(description="What is kept, and why.")


class ErasureOut(BaseModel):
    """Where an erasure stands."""

    erasure_id: str
    subject_id: str
    status: str = Field(description="stopping, erasing, verified or failed.")
    rows_deleted: dict[str, int]
    keys_destroyed: int
    runs: int = Field(description="Made unreadable.")
    runs_stopped: int
    problem: str = Field(description="Where something was left; of a failed one.")
    started_at: datetime
    finished_at: datetime | None


class WaitOut(BaseModel):
    """A live run that was asked to end."""

    run_id: str
    agent: str
    until: datetime = Field(description="Then it is ended without its worker.")


class ReceiptOut(BaseModel):
    """The receipt, signed over its canonical JSON (keys sorted, no spaces)."""

    receipt: dict[str, Any]
    signature: dict[str, str]


class ErasureFullOut(ErasureOut):
    requested_by: str = Field(description="Who asked for it.")
    waits: list[WaitOut] = Field(description="Runs that it waits for.")
    receipt: ReceiptOut | None = Field(description="Null until everything was searched.")


class ErasureQuery(BaseModel):
    """Parameters of the list. A misspelt one is refused."""

    model_config = ConfigDict(extra="forbid")

    state: Literal["", "open", "failed", "verified"] = Field("", description="Left out: all.")
    cursor: str = Field("", max_length=1000, description="`next` of the page before.")
    limit: int = Field(PAGE_ROWS, ge=1, le=PAGE_ROWS_MAX, description="Rows of one page.")


class ErasurePageOut(BaseModel):
    erasures: list[ErasureOut] = Field(description="The newest first.")
    next: str = Field(description="Cursor of the next page; empty on the last.")


class ImportQuery(BaseModel):
    into: str = Field("", description="Public id of the subject to import into; else the one that the file names.")
    dry_run: bool = Field(False, description="Only report what would happen.")


class ImportOut(BaseModel):
    """What an import brought in, or would."""

    subject_id: str
    is_new: bool = Field(description="The subject was made by this import.")
    done: bool = Field(description="False for a dry run.")
    new: dict[str, int] = Field(description="Lines by type that became rows.")
    known: dict[str, int] = Field(description="Lines by type that were here already.")
    evicted: int = Field(description="Items that left recall because of the cap.")
    cap_bytes: int
    links_left_out: int = Field(description="Lines that named a run: such links do not travel.")
    conflicts: list[str] = Field(description="Why it cannot be imported; of a dry run.")
