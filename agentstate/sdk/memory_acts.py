"""What an agent's process asks of memory, and what it is answered: one class for each, the same for all three stores.

An act is named by its verb. A body that says neither `subject` nor `session` means the session of the run itself.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, Self

from agentstate.core.errors import Invalid, NotFound
from agentstate.sdk import wire

Role = Literal["user", "assistant", "system", "tool"]
Importance = Literal["decision", "commitment", "fact", "routine"]
ItemKind = Literal["semantic", "episodic", "procedural"]
UnitKind = Literal["message", "item"]
Strategy = Literal["window", "summary", "hierarchical", "importance"]
Change = Literal["add", "update", "supersede", "merge", "forget"]

# The sections of a progress document, in their order: name -> heading.
SECTIONS = {
    "goal": "Goal",
    "done": "Done",
    "blocked_by": "Blocked by",
    "next": "Next",
    "context": "Context",
    "do_not_repeat": "Do not repeat",
}


# --- what is asked


@dataclass(frozen=True, slots=True)
class OpenSession:
    """Open the session of this key, or find it; its subject is named by your own id, or by other names of theirs."""

    key: str = ""  # empty: the run's session
    subject: str = ""  # your own id, or ours ("subject_...")
    aliases: Mapping[str, str] = field(default_factory=dict)  # {"email": "ada@example.com"}
    name: str = ""
    title: str = ""


@dataclass(frozen=True, slots=True)
class Say:
    text: str
    role: Role
    session: str = ""
    author: str = ""
    importance: Importance = "routine"
    outcome: str = ""
    persistence: Literal["", "sync", "batched", "periodic"] = ""  # empty: as the agent's policy says


@dataclass(frozen=True, slots=True)
class Undo:
    """Take back the last `n` messages that stand."""

    n: int
    session: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class BuildContext:
    question: str = ""
    session: str = ""
    agent: str = ""  # whose policy and prompt; empty: the run's
    budget_tokens: int | None = None
    strategy: Strategy | None = None


@dataclass(frozen=True, slots=True)
class AskRecall:
    """`only_session`: nothing from the subject's other sessions, and no items."""

    question: str
    subject: str = ""
    session: str = ""
    k: int = 10
    kinds: Sequence[UnitKind] = ("message", "item")
    namespace: str = ""
    after: datetime | None = None
    before: datetime | None = None
    only_session: bool = False


@dataclass(frozen=True, slots=True)
class Remember:
    text: str
    subject: str = ""
    session: str = ""
    kind: ItemKind = "semantic"
    namespace: str = ""
    attribute: str = ""  # what it is about, as in "language": two active items of one attribute contradict
    fact_kind: str = ""
    facts: Mapping[str, Any] | None = None
    importance: float = 0.5  # 0 to 1
    pinned: bool = False
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    expires_at: datetime | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Forget:
    item: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Propose:
    """Suggest a change; a policy or a person decides it. All acts but "add" name the `item` they change."""

    text: str = ""
    act: Change = "add"
    item: str = ""
    subject: str = ""
    session: str = ""
    kind: ItemKind = "semantic"
    namespace: str = ""
    attribute: str = ""
    fact_kind: str = ""
    facts: Mapping[str, Any] | None = None
    importance: float = 0.5
    confidence: float = 0.5
    why: str = ""


@dataclass(frozen=True, slots=True)
class ReadProgress:
    key: str = ""  # empty: the run's session


@dataclass(frozen=True, slots=True)
class WriteProgress:
    """`expected_version` None: whatever stands there is replaced (and kept as a version)."""

    body: str = ""
    sections: Mapping[str, str] = field(default_factory=dict)  # instead of a body, by name: goal, done, blocked_by, ...
    key: str = ""
    expected_version: int | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ReadPrompt:
    name: str = "main"
    agent: str = ""  # empty: the run's


# --- what is answered


class Reply:
    """What an act is answered. Awaiting one gives itself.

    So one signature is typed for both worlds: `recall(...)` in synchronous code, and `await recall(...)` in async code,
    where the call is a coroutine for the same answer.
    """

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Self]:
        yield from ()
        return self


@dataclass(frozen=True, slots=True)
class SessionFacts(Reply):
    session_id: str
    key: str
    subject_id: str
    version: int  # grows with every undo
    status: str = "open"


@dataclass(frozen=True, slots=True)
class Said(Reply):
    """`durable` False: it waits in a buffer as its persistence says; `message_id` is kept, `seq` comes later."""

    message_id: str
    seq: int | None
    durable: bool = True


@dataclass(frozen=True, slots=True)
class Undone(Reply):
    session_id: str
    version: int
    count: int  # messages taken back


@dataclass(frozen=True, slots=True)
class Block:
    """One text of a context. `masked`: only its first line went in."""

    part: str  # pinned, summary, recalled, tail, prompt, progress
    source: str  # message, item, summary, prompt, progress
    source_id: str
    version: int
    text: str
    tokens: int
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    masked: bool = False


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What could have gone in and did not: one source, or `count` messages from `from_seq` to `to_seq`."""

    part: str
    source_id: str
    tokens: int
    why: str
    count: int = 1
    from_seq: int = 0
    to_seq: int = 0


@dataclass(frozen=True, slots=True)
class Context(Reply):
    """What memory puts before a question, inside its budget. `str(context)` is the text for the model."""

    text: str
    blocks: tuple[Block, ...]
    budget_tokens: int
    used_tokens: int
    left_out: tuple[LeftOut, ...] = ()
    question: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Hit:
    """A message or an item that recall found, word for word. `scores`: what each part of the score gave."""

    id: str
    kind: str
    text: str
    score: float
    scores: Mapping[str, float] = field(default_factory=dict)
    version: int = 1
    session_id: str = ""
    author: str = ""
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Recall(Reply):
    """`rung`: how recall worked: with everything, or with what was there (no model, no full text)."""

    hits: tuple[Hit, ...]
    rung: str = ""

    @property
    def texts(self) -> tuple[str, ...]:
        return tuple(hit.text for hit in self.hits)

    def __str__(self) -> str:
        return "\n".join(f"- {hit.text}" for hit in self.hits)


@dataclass(frozen=True, slots=True)
class Evicted:
    """An item that left recall because its subject's cap was reached."""

    item_id: str
    bytes: int


@dataclass(frozen=True, slots=True)
class Kept(Reply):
    """What became of a statement. `item_id` is empty when it was `refused`: then that says why."""

    item_id: str
    version: int
    change: str  # created, merged, duplicate, refused
    evicted: tuple[Evicted, ...] = ()
    refused: str = ""
    contradicts: tuple[str, ...] = ()  # items that say otherwise


@dataclass(frozen=True, slots=True)
class Forgotten(Reply):
    item_id: str
    status: str


@dataclass(frozen=True, slots=True)
class Proposed(Reply):
    """`outcome`: proposed; accepted (a policy did at once, `item_id` is what came of it); known; decided; refused."""

    proposal_id: str
    outcome: str
    item_id: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class Progress(Reply):
    """A progress document; version 0 and empty when nobody has written it yet."""

    key: str
    version: int = 0
    body: str = ""
    sections: Mapping[str, str] = field(default_factory=dict)  # by name: goal, done, blocked_by, ...; all six

    def __str__(self) -> str:
        return self.body


@dataclass(frozen=True, slots=True)
class Written(Reply):
    """A version of a progress document."""

    key: str
    version: int


@dataclass(frozen=True, slots=True)
class Prompt(Reply):
    """The procedural prompt of an agent; version 0 and empty when there is none."""

    name: str
    version: int = 0
    text: str = ""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Act:
    """`writes`: it is keyed, and done once however often it is asked for."""

    name: str  # in addresses
    step: str  # in traces
    body: type[Any]
    reply: type[Any]
    writes: bool


_ALL = (
    Act("session", "memory.session", OpenSession, SessionFacts, True),
    Act("say", "memory.say", Say, Said, True),
    Act("undo", "memory.undo", Undo, Undone, True),
    Act("context", "memory.context", BuildContext, Context, False),
    Act("recall", "memory.recall", AskRecall, Recall, False),
    Act("remember", "memory.remember", Remember, Kept, True),
    Act("forget", "memory.forget", Forget, Forgotten, True),
    Act("propose", "memory.propose", Propose, Proposed, True),
    Act("read-progress", "memory.progress.read", ReadProgress, Progress, False),
    Act("write-progress", "memory.progress.write", WriteProgress, Written, True),
    Act("prompt", "memory.prompt", ReadPrompt, Prompt, False),
)
ACTS = {act.name: act for act in _ALL}
STEPS = {act.step: act for act in _ALL}


def read(name: str, body: Any) -> tuple[Act, Any]:
    """The act of this name and its body, checked. Raises: NotFound, Invalid naming the field."""
    act = ACTS.get(name)
    if act is None:
        raise NotFound(f"Memory knows no act {name[:40]!r}; it is one of {', '.join(ACTS)}.")
    return act, wire.decode(act.body, body)


def check_step(act: Act, *, status: str | None, step_key: str, key: str) -> None:
    """An act belongs to a step under way, and a write goes under that step's own key. Raises: Invalid."""
    if status != "started":
        how = "is not there" if status is None else f"is {status}"
        raise Invalid(f"Begin a step of kind memory first: the one named {how}.", field="step_seq")
    if act.writes and (not key or key != step_key):
        raise Invalid(
            f"{act.step} writes: its step is begun as keyed, and the key it was given is sent along.",
            field="Idempotency-Key",
        )
