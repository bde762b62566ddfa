"""What runs inside an agent's process. Needs the standard library, orjson and, for the HTTP store, httpx.

Users write `import agentstate as st` and find these names there.
"""

from agentstate.sdk import memory
from agentstate.sdk.agents import Agent, Done, agent, continue_from
from agentstate.sdk.client import run
from agentstate.sdk.concurrency import gather
from agentstate.sdk.outcomes import Happened, NotHappened, Unknown
from agentstate.sdk.questions import ask
from agentstate.sdk.reads import Scratchpad, note, now, random, scratchpad, sleep, usage, uuid
from agentstate.sdk.run_state import State
from agentstate.sdk.signals import (
    Answered,
    Expired,
    NotApproved,
    NotSent,
    Refused,
    Rejected,
    RunInterrupted,
    StepFailed,
    TimedOut,
    Withdrawn,
)
from agentstate.sdk.steps import Step, step, tool
from agentstate.sdk.store import Budget
from agentstate.sdk.worker import worker

state = State()

__all__ = [
    "Agent",
    "Answered",
    "Budget",
    "Done",
    "Expired",
    "Happened",
    "NotApproved",
    "NotHappened",
    "NotSent",
    "Refused",
    "Rejected",
    "RunInterrupted",
    "Scratchpad",
    "State",
    "Step",
    "StepFailed",
    "TimedOut",
    "Unknown",
    "Withdrawn",
    "agent",
    "ask",
    "continue_from",
    "gather",
    "memory",
    "note",
    "now",
    "random",
    "run",
    "scratchpad",
    "sleep",
    "state",
    "step",
    "tool",
    "usage",
    "uuid",
    "worker",
]
