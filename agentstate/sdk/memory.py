"""`st.memory`: what outlives a run, for agents.

session = st.memory.session(subject="user:4411")
session.say("user", letter)
context = st.memory.context(question)          # what the model is given: read once, the same in every replay
st.memory.remember("Wants mail in German.")    # kept once, however often the step is tried

Each call is a recorded step. Reads are answered from their record in a replay, word for word, whatever has changed
meanwhile; writes are keyed. In async code every call is a coroutine for its result: `await st.memory.recall(...)`, and
`await session.say(...)`. Both are typed: an answer may be awaited, too.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agentstate.core import canonical
from agentstate.core.errors import DomainError
from agentstate.core.limits import RECEIPT_DAYS
from agentstate.sdk import context as running
from agentstate.sdk import driving, memory_acts, values, wire
from agentstate.sdk.memory_acts import (
    Act,
    AskRecall,
    Block,
    BuildContext,
    Change,
    Context,
    Evicted,
    Forget,
    Forgotten,
    Hit,
    Importance,
    ItemKind,
    Kept,
    LeftOut,
    OpenSession,
    Progress,
    Prompt,
    Propose,
    Proposed,
    ReadProgress,
    ReadPrompt,
    Recall,
    Remember,
    Role,
    Said,
    Say,
    SessionFacts,
    Strategy,
    Undo,
    Undone,
    UnitKind,
    WriteProgress,
    Written,
)
from agentstate.sdk.signals import Refused
from agentstate.sdk.steps import Call, Step
from agentstate.sdk.store import ToolSpec

__all__ = [
    "Block",
    "Context",
    "Evicted",
    "Forgotten",
    "Hit",
    "Kept",
    "LeftOut",
    "Progress",
    "Prompt",
    "Proposed",
    "Recall",
    "Said",
    "Session",
    "Undone",
    "Written",
    "context",
    "forget",
    "progress",
    "prompt",
    "propose",
    "recall",
    "remember",
    "session",
]

# A repeated write is answered by its receipt so long; after that nobody could tell whether it was done.
WINDOW_S = (RECEIPT_DAYS - 1) * 86_400.0


@dataclass(frozen=True, slots=True)
class Session(SessionFacts):
    """A conversation with a subject. Its version is that of the moment it was opened."""

    def say(
        self,
        role: Role,
        text: str,
        *,
        author: str = "",
        importance: Importance = "routine",
        outcome: str = "",
        persistence: Any = "",
    ) -> Said:
        """Append one message; it is written once, whatever crashes."""
        body = Say(text, role, self.key, author, importance, outcome, persistence)
        found: Said = _perform("say", body)
        return found

    def undo(self, n: int, *, reason: str = "") -> Undone:
        """Take back the last `n` messages: a new version of the session, in which they no longer stand."""
        found: Undone = _perform("undo", Undo(n, self.key, reason))
        return found

    def context(
        self, question: str = "", *, budget_tokens: int | None = None, agent: str = "", strategy: Strategy | None = None
    ) -> Context:
        """As `st.memory.context`, of this session."""
        found: Context = _perform("context", BuildContext(question, self.key, agent, budget_tokens, strategy))
        return found


def session(
    subject: str = "",
    *,
    aliases: Mapping[str, str] | None = None,
    key: str | None = None,
    name: str = "",
    title: str = "",
) -> Session:
    """Open a session with somebody, or find it. `subject` is your own id of them; `aliases`: {"email": "..."}.

    `key` None: the run's session, or one of its own when it has none. A subject that is not known yet is made.
    Raises: Refused when the key is another subject's, or the aliases are those of several.
    """
    body = OpenSession(key or "", subject, dict(aliases or {}), name, title)
    found: Session = _perform("session", body)
    return found


def context(
    question: str = "",
    *,
    budget_tokens: int | None = None,
    agent: str = "",
    session: Session | str = "",
    strategy: Strategy | None = None,
) -> Context:
    """What memory puts before the model: pinned items, summary, what recall found, the last messages, the prompt.

    Inside a token budget (the agent's policy, unless given), with an account of what was left out and why.
    """
    body = BuildContext(question, _key_of(session), agent, budget_tokens, strategy)
    found: Context = _perform("context", body)
    return found


def recall(
    question: str,
    *,
    k: int = 10,
    subject: str = "",
    session: Session | str = "",
    kinds: Sequence[UnitKind] = ("message", "item"),
    namespace: str = "",
    after: datetime | None = None,
    before: datetime | None = None,
    only_session: bool = False,
) -> Recall:
    """The `k` messages and items of a subject that answer the question best, best first.

    `subject` names somebody else than the run's session is about. `after`, `before`: when it was said or kept.
    """
    body = AskRecall(
        question, subject, _key_of(session), k, tuple(kinds), namespace, _aware(after), _aware(before), only_session
    )
    found: Recall = _perform("recall", body)
    return found


def remember(
    text: str,
    *,
    subject: str = "",
    session: Session | str = "",
    kind: ItemKind = "semantic",
    namespace: str = "",
    attribute: str = "",
    fact_kind: str = "",
    facts: Any = None,
    importance: float = 0.5,
    pinned: bool = False,
    valid_from: datetime | None = None,
    valid_to: datetime | None = None,
    expires_at: datetime | None = None,
    reason: str = "",
) -> Kept:
    """Keep one statement about a subject. Said again in other words it becomes a revision of what was kept before.

    `facts`: a mapping, a dataclass or a Pydantic model, of the shape that `fact_kind` names. `attribute`: what it is
    about; `importance`: 0 to 1.
    The answer says what had to leave because the subject's cap was reached, and why a statement was not taken.
    """
    body = Remember(
        text,
        subject,
        _key_of(session),
        kind,
        namespace,
        attribute,
        fact_kind,
        _facts(facts),
        importance,
        pinned,
        _aware(valid_from),
        _aware(valid_to),
        _aware(expires_at),
        reason,
    )
    found: Kept = _perform("remember", body)
    return found


def forget(item: Hit | Kept | Block | str, *, reason: str = "") -> Forgotten:
    """Take an item out of recall. Its revisions stay until retention or an erasure; a person can bring it back."""
    found: Forgotten = _perform("forget", Forget(_item_of(item), reason))
    return found


def propose(
    text: str = "",
    *,
    act: Change = "add",
    item: Hit | Kept | Block | str = "",
    subject: str = "",
    session: Session | str = "",
    kind: ItemKind = "semantic",
    namespace: str = "",
    attribute: str = "",
    fact_kind: str = "",
    facts: Any = None,
    importance: float = 0.5,
    confidence: float = 0.5,
    why: str = "",
) -> Proposed:
    """Suggest a change of memory; the agent's policy accepts it, or a person reviews it."""
    body = Propose(
        text,
        act,
        _item_of(item) if item else "",
        subject,
        _key_of(session),
        kind,
        namespace,
        attribute,
        fact_kind,
        _facts(facts),
        importance,
        confidence,
        why,
    )
    found: Proposed = _perform("propose", body)
    return found


def prompt(name: str = "main", *, agent: str = "") -> Prompt:
    """The procedural prompt in force: how this agent should work, as admins and agents have written it."""
    found: Prompt = _perform("prompt", ReadPrompt(name, agent))
    return found


class _ProgressDocuments:
    """`st.memory.progress`: what a task has come to. The next run of it reads this first."""

    def read(self, key: str = "") -> Progress:
        """The document of this session or task; of the run's session when no key is given."""
        found: Progress = _perform("read-progress", ReadProgress(key))
        return found

    def write(
        self,
        body: str | Mapping[str, str],
        *,
        key: str = "",
        expected_version: int | None = None,
        reason: str = "",
    ) -> Written:
        """Write a new version. `body`: Markdown with the six headings, or sections by name.

        Names are goal, done, blocked_by, next, context, do_not_repeat; what is left out is empty.

        With `expected_version` it is refused (Refused) when somebody else has written meanwhile.
        """
        sections = {} if isinstance(body, str) else dict(body)
        text = body if isinstance(body, str) else ""
        found: Written = _perform("write-progress", WriteProgress(text, sections, key, expected_version, reason))
        return found


progress = _ProgressDocuments()


# --- a call of memory is a step


def _perform(name: str, body: Any) -> Any:
    act = memory_acts.ACTS[name]
    frame = running.require(f"st.{act.step}")
    if frame.in_effect:
        raise TypeError(f"A tool with side effects is a leaf: no st.{act.step} inside it.")
    # In a step that is no coroutine nobody could await: there it blocks, as other steps do.
    awaited = driving.in_loop() and (frame.call is None or frame.call.step.is_async)
    step = _STEPS[name, awaited]
    raw = values.encode(wire.encode(body))
    identity = frame.executor.reserve(frame, step.name)
    payload = canonical.loads(raw)
    call = Call(step, identity, frame.scope, payload, canonical.sha(raw).hex(), {"body": payload})
    return frame.executor.perform(call)


def _ask(act: Act, body: dict[str, Any], key: str) -> Any:
    """In the body of the step. Raises: Refused for what a repeat would not mend; LeaseLost."""
    frame = running.require(f"st.{act.step}")
    assert frame.seq is not None, "only the body of a step asks memory"
    try:
        return frame.executor.turns.ask_memory(act.name, body, step_seq=frame.seq, key=key)
    except DomainError as error:
        if act.writes:
            raise Refused(f"{type(error).__name__}: {error}") from error
        raise


def _step_of(act: Act, *, awaited: bool) -> Step[Any, Any]:
    def ask(*, idempotency_key: str = "", **body: Any) -> Any:
        return _ask(act, body, idempotency_key)

    async def ask_beside(*, idempotency_key: str = "", **body: Any) -> Any:
        return await asyncio.to_thread(_ask, act, body, idempotency_key)

    fn = ask_beside if awaited else ask
    reply = Session if act.reply is SessionFacts else act.reply
    spec = ToolSpec(act.step, "keyed", window_s=WINDOW_S) if act.writes else None
    return Step(
        fn=fn,
        name=act.step,
        kind="memory",
        effect="keyed" if act.writes else "pure",
        tool=spec,
        signature=inspect.signature(fn),
        hints={"return": reply},
    )


_STEPS = {
    (name, awaited): _step_of(act, awaited=awaited)
    for name, act in memory_acts.ACTS.items()
    for awaited in (False, True)
}


def _key_of(session: Session | str) -> str:
    return session if isinstance(session, str) else session.key


def _item_of(item: Hit | Kept | Block | str) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, Hit):
        return item.id
    return item.item_id if isinstance(item, Kept) else item.source_id


def _facts(facts: Any) -> Mapping[str, Any] | None:
    plain = values.plain(facts, where="/facts")
    if plain is not None and not isinstance(plain, dict):
        raise TypeError(f"facts is a mapping, a dataclass or a model, not {type(facts).__name__}.")
    return plain


def _aware(at: datetime | None) -> datetime | None:
    if at is not None and at.tzinfo is None:
        raise ValueError("A time needs its time zone, as st.now() has it.")
    return at
