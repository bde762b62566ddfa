"""The base of every schema: what is not declared is refused, so that a misspelt field is never silently dropped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


def one_of(choices: Iterable[str], description: str = "") -> Any:
    """A member of a reply that is one of these words; the OpenAPI document lists them."""
    return Field(description=description or None, json_schema_extra={"enum": [str(choice) for choice in choices]})


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, str_strip_whitespace=False)


class Out(BaseModel):
    """A reply: fields are only ever added."""

    model_config = ConfigDict(from_attributes=True)


class Problem(Out):
    """RFC 9457. Further members say more: who was first, what the status is by now, when to try again."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    code: str
    field: str = ""
    trace_id: str = ""
    request_id: str = ""
