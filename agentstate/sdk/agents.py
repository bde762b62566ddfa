"""`@st.agent`: a main function with a stable name that executes runs.

replay: main runs again after each interruption, finished steps answer from their record. snapshot: main(state) returns
the next state, or Done(result); nothing before a recorded state runs again.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from agentstate.core import canonical
from agentstate.sdk import code, schemas, values
from agentstate.sdk.identity import check_name
from agentstate.sdk.signals import ContinueFrom
from agentstate.sdk.steps import Step
from agentstate.sdk.store import AgentSpec, ToolSpec

Mode = Literal["replay", "snapshot"]


@dataclasses.dataclass(frozen=True, slots=True)
class Done:
    """What a snapshot agent returns instead of a next state: the run's result."""

    result: Any = None


@dataclasses.dataclass(frozen=True, slots=True)
class Agent:
    """A registered main. Calling it runs the bare function: inside another agent, or outside of any run."""

    fn: Callable[..., Any]
    name: str
    version: str = "1"
    mode: Mode = "replay"
    input_schema: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    state_model: Any = None
    on_code_change: Literal["pause", "continue"] = "pause"
    description: str = ""
    context_budget_tokens: int | None = None
    tools: Sequence[Step[Any, Any]] = ()  # beyond those its code names
    summarise: Callable[[str, int], Any] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.fn(*args, **kwargs)

    @property
    def is_async(self) -> bool:
        return inspect.iscoroutinefunction(self.fn)

    def spec(self) -> AgentSpec:
        """What the service is told: tools and code are found by reading what main refers to."""
        parts = code.parts_of(self.fn, also=self.tools)
        return AgentSpec(
            name=self.name,
            version=self.version,
            mode=self.mode,
            input_schema=self.input_schema,
            tools=_tool_specs(parts.steps),
            fingerprint=parts.fingerprint,
            on_code_change=self.on_code_change,
            description=self.description,
            context_budget_tokens=self.context_budget_tokens,
        )

    def start(self, input: Any) -> Any:
        """Call main of a replay agent with a run's input: its value, or a coroutine."""
        args, kwargs = self._arguments(input)
        return self.fn(*args, **kwargs)

    def turn(self, state: Any) -> Any:
        """Call main of a snapshot agent with a state: its value, or a coroutine."""
        return self.fn(self.hydrated_state(state))

    def hydrated_state(self, state: Any) -> Any:
        """Raises: what the model raises for a state that does not fit it."""
        return values.hydrate(self.state_model, state) if self.state_model is not None else state

    def _arguments(self, input: Any) -> tuple[list[Any], dict[str, Any]]:
        parameters = inspect.signature(self.fn).parameters
        hints = schemas.hints_of(self.fn)
        if not parameters:
            return [], {}
        if takes_whole_input(self.fn) or not _names_parameters(parameters, input):
            return [values.hydrate(hints.get(next(iter(parameters)), Any), input)], {}
        return [], {name: values.hydrate(hints.get(name, Any), value) for name, value in input.items()}


def agent(
    name: str,
    *,
    version: str = "1",
    mode: Mode = "replay",
    input_schema: Mapping[str, Any] | None = None,
    state_model: Any = None,
    on_code_change: Literal["pause", "continue"] = "pause",
    description: str = "",
    context_budget_tokens: int | None = None,
    tools: Sequence[Step[Any, Any]] = (),
    summarise: Callable[[str, int], Any] | None = None,
) -> Callable[[Callable[..., Any]], Agent]:
    """Name a main function so that it can execute runs.

    `on_code_change` "pause": a run that began under other code waits for a person before it goes on. `state_model`: a
    Pydantic model or dataclass of the state. The run's input fills main's parameters by name, or is handed over whole
    to a single parameter. `context_budget_tokens`: of the scratchpad, which is summarised at 70 % of it. `summarise`:
    the function that does it, given a text and the most tokens to answer with, sync or async; left out: extracts.
    """
    if mode not in get_args(Mode):
        raise ValueError(f"mode is replay or snapshot, not {mode!r}.")

    def make(fn: Callable[..., Any]) -> Agent:
        return Agent(
            fn=fn,
            name=check_name(name),
            version=version,
            mode=mode,
            input_schema=input_schema if input_schema is not None else _input_schema(fn),
            state_model=state_model or (_state_hint(fn) if mode == "snapshot" else None),
            on_code_change=on_code_change,
            description=description or inspect.getdoc(fn) or "",
            context_budget_tokens=context_budget_tokens,
            tools=tuple(tools),
            summarise=summarise,
        )

    return make


def continue_from(state: Any) -> None:
    """Close the generation: nothing before this state runs again; main starts anew and finds it in st.state."""
    plain = values.plain(state, where="/state")
    if not isinstance(plain, dict):
        raise TypeError(f"continue_from takes a mapping, it becomes st.state; not {type(state).__name__}.")
    canonical.dumps(plain, where="/state")
    raise ContinueFrom(plain)


def takes_whole_input(fn: Callable[..., Any]) -> bool:
    """One parameter that is itself an object: the input is handed over as it is."""
    parameters = inspect.signature(fn).parameters
    if len(parameters) != 1:
        return False
    hint = schemas.hints_of(fn).get(next(iter(parameters)))
    found = get_origin(hint) or hint
    return isinstance(found, type) and (
        issubclass(found, Mapping) or dataclasses.is_dataclass(found) or hasattr(found, "model_validate")
    )


def _names_parameters(parameters: Mapping[str, inspect.Parameter], input: Any) -> bool:
    if not isinstance(input, dict):
        if len(parameters) > 1:
            raise TypeError(f"The input must be an object with the fields {', '.join(parameters)}.")
        return False
    required = {name for name, parameter in parameters.items() if parameter.default is parameter.empty}
    fits = required <= set(input) <= set(parameters)
    if not fits and len(parameters) > 1:
        missing, extra = sorted(required - set(input)), sorted(set(input) - set(parameters))
        raise TypeError(f"The input does not fit main: missing {missing}, unknown {extra}.")
    return fits


def _input_schema(fn: Callable[..., Any]) -> dict[str, Any]:
    if takes_whole_input(fn):
        hints = schemas.hints_of(fn)
        return schemas.schema_of(hints[next(iter(inspect.signature(fn).parameters))])
    return schemas.of_arguments(fn)


def _state_hint(fn: Callable[..., Any]) -> Any:
    parameters = list(inspect.signature(fn).parameters)
    return schemas.hints_of(fn).get(parameters[0]) if parameters else None


def _tool_specs(steps: Sequence[Step[Any, Any]]) -> tuple[ToolSpec, ...]:
    return tuple(step.tool for step in sorted(steps, key=lambda step: step.name) if step.tool is not None)
