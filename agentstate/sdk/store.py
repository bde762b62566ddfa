"""The seam between an agent's process and the service: one protocol, three stores.

Everything an executor tells the service is a `Turn`: which steps ended, which begin, and how the run goes on.
A turn is atomic and fenced; sending it twice gives the same answer. The service, not the executor, judges
whether a step may be called, so a curl-only agent is as safe as one that uses this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Protocol, TypeVar, dataclass_transform

from agentstate.core.limits import CONTEXT_BUDGET_TOKENS

# What json.loads gives. Recursive aliases stop mypy from telling anything useful at the border, so: Any, here only.
type_json = Any

EffectClass = Literal["pure", "replayable", "keyed", "probed", "destructive"]
StepKind = Literal["step", "tool", "model", "ask", "timer", "value", "group", "summary", "memory"]
EntryKind = Literal["note", "tool", "result", "reasoning", "model", "summary"]
Action = Literal["execute", "replay", "wait", "rejected", "skip", "failed", "probe", "doubt"]
Outcome = Literal["done", "not_sent", "refused", "failed", "unknown"]
Control = Literal["pause", "cancel", "stop", "budget"]


AnyClass = TypeVar("AnyClass")


@dataclass_transform(frozen_default=True)
def light(cls: type[AnyClass]) -> type[AnyClass]:
    """A dataclass that is frozen to the type checker only: frozen at run time it takes six times as long to make.

    For what every step makes anew.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What the author declared about a tool; the dashboard shows it and the service enforces it."""

    name: str
    effect: EffectClass
    schema: Mapping[str, Any] = field(default_factory=dict)  # JSON Schema of the arguments
    approve: Literal["never", "always"] = "never"
    window_s: float | None = None  # keyed: how long downstream remembers a key
    settles_within_s: float | None = None  # probed: a negative probe counts only after this long
    timeout_s: float = 60.0
    retries: int = 0
    has_probe: bool = False
    lookup_url: str = ""  # where a person looks the key up; "{key}" is replaced
    note: str = ""
    risk: Literal["low", "high"] = "low"
    use_within_s: float | None = None  # an approval may be used this long after the decision


@dataclass(frozen=True, slots=True)
class AgentSpec:
    name: str
    version: str
    mode: Literal["replay", "snapshot"] = "replay"
    input_schema: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[ToolSpec] = ()
    fingerprint: Mapping[str, str] = field(default_factory=dict)  # part of the code -> digest of its syntax tree
    on_code_change: Literal["pause", "continue"] = "pause"
    description: str = ""
    context_budget_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """Caps of one run; None is no cap. Over any of them the run waits for a person."""

    steps: int | None = None
    tokens: int | None = None
    cost: float | None = None  # in the currency of the price list, US dollars
    wall_s: float | None = None


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    name: str
    host: str = ""
    pid: int = 0
    boot_id: str = ""
    pid_start: int = 0  # clock ticks since boot, from /proc/<pid>/stat; with boot_id it names one process for ever


@dataclass(frozen=True, slots=True)
class Question:
    """What a person is asked: a tool call to approve (tool set) or a free question (tool empty)."""

    title: str
    tool: str = ""
    args: type_json = None
    schema: Mapping[str, Any] = field(default_factory=dict)  # of the arguments, or of the free answer
    reason: str = ""  # the agent's claim, shown fenced
    evidence: Sequence[int] = ()  # seq of the steps it rests on
    risk: Literal["low", "high"] = "low"
    use_within_s: float | None = None
    expires_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    model: str = ""
    tokens_in: int = 0
    tokens_out: int = 0
    cost: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a step or a run failed: the exception's class name and text, never a traceback with values."""

    type: str
    message: str
    retryable: bool = False


@light
class StepStart:
    """Begin the step with this identity, or ask how an already recorded one stands.

    `identity` is the path "parent/name#ordinal" or "parent/name:call_key" (at most 1,000 characters), unique
    within the generation. `attempt` None: "whatever comes next" (an agent that keeps no history); else the
    number this caller means to begin, so that a repeated request is told from a second attempt.
    """

    identity: str
    name: str
    kind: StepKind = "step"
    effect: EffectClass = "pure"
    payload: type_json = None
    parent: str = ""  # identity of the enclosing step
    attempt: int | None = None
    timeout_s: float | None = None
    window_s: float | None = None
    settles_within_s: float | None = None
    has_probe: bool = False
    question: Question | None = None  # set: a person decides before it may run
    due_s: float | None = None  # timers: seconds from now
    result: StepFinish | None = None  # set: already over (recorded reads); seq in it is ignored


@light
class StepFinish:
    """The end of one attempt.

    done: output counts. not_sent: nothing left this process (may be retried, new key). refused: downstream said a
    definite no. failed: a step without side effects raised. unknown: the call may have happened; its class decides.
    source "probe" settles a step from a probe's answer (done = Happened, failed = NotHappened, unknown = Unknown).
    """

    seq: int
    outcome: Outcome = "done"
    output: type_json = None
    failure: Failure | None = None
    usage: Usage | None = None
    source: Literal["worker", "probe"] = "worker"
    retry_in_s: float | None = None  # not_sent / failed: the executor will try again after this long


@dataclass(frozen=True, slots=True)
class Entry:
    """One scratchpad entry. `n` counts up from 1 per run and is given by the executor, the only fenced writer.

    A summary is an entry that changes the window: the entries it replaces leave it, of those it masks one line stays.
    """

    n: int
    kind: EntryKind
    text: str
    at: datetime | None = None
    important: bool = False  # word for word in the window, whatever happens
    step_seq: int | None = None
    tokens: int = 0  # filled in by the service when 0
    identity: str = ""  # written by main: its scope and its number there, "gather#1.2#3"; main runs again, it does not
    place: int = 0  # of a summary: where it stands in the window, as the number of an entry; 0: its own
    replaces: Sequence[int] = ()
    masks: Sequence[int] = ()
    masked: bool = False  # the text is one line, the whole of it stands in the trace


@dataclass(frozen=True, slots=True)
class Park:
    """Stop here; the run goes on when what it waits for has come. `due_s`: a timer or a retry's back-off."""

    why: Literal["approval", "timer", "retry", "probe", "in_doubt", "budget", "pause", "stop", "shutdown", "code"]
    due_s: float | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class End:
    outcome: Literal["succeeded", "failed", "cancelled"]
    output: type_json = None
    failure: Failure | None = None
    steps: Sequence[
        int
    ] = ()  # failed by these steps (seq), innermost first: a person's resume lets them be tried again


@dataclass(frozen=True, slots=True)
class Continue:
    """Close the generation: nothing before this state runs again."""

    state: type_json


UNCHANGED: Any = object()


@light
class Turn:
    finish: Sequence[StepFinish] = ()
    start: Sequence[StepStart] = ()
    entries: Sequence[Entry] = ()
    state: type_json = UNCHANGED  # st.state as it is now
    then: Park | End | Continue | None = None


@light
class Begun:
    """The service's answer to one StepStart."""

    action: Action
    seq: int
    attempt: int = 1
    key: str = ""  # idempotency key, 64 hex digits; set for every effect
    args: type_json = None  # execute after an approval: the arguments to use (maybe edited)
    edited: bool = False
    output: type_json = None  # replay
    failure: Failure | None = None  # failed
    message: str = ""  # rejected: the person's reason
    decision: str = ""  # rejected | expired | withdrawn
    approval_id: str = ""  # wait
    call_for_s: float = 0.0  # execute: the call must have been sent within this many seconds from asking
    wait_s: float | None = None  # wait on a timer, or probe not yet conclusive: ask again after this long


@light
class TurnReply:
    begun: Sequence[Begun] = ()
    control: Control | None = None  # what a person asked for meanwhile; the executor obeys at the next boundary
    status: str = "running"  # of the run after the turn


@dataclass(frozen=True, slots=True)
class StepRecord:
    """A recorded step of the open generation, as loaded at a claim."""

    seq: int
    identity: str
    name: str
    kind: StepKind
    effect: EffectClass
    status: str  # waiting started done failed in_doubt rejected skipped
    payload_sha: str  # SHA-256 hex of the canonical payload
    output: type_json = None
    failure: Failure | None = None
    attempt: int = 1
    retry: int = 0  # how many attempts before this one ended as failed
    decision: str = ""  # rejected | expired | withdrawn | responded
    message: str = ""  # the person's reason, or the reply given instead of the call


@dataclass(frozen=True, slots=True)
class Claim:
    run_id: str  # public id, "run_..."
    agent: str
    fence: int
    lease_s: float  # length; the executor counts trust from before it asked, by its own monotonic clock
    mode: Literal["replay", "snapshot"] = "replay"
    input: type_json = None
    state: type_json = None  # newest checkpoint's agent state
    base_state: type_json = None  # state at the start of the open generation
    generation: int = 0
    history: Sequence[StepRecord] = ()
    entries: Sequence[Entry] = ()  # scratchpad window
    entry_next: int = 1
    noted: Mapping[str, int] = field(default_factory=dict)  # scope -> entries that main has written there
    context_budget_tokens: int = CONTEXT_BUDGET_TOKENS
    trace_id: str = ""
    session: str = ""
    attempt: int = 1
    reason: str = "start"
    control: Control | None = None


@dataclass(frozen=True, slots=True)
class Renewal:
    lease_s: float
    control: Control | None = None


@dataclass(frozen=True, slots=True)
class RunInfo:
    run_id: str
    agent: str
    status: str
    created: bool = False  # admit: False when the same external_id or Idempotency-Key had a run already
    output: type_json = None
    failure: Failure | None = None
    waiting_for: str = ""
    external_id: str = ""


class RunStore(Protocol):
    """Errors are agentstate.core.errors: Fenced, NonDeterminism, NotFound, Conflict, Invalid, TooLarge, Unavailable."""

    def register(self, agent: AgentSpec) -> None:
        """Tell the service about an agent and its tools. Idempotent by (name, fingerprint)."""

    def admit(
        self,
        agent: str,
        input: type_json,
        *,
        external_id: str = "",
        session: str = "",
        session_policy: Literal["reject", "queue", "replace"] = "reject",
        tags: Sequence[str] = (),
        budget: Budget | None = None,
        context_budget_tokens: int | None = None,
        idempotency_key: str = "",
        trace_id: str = "",
    ) -> RunInfo:
        """Durable before it returns. Idempotent: the same external_id is the same run."""

    def get(self, run_id: str) -> RunInfo: ...

    def claim(
        self, worker: WorkerInfo, *, agents: Mapping[str, AgentSpec], run_id: str = "", wait_s: float = 0.0
    ) -> Claim | None:
        """Take the lease of one run: of `run_id`, or of the oldest due one of these agents. None after wait_s.

        Steps whose failure a person took back by resuming the run are left out of the history: they are begun anew.
        """

    def renew(self, claim: Claim) -> Renewal:
        """Heartbeat. Raises: Fenced when somebody else has the run or the lease has ended."""

    def turn(self, claim: Claim, turn: Turn) -> TurnReply:
        """One at a time per claim, from changing threads; renew and note come beside it. Renews the lease.

        `begun` answers `start` in order. While the reply has a `control` it may answer the recorded reads only: the
        rest was not begun. Ended steps, entries and state are taken in any case.
        Raises: Fenced (stop at once, nothing was written), NonDeterminism, Invalid, TooLarge.
        """

    def note(self, claim: Claim, entries: Sequence[Entry]) -> None:
        """Show entries in the live scratchpad at once; the next turn makes them durable."""

    def memory(self, claim: Claim, act: str, body: type_json, *, step_seq: int, key: str) -> type_json:
        """Read or write memory for the step that asks; acts, bodies and replies stand in memory_acts.

        A write carries the step's idempotency key and is done once: asked again it gives the same answer.
        Raises: Fenced (nothing was written), NotFound, Invalid, TooLarge, Conflict.
        """

    def late(self, claim: Claim, finish: StepFinish) -> None:
        """Keep the reply of a worker that lost its lease as evidence. Never touches the step."""
