"""A model that summarises the scratchpad: one recorded step around its call, with a way out when it fails.

The agent's function gets the text and the most tokens it may answer with. It is a leaf: it calls no steps. Whatever it
does wrong (it raises, answers nothing, or more than it was given) the window is summarised by extracts, and the step
says why.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from agentstate.core import tokens
from agentstate.core.errors import DomainError
from agentstate.core.limits import SUMMARISE_S_MAX
from agentstate.sdk import context, summaries
from agentstate.sdk.flights import Flight
from agentstate.sdk.identity import Scope
from agentstate.sdk.run_state import View
from agentstate.sdk.signals import LeaseLost
from agentstate.sdk.steps import Call, Step
from agentstate.sdk.store import StepFinish, StepStart
from agentstate.sdk.summaries import Plan
from agentstate.sdk.window import SUMMARISE

if TYPE_CHECKING:
    from agentstate.sdk.executor import Executor

Summarise = Callable[[str, int], Any]  # (text, tokens at most) -> summary, or a coroutine for it
WHY_CHARS_MAX = 300


def ask(executor: Executor, summarise: Summarise | None) -> None:
    """Summarise by the model, in a step of its own. Blocks. Raises: RunInterrupted."""
    plan, number = executor.notebook.plan()
    lost = executor.book.open_summary()
    if lost is None and (summarise is None or not plan.replaces):  # masks need no model
        executor.notebook.shorten()
        return
    identity = lost.identity if lost else f"{SUMMARISE}:{number}.model"
    attempt = lost.attempt + 1 if lost else 1
    start = StepStart(identity, SUMMARISE, "summary", attempt=attempt, timeout_s=SUMMARISE_S_MAX)
    try:
        ticket = executor.turns.begin(start)
    except DomainError as error:
        executor.notebook.shorten(why=_words(error))
        return
    if ticket.begun is None:  # somebody stopped the run; the next boundary obeys
        return
    if ticket.begun.action != "execute":
        executor.notebook.shorten(why=f"the service answered {ticket.begun.action}")
        return
    executor.book.close_summary()
    if summarise is None or not plan.replaces:
        executor.notebook.finish(ticket.begun.seq, plan, None)
    else:
        _call(executor, summarise, plan, seq=ticket.begun.seq, identity=identity)
    executor.turns.flush()


def _call(executor: Executor, summarise: Summarise, plan: Plan, *, seq: int, identity: str) -> None:
    outer = context.current()
    if outer is not None and outer.flight is not None:
        outer.flight.waits_below = True
    step: Step[Any, Any] = Step(fn=summarise, name=SUMMARISE, kind="summary")
    scope = Scope(identity, parent=identity)
    call = Call(step, identity, scope, {}, "", {})
    frame = context.Frame(executor, scope, View(executor.committed, writable=False), call, seq, is_leaf=True)
    late = StepFinish(seq, output={"method": "none", "why": f"the model took longer than {SUMMARISE_S_MAX} s"})
    ends_at = executor.monotonic() + SUMMARISE_S_MAX
    flight = executor.flights.enter(Flight(SUMMARISE, lambda: late, ends_at))
    executor.heartbeat.look_by(ends_at)
    token = context.swap(frame)
    text: str | None
    try:
        text, why = _checked(_answer(summarise, plan), plan)
    except Exception as error:  # the agent's own code, or a model that is away
        text, why = None, _words(error)
    finally:
        context.restore(token)
        ended_by_itself = executor.flights.leave(flight)
    if not ended_by_itself:
        raise LeaseLost("the summariser took too long and was given up")
    executor.notebook.finish(seq, plan, text, why=why, usage=frame.charged())


def _answer(summarise: Summarise, plan: Plan) -> Any:
    answer = summarise(plan.source, plan.summary_tokens_max)
    if not inspect.iscoroutine(answer):
        return answer
    with ThreadPoolExecutor(1) as thread:  # this one may have an event loop that is running
        return thread.submit(contextvars.copy_context().run, asyncio.run, answer).result()


def _checked(answer: Any, plan: Plan) -> tuple[str | None, str]:
    """The summary, None when it is not usable; and what is to be said about it."""
    if not isinstance(answer, str) or not answer.strip():
        return None, "the model answered nothing"
    text = answer.strip().replace("\0", "").encode("utf-8", "replace").decode()
    found, source = tokens.count(text), tokens.count(plan.source)
    if found > source:
        return None, f"the model answered {found:,} tokens for {source:,}"
    if found > plan.summary_tokens_max:
        return summaries.shortened(text, tokens_max=plan.summary_tokens_max), f"its {found:,} tokens were shortened"
    return text, ""


def _words(error: Exception) -> str:
    return f"the summariser failed: {type(error).__name__}: {error}"[:WHY_CHARS_MAX].replace("\0", "")
