"""A note into the scratchpad: what it costs the agent's thread, and until people see it."""

from __future__ import annotations

import time
from collections.abc import Iterator

from agentstate.core.limits import CONTEXT_BUDGET_TOKENS
from agentstate.dev.bench import contenders, states
from agentstate.dev.bench.report import Figure, Line, Remark, percentile
from agentstate.sdk.deferred import Deferred
from agentstate.sdk.notes import Notebook
from agentstate.sdk.run_state import Committed
from agentstate.sdk.store import AgentSpec, Turn, WorkerInfo
from runs.engine.store import LocalStore

APPEND_MS = 2.0
ENTRY_CHARS = 1_024
ENTRIES_A_TURN = 8
AGENT = AgentSpec("bench-notes", "1")
LEASE_S = 60.0


def measure(*, times: int) -> Iterator[Line]:
    """Each entry is counted, folded into the window, sealed and written to Valkey; the window is kept in its budget."""
    store = LocalStore(contenders.bench_actor(), lease_s=LEASE_S)
    store.register(AGENT)
    run_id = store.admit(AGENT.name, {}).run_id
    claim = store.claim(WorkerInfo("bench"), agents={AGENT.name: AGENT}, run_id=run_id)
    assert claim is not None
    deferred = Deferred(Committed({}, base={}))
    notebook = Notebook(claim, deferred)
    written_ms, shown_ms, summarised_ms = list[float](), list[float](), list[float]()
    used_s = 0.0
    for number in range(times):
        text, before = states.text(ENTRY_CHARS, seed=number), notebook.entries()
        used, began = time.process_time(), time.perf_counter()
        notebook.write(text, kind="result", important=False, step_seq=None, shorten=True)
        written = time.perf_counter()
        store.note(claim, deferred.unshown())
        shown, used_s = time.perf_counter(), used_s + time.process_time() - used
        if len(notebook.entries()) <= len(before):
            summarised_ms.append(1_000 * (written - began))
        else:
            written_ms.append(1_000 * (written - began))
        shown_ms.append(1_000 * (shown - began))
        if number % ENTRIES_A_TURN == 0:
            load = deferred.load()
            store.turn(claim, Turn(start=load.reads, entries=load.entries))
            deferred.unload(load)
    thread_ms, mean_ms = percentile(written_ms, 0.95), 1_000 * used_s / times
    note = (
        f"p50 {percentile(shown_ms, 0.5):.2f} ms, processor {mean_ms:.2f} ms; in the agent's thread p95 {thread_ms:.2f}"
    )
    yield Figure("append of 1 KB to the scratchpad, p95", percentile(shown_ms, 0.95), "ms", APPEND_MS, note=note)
    if summarised_ms:
        slowest = max(summarised_ms)
        text = f"{len(summarised_ms)} times the window of {CONTEXT_BUDGET_TOKENS:,} tokens was summarised, in at most "
        yield Remark(f"{text}{slowest:.0f} ms")
