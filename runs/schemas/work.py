"""The calls of a worker, and of an agent that is a shell script, as the OpenAPI document shows them.

Claims, turns, steps and their ends are read by agentstate.sdk.wire; these classes describe them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import Field, create_model

from agentstate.core.limits import IDENTITY_CHARS_MAX, NAME_CHARS_MAX
from agentstate.http.schemas import Out, Strict
from agentstate.sdk import store
from runs.schemas.approvals import ApprovalOut
from runs.schemas.protocol import StepFinishIn, mirror
from runs.schemas.runs import FailureOut

_STEP = {
    name: (each.annotation, each)
    for name, each in mirror(store.StepStart).model_fields.items()
    if name not in ("identity", "name", "parent", "result")
}


class StepIn(create_model("_StepIn", __base__=Strict, **_STEP)):  # type: ignore[misc]
    """Begin one step, or ask how it stands. Its identity is parent, name, and key or ordinal."""

    name: str = Field(min_length=1, max_length=NAME_CHARS_MAX, examples=["refund"])
    key: str = Field("", max_length=200, description="Names this call among those of the same name.")
    ordinal: int = Field(1, ge=1, description="Without a key: the how-manieth call of this name, from 1.")
    parent: str = Field("", max_length=IDENTITY_CHARS_MAX, description="Identity of the enclosing step.")
    park: bool = Field(True, description="When the answer is wait or doubt: give the run back until it can go on.")


_FINISH = {name: (each.annotation, each) for name, each in StepFinishIn.model_fields.items() if name != "seq"}
FinishIn = create_model("FinishIn", __base__=Strict, **_FINISH)  # type: ignore[call-overload]


class CompleteIn(Strict):
    output: Any = None


class FailIn(Strict):
    type: str = Field("Failed", min_length=1, max_length=NAME_CHARS_MAX, examples=["MailboxFull"])
    message: str = Field("", max_length=4000)


class StatusOut(Out):
    run_id: str
    status: str
    control: Literal["pause", "cancel", "stop", "budget"] | None = None


class StepOut(Out):
    """One recorded step. `next` says what a waiting caller does now."""

    seq: int
    identity: str
    name: str
    kind: str
    effect: str
    status: str
    outcome: str
    attempt: int
    key: str
    source: str
    input: Any = None
    output: Any = None
    failure: FailureOut | None = None
    started_at: datetime
    ended_at: datetime | None
    due_at: datetime | None
    approval: ApprovalOut | None = Field(None, description="The newest question about this step.")
    next: Literal["wait", "begin"] = Field(
        description="wait: ask again. begin: claim the run and begin the step again; the answer says what to do."
    )
    corrupt: str = ""
