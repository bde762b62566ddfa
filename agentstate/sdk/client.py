"""Starting runs from anywhere: `st.run`. The service is named by AGENTSTATE_URL and AGENTSTATE_KEY."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, Literal

from agentstate.sdk import values
from agentstate.sdk.agents import Agent
from agentstate.sdk.store import Budget, RunInfo, RunStore

OVER = frozenset({"succeeded", "failed", "cancelled", "compensated"})
_POLL_S = 0.25


def default_store() -> RunStore:
    """The HTTP store of AGENTSTATE_URL. Raises: RuntimeError when the environment does not name one."""
    url, key = os.environ.get("AGENTSTATE_URL", ""), os.environ.get("AGENTSTATE_KEY", "")
    if not url or not key:
        raise RuntimeError(
            "Set AGENTSTATE_URL and AGENTSTATE_KEY (`manage.py up` prints both), or pass store=. "
            "In tests: agentstate.testing.MemoryStore."
        )
    from agentstate.sdk.http import HttpStore

    return HttpStore(url, key)


def run(
    agent: Agent | str,
    input: Any = None,
    *,
    external_id: str = "",
    session: str = "",
    session_policy: Literal["reject", "queue", "replace"] = "reject",
    tags: Sequence[str] = (),
    budget: Budget | None = None,
    context_budget_tokens: int | None = None,
    idempotency_key: str = "",
    wait: bool | float = False,
    store: RunStore | None = None,
) -> RunInfo:
    """Start a run; it is durable when this returns. The same `external_id` is the same run.

    `context_budget_tokens`: of its scratchpad, in place of the agent's or its model's.
    `wait` True or seconds: until it is over, or so long; a worker must be there to execute it.
    """
    found = store or default_store()
    if isinstance(agent, Agent):
        found.register(agent.spec())
    info = found.admit(
        agent if isinstance(agent, str) else agent.name,
        values.settled(input, where="/input"),
        external_id=external_id,
        session=session,
        session_policy=session_policy,
        tags=tags,
        budget=budget,
        context_budget_tokens=context_budget_tokens,
        idempotency_key=idempotency_key,
    )
    return _waited(found, info, wait) if wait else info


def _waited(store: RunStore, info: RunInfo, wait: bool | float) -> RunInfo:
    ends_at = float("inf") if wait is True else time.monotonic() + wait
    while info.status not in OVER and time.monotonic() < ends_at:
        time.sleep(_POLL_S)
        info = store.get(info.run_id)
    return info
