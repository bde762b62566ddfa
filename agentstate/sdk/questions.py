"""`st.ask`: a free question to a person. The run waits, for days if need be, and goes on with the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from agentstate.core import canonical
from agentstate.sdk import context, schemas, values
from agentstate.sdk.durations import seconds
from agentstate.sdk.steps import Call, Step
from agentstate.sdk.store import Question


def ask(
    question: str,
    *,
    schema: Any = str,
    reason: str = "",
    evidence: Sequence[Any] = (),
    risk: Literal["low", "high"] = "low",
    expires_in: str | float | None = None,
    key: str = "",
) -> Any:
    """The person's answer. In async code: `await st.ask(...)`.

    `schema`: a type, a dataclass, a Pydantic model, or a JSON Schema.

    Raises: Rejected (the person declined to answer), Expired, Withdrawn.
    """
    frame = context.require("st.ask")
    found = schemas.schema_of(schema)
    asked = Question(
        title=question,
        schema=found,
        reason=reason,
        evidence=frame.executor.seqs_of(evidence),
        risk=risk,
        expires_in_s=seconds(expires_in),
    )
    step = Step(fn=_ask, name="ask", kind="ask", hints={"return": _hint(schema)})
    call = call_of(frame, step, payload={"question": question, "schema": found}, key=key, question=asked)
    return frame.executor.perform(call, in_loop=_in_loop())


def call_of(
    frame: context.Frame,
    step: Step[Any, Any],
    *,
    payload: dict[str, Any],
    key: str = "",
    question: Question | None = None,
) -> Call:
    """A call of a step that has no function: a question or a timer."""
    if frame.in_effect:
        raise TypeError(f"A tool with side effects is a leaf: no st.{step.name} inside it.")
    raw = values.encode(payload)
    identity = frame.executor.reserve(frame, step.name, key=key)
    return Call(step, identity, frame.scope, canonical.loads(raw), canonical.sha(raw).hex(), payload, question)


def _hint(schema: Any) -> Any:
    return Any if isinstance(schema, dict) else schema


def _in_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _ask() -> None:
    raise AssertionError("a question is answered, never called")
