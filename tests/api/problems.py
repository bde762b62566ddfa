"""What every refusal must look like."""

from __future__ import annotations

from typing import Any

import httpx


def refused(answer: httpx.Response, status: int, code: str, field: str = "") -> dict[str, Any]:
    """The problem of a refusal, checked for its form."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["code"] == code, problem
    assert problem.get("field", "") == field, problem
    assert {"type", "title", "detail", "request_id"} <= problem.keys()
    return problem
