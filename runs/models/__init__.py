"""Tables of the runs tier, one module per group. Private to runs: other tiers go through services and selectors."""

from runs.models.approval import Approval, ApprovalVote
from runs.models.event import Event
from runs.models.registry import AgentVersion, Stop, Tool, Worker
from runs.models.run import AdmissionKey, Run, RunTag, StatusCount, StatusDelta
from runs.models.step import LateReply, Step, StepAttempt

__all__ = [
    "AdmissionKey",
    "AgentVersion",
    "Approval",
    "ApprovalVote",
    "Event",
    "LateReply",
    "Run",
    "RunTag",
    "StatusCount",
    "StatusDelta",
    "Step",
    "StepAttempt",
    "Stop",
    "Tool",
    "Worker",
]
