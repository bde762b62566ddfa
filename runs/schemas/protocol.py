"""The protocol's dataclasses as schemas for the OpenAPI document. They are derived, so the document cannot drift.

Values are read and checked by agentstate.sdk.wire, which both sides share; nothing is validated here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pydantic import Field as SchemaField
from pydantic import create_model

from agentstate.http.schemas import Out, Strict
from agentstate.sdk import memory_acts, store, wire

DESCRIPTIONS: dict[str, str] = {
    "AgentSpec.fingerprint": "Part of the agent's code -> digest of its syntax tree; a change pauses open runs.",
    "AgentSpec.mode": "replay: recorded results are the truth. snapshot: the state is, nothing before it runs again.",
    "AgentSpec.context_budget_tokens": "Tokens of a run's scratchpad, which is summarised at 70 % of it.",
    "ToolSpec.effect": "What may happen to a call whose outcome is not known.",
    "ToolSpec.window_s": "keyed: seconds for which the other side remembers an idempotency key.",
    "ToolSpec.settles_within_s": "probed: a negative probe counts only this many seconds after the call.",
    "ToolSpec.lookup_url": "Where a person looks a key up; `{key}` is replaced.",
    "ToolSpec.use_within_s": "Seconds for which an approval may be used after the decision.",
    "Budget.steps": "Most steps of the run.",
    "Budget.tokens": "Most tokens, in and out together.",
    "Budget.cost": "Most cost in US dollars.",
    "Budget.wall_s": "Most seconds since the run started.",
    "WorkerInfo.name": "Shown to people; any name.",
    "WorkerInfo.pid_start": "Clock ticks since boot, from /proc/<pid>/stat; with boot_id it names one process.",
    "Question.tool": "The tool to be called with `args`; empty for a free question.",
    "Question.schema": "JSON Schema of the arguments, or of the free answer.",
    "Question.evidence": "Numbers (seq) of the steps that the question rests on.",
    "Question.use_within_s": "Seconds for which an approval may be used after the decision.",
    "Question.expires_in_s": "Seconds after which nobody is asked any more.",
    "Usage.cost": "US dollars; 0 lets the service price the tokens.",
    "StepStart.identity": "Path `parent/name#ordinal` or `parent/name:call_key`, unique within the generation.",
    "StepStart.attempt": "The attempt meant; left out: whichever comes next.",
    "StepStart.question": "Set: a person decides before the step may run.",
    "StepStart.due_s": "Timers: seconds from now.",
    "StepStart.result": "Set: the step is over already (a recorded read); its seq is ignored.",
    "StepFinish.outcome": "unknown: the call may have happened; the step's effect class decides what follows.",
    "StepFinish.source": "probe: the outcome is a probe's answer (done = happened, failed = did not).",
    "StepFinish.retry_in_s": "not_sent, failed: the executor tries again after this many seconds.",
    "Entry.n": "Counts up from 1 per run; given by the executor, the only fenced writer.",
    "Entry.important": "Word for word in the window, whatever happens.",
    "Entry.identity": "Written by main: scope and number there, `gather#1.2#3`. A later claim's `noted` counts it.",
    "Entry.place": "summary: the entry in whose place it stands in the window.",
    "Entry.replaces": "summary: entries that leave the window; the trace keeps them.",
    "Entry.masks": "summary: entries of which one line stays in the window; the trace keeps them.",
    "Entry.masked": "The text is one line; the whole of it stands in the trace.",
    "Claim.entries": "The scratchpad's window: the entries in force, in their order.",
    "Claim.noted": "Scope of main -> how many entries it has written there, so that a replay writes none twice.",
    "Claim.context_budget_tokens": "Of the run, else its agent, else its model, else the default.",
    "End.steps": "Numbers (seq) of the failed steps it ended by, innermost first; a resume lets them be tried again.",
    "Park.due_s": "Seconds from now, for timers and back-off.",
    "Continue.state": "The state from which the next generation starts.",
    "ClaimRequest.agents": "The agents this worker can drive, by name; may be empty when the run is named.",
    "ClaimRequest.wait_s": "Seconds to wait for a run that is due, at most 25.",
    "ScratchpadRequest.durable": "Also write them into the trace now; else the next turn must carry them.",
    "Turn.state": "The agent's state as it is now. Left out: unchanged.",
    "Turn.then": "How the run goes on; left out: it runs.",
    "OpenSession.key": "Left out: the session of the run.",
    "OpenSession.aliases": "Other names of the subject, by kind: email, phone, handle, ...",
    "Say.persistence": "Left out: as the agent's policy says.",
    "Undo.n": "Messages to take back, from the end.",
    "BuildContext.budget_tokens": "Tokens of the whole context. Left out: as the agent's policy says.",
    "AskRecall.k": "Messages and items to recall.",
    "AskRecall.only_session": "Nothing from the subject's other sessions, and no items.",
    "Remember.importance": "0 to 1.",
    "Remember.attribute": "What it is about; two active items of one attribute contradict.",
    "Remember.fact_kind": "The shape of `facts`.",
    "Propose.item": "Public id of what it changes; every act but add names one.",
    "Propose.confidence": "0 to 1.",
    "ReadProgress.key": "A session's key, or the name of a task. Left out: the session of the run.",
    "WriteProgress.sections": "Instead of a body, by name: goal, done, blocked_by, next, context, do_not_repeat.",
    "WriteProgress.expected_version": "The version that was read, 0 for none. Left out: whatever stands is replaced.",
    "Begun.action": "execute: call now. replay: use `output`. wait: ask again later. doubt: a person settles it.",
    "Begun.key": "Idempotency key, 64 hex digits; send it with the call. Set for every effect.",
    "Begun.args": "execute after an approval: the arguments to use, maybe edited.",
    "Begun.call_for_s": "execute: the call must have been sent within this many seconds from asking.",
    "Begun.wait_s": "wait: ask again after this many seconds.",
    "TurnReply.control": "What a person asked for meanwhile; obey it at the next boundary.",
    "TurnReply.status": "Status of the run after the turn.",
    "Claim.fence": "Send it as `Run-Fence` with every further call.",
    "Claim.lease_s": "Length of the lease in seconds; count it from before you asked.",
    "Claim.history": "Recorded steps of the open generation.",
    "Renewal.lease_s": "Length of the lease in seconds; count it from before you asked.",
}


@cache
def mirror(cls: type[Any]) -> type[Strict]:
    """The schema of a protocol dataclass in a request: unknown members are refused."""
    found: type[Strict] = _made(cls, base=Strict, suffix="In")
    return found


@cache
def mirror_out(cls: type[Any]) -> type[Out]:
    """The schema of a protocol dataclass in a reply."""
    found: type[Out] = _made(cls, base=Out, suffix="Out")
    return found


def _made(cls: type[Any], *, base: type[Any], suffix: str) -> Any:
    hints: dict[str, Any] = get_type_hints(cls)
    members: dict[str, Any] = {
        _attribute(each.name): _member(cls, each, hints[each.name], suffix) for each in fields(cls)
    }
    made: Any = create_model(cls.__name__.removesuffix("Request") + suffix, __base__=base, **members)
    made.__doc__ = cls.__doc__ if not (cls.__doc__ or "").startswith(cls.__name__ + "(") else None
    return made


def _member(cls: type[Any], each: Field[Any], hint: Any, suffix: str) -> tuple[Any, Any]:
    described = DESCRIPTIONS.get(f"{cls.__name__}.{each.name}")
    alias = each.name if _attribute(each.name) != each.name else None
    if each.default is MISSING and each.default_factory is MISSING:
        return _kind(hint, suffix), SchemaField(alias=alias, description=described)
    default = each.default_factory() if each.default_factory is not MISSING else each.default
    plain = None if default is store.UNCHANGED else list(default) if isinstance(default, tuple) else default
    return _kind(hint, suffix), SchemaField(default=plain, alias=alias, description=described)


def _attribute(name: str) -> str:
    """`schema` is a method of every pydantic model."""
    return "schema_" if name == "schema" else name


def _kind(hint: Any, suffix: str) -> Any:
    arguments = get_args(hint)
    if is_dataclass(hint):
        derive: Callable[[Any], Any] = mirror if suffix == "In" else mirror_out
        return derive(hint)
    if get_origin(hint) is Literal or not arguments:
        return hint
    if get_origin(hint) is Sequence:
        return list[_kind(arguments[0], suffix)]  # type: ignore[misc]
    if get_origin(hint) is Mapping:
        return dict[str, _kind(arguments[1], suffix)]  # type: ignore[misc]
    assert get_origin(hint) in (Union, UnionType)
    choices = [each for each in arguments if each is not NoneType]
    return (_tagged(tuple(choices)) if len(choices) > 1 else _kind(choices[0], suffix)) | None


@cache
def _tagged(choices: tuple[Any, ...]) -> Any:
    members: dict[str, Any] = {each.__name__.lower(): (mirror(each) | None, None) for each in choices}
    made = create_model("ThenIn", __base__=Strict, **members)
    made.__doc__ = f"Exactly one member: {', '.join(members)}."
    return made


TurnIn = mirror(store.Turn)
TurnReplyOut = mirror_out(store.TurnReply)
BegunOut = mirror_out(store.Begun)
ClaimOut = mirror_out(store.Claim)
RenewalOut = mirror_out(store.Renewal)
AgentSpecIn = mirror(store.AgentSpec)
StepFinishIn = mirror(store.StepFinish)
ClaimIn = mirror(wire.ClaimRequest)
ScratchpadIn = mirror(wire.ScratchpadRequest)
MEMORY_BODIES: tuple[type[Strict], ...] = tuple(
    mirror(act.body)  # type: ignore[arg-type]
    for act in memory_acts.ACTS.values()
)
