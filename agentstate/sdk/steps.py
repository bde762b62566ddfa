"""`@st.step` and `@st.tool`: functions whose every call is recorded.

A step has no side effects outside the run: it may run again. A tool with an effect class other than pure or replayable
changes the world: the service decides whether it may be called, and it is a leaf (it calls no steps).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Literal, ParamSpec, TypeVar, cast, get_args, overload

from agentstate.core import canonical
from agentstate.sdk import context, schemas, values
from agentstate.sdk.durations import seconds
from agentstate.sdk.identity import Scope, check_name
from agentstate.sdk.store import EffectClass, Question, StepKind, ToolSpec

P = ParamSpec("P")
R = TypeVar("R")

KEY_ARGUMENT = "idempotency_key"
TOOL_TIMEOUT_S = 60.0
SETTLES_WITHIN_S = 60.0
_NO_EFFECT = ("pure", "replayable")


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a step: who, with what, under which name. Made before anything starts."""

    step: Step[Any, Any]
    identity: str
    scope: Scope
    payload: dict[str, Any]
    payload_sha: str  # hex
    arguments: Mapping[str, Any]  # as the agent gave them
    question: Question | None = None


@dataclass(frozen=True, slots=True)
class Step(Generic[P, R]):
    """A recorded function. Called in a run it is recorded; a step without side effects runs bare outside of one."""

    fn: Callable[P, R]
    name: str
    kind: StepKind = "step"
    effect: EffectClass = "pure"
    retries: int = 0
    timeout_s: float | None = None
    key: Callable[..., str] | str | None = None
    call_key: str = ""
    tool: ToolSpec | None = None
    probe: Callable[..., Any] | None = None
    title: Callable[..., str] | str | None = None
    reason: str = ""
    evidence: tuple[Any, ...] = ()
    expires_in_s: float | None = None
    signature: inspect.Signature = field(default_factory=inspect.Signature)
    hints: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        frame = context.current()
        if frame is None:
            return self._call_bare(*args, **kwargs)
        return cast(R, frame.executor.perform(self.prepare(frame, args, kwargs)))

    def keyed(self, call_key: str) -> Step[P, R]:
        """The same step named by a key of yours (a framework's tool-call id) instead of by its ordinal."""
        return replace(self, call_key=call_key)

    def because(self, reason: str, *, evidence: Sequence[Any] = ()) -> Step[P, R]:
        """The same tool with the agent's claim, and the steps it rests on, for the person who approves the call.

        `evidence`: steps or tools (their latest recorded call is meant) or seq numbers.
        """
        return replace(self, reason=reason, evidence=tuple(evidence))

    @property
    def has_effect(self) -> bool:
        return self.effect not in _NO_EFFECT

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.fn)

    @property
    def takes_key(self) -> bool:
        return KEY_ARGUMENT in self.signature.parameters

    def prepare(self, frame: context.Frame, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """Name the call and freeze its payload. Raises: Invalid for arguments without a JSON form, TypeError."""
        if frame.call is not None and frame.in_effect:
            raise TypeError(f"{frame.call.step.name} is a leaf: it cannot call {self.name}.")
        arguments = self._bind(args, kwargs)
        raw = values.encode(arguments)
        call_key = self.call_key or self._derive_key(arguments)
        identity = frame.executor.reserve(frame, self.name, key=call_key)
        payload = canonical.loads(raw)
        question = self._question(frame, payload, arguments)
        return Call(self, identity, frame.scope, payload, canonical.sha(raw).hex(), arguments, question)

    def invoke(self, arguments: Mapping[str, Any], *, key: str) -> Any:
        """Call the function itself: a value, or a coroutine for an async one."""
        bound = inspect.BoundArguments(self.signature, dict(arguments))
        if self.takes_key:
            bound.arguments[KEY_ARGUMENT] = key
        return self.fn(*bound.args, **bound.kwargs)

    def hydrated_arguments(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Arguments a person edited, as what the annotations name."""
        return {name: values.hydrate(self.hints.get(name, Any), value) for name, value in payload.items()}

    def hydrated_result(self, output: Any) -> Any:
        return values.hydrate(self.hints.get("return", Any), output)

    def _bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if KEY_ARGUMENT in kwargs:
            raise TypeError(f"{self.name}: {KEY_ARGUMENT} is filled in by the runtime, leave it out.")
        key = {KEY_ARGUMENT: ""} if self.takes_key else {}
        bound = self.signature.bind(*args, **kwargs, **key)
        bound.apply_defaults()
        return {name: value for name, value in bound.arguments.items() if name != KEY_ARGUMENT}

    def _derive_key(self, arguments: Mapping[str, Any]) -> str:
        return _rendered(self.key, arguments)

    def _question(self, frame: context.Frame, payload: Any, arguments: Mapping[str, Any]) -> Question | None:
        tool = self.tool
        if tool is None or tool.approve == "never":
            return None
        return Question(
            title=_rendered(self.title, arguments) or f"Call {self.name}?",
            tool=self.name,
            args=payload,
            schema=tool.schema,
            reason=self.reason,
            evidence=frame.executor.seqs_of(self.evidence),
            risk=tool.risk,
            use_within_s=tool.use_within_s,
            expires_in_s=self.expires_in_s,
        )

    def _call_bare(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self.has_effect:
            raise RuntimeError(
                f"{self.name} has side effects: call it in a run (agentstate.testing.run_agent drives one in this "
                f"process), or call {self.name}.fn(...) when you mean the bare function."
            )
        return self.fn(*args, **kwargs)


@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str = "",
    kind: StepKind = "step",
    retries: int = 0,
    timeout: str | float | None = None,
    key: Callable[..., str] | str | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Record each call of a function without side effects outside the run.

    `kind` "group" says that it only calls other steps. `retries` with growing pauses; `timeout` in seconds or "15m";
    `key`: a function of the arguments, or a format string, that names the call instead of its ordinal.
    """
    if fn is not None:
        return _make_step(fn, **options)
    return lambda found: _make_step(found, **options)


@overload
def tool(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def tool(
    *,
    effect: EffectClass = "destructive",
    name: str = "",
    window: str | float | None = None,
    probe: Callable[..., Any] | None = None,
    settles_within: str | float | None = None,
    approve: Literal["never", "always"] = "never",
    risk: Literal["low", "high"] | None = None,
    timeout: str | float = TOOL_TIMEOUT_S,
    retries: int = 0,
    lookup_url: str = "",
    note: str = "",
    schema: Mapping[str, Any] | None = None,
    title: Callable[..., str] | str | None = None,
    locked: Sequence[str] = (),
    use_within: str | float | None = None,
    expires_in: str | float | None = None,
    key: Callable[..., str] | str | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def tool(fn: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Record each call of a function that changes the world, and never repeat it when that could do harm.

    `effect`: destructive (default; never repeated by itself), keyed (the other side remembers the idempotency key for
    `window`), probed (`probe(key)` says Happened, NotHappened or Unknown; a NotHappened counts only `settles_within`
    after the call could have been sent), replayable, pure. The function may take `idempotency_key`. `approve`
    "always" asks a person first, who may edit all arguments but the `locked` ones. `title` is what the person
    reads: a function of the arguments, or a format string. `lookup_url` is where a person finds the call; "{key}" in it
    is replaced.
    """
    if fn is not None:
        return _make_tool(fn, **options)
    return lambda found: _make_tool(found, **options)


def _make_step(
    fn: Callable[..., Any],
    *,
    name: str = "",
    kind: StepKind = "step",
    retries: int = 0,
    timeout: str | float | None = None,
    key: Callable[..., str] | str | None = None,
) -> Step[Any, Any]:
    if kind not in get_args(StepKind):
        raise ValueError(f"kind is one of {', '.join(get_args(StepKind))}, not {kind!r}.")
    return Step(
        fn=fn,
        name=check_name(name or fn.__name__),
        kind=kind,
        retries=retries,
        timeout_s=seconds(timeout),
        key=key,
        signature=inspect.signature(fn),
        hints=schemas.hints_of(fn),
    )


def _make_tool(
    fn: Callable[..., Any],
    *,
    effect: EffectClass = "destructive",
    name: str = "",
    window: str | float | None = None,
    probe: Callable[..., Any] | None = None,
    settles_within: str | float | None = None,
    approve: Literal["never", "always"] = "never",
    risk: Literal["low", "high"] | None = None,
    timeout: str | float = TOOL_TIMEOUT_S,
    retries: int = 0,
    lookup_url: str = "",
    note: str = "",
    schema: Mapping[str, Any] | None = None,
    title: Callable[..., str] | str | None = None,
    locked: Sequence[str] = (),
    use_within: str | float | None = None,
    expires_in: str | float | None = None,
    key: Callable[..., str] | str | None = None,
) -> Step[Any, Any]:
    _check_effect(effect, window=window, probe=probe)
    base = _make_step(fn, name=name, kind="tool", retries=retries, timeout=timeout, key=key)
    _check_locked(base, locked)
    spec = ToolSpec(
        name=base.name,
        effect=effect,
        schema=schema or schemas.of_arguments(fn, locked=locked, hidden=(KEY_ARGUMENT,)),
        approve=approve,
        window_s=seconds(window),
        settles_within_s=seconds(settles_within) if settles_within is not None else _default_settling(probe),
        timeout_s=seconds(timeout),
        retries=retries,
        has_probe=probe is not None,
        lookup_url=lookup_url,
        note=note or inspect.getdoc(fn) or "",
        risk=risk or ("high" if effect == "destructive" else "low"),
        use_within_s=seconds(use_within),
    )
    return replace(base, effect=effect, tool=spec, probe=probe, title=title, expires_in_s=seconds(expires_in))


def _check_effect(effect: str, *, window: object, probe: object) -> None:
    if effect not in get_args(EffectClass):
        raise ValueError(f"effect is one of {', '.join(get_args(EffectClass))}, not {effect!r}.")
    if effect == "keyed" and window is None:
        raise ValueError('effect="keyed" needs window=, how long the other side remembers a key, e.g. "24h".')
    if effect == "probed" and probe is None:
        raise ValueError('effect="probed" needs probe=, a function of the key: Happened, NotHappened or Unknown.')


def _check_locked(base: Step[Any, Any], locked: Sequence[str]) -> None:
    unknown = [name for name in locked if name not in base.signature.parameters]
    if unknown:
        raise ValueError(f"{base.name} has no argument {unknown[0]!r} to lock.")


def _default_settling(probe: object) -> float | None:
    return SETTLES_WITHIN_S if probe is not None else None


def _rendered(template: Callable[..., str] | str | None, arguments: Mapping[str, Any]) -> str:
    if template is None:
        return ""
    return template.format(**arguments) if isinstance(template, str) else template(**arguments)
