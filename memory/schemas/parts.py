"""What several schemas of memory are made of."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from agentstate.core.limits import PAGE_ROWS, PAGE_ROWS_MAX, REASON_CHARS_MAX
from agentstate.http.schemas import Strict

Kind = Literal["semantic", "episodic", "procedural"]
UnitKind = Literal["message", "item"]
SUBJECT = "Public id (`subject_…`), or your own id of the subject."


class CursorQuery(BaseModel):
    """Parameters of a list. A misspelt one is refused."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    cursor: str = Field("", max_length=1000, description="`next` of the page before.")


class SizedQuery(CursorQuery):
    limit: int = Field(PAGE_ROWS, ge=1, le=PAGE_ROWS_MAX, description="Rows of one page.")


class BecauseIn(Strict):
    reason: str = Field("", max_length=REASON_CHARS_MAX, description="Kept sealed, with who did it.")
