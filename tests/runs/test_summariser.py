"""The model that summarises hosted agents' scratchpads: asked over HTTP only when a setting says so, never needed."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from pytest_django import Settings

import agentstate as st
from agentstate.core.ids import parse_id
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from agentstate.testing import run_agent
from runs.engine import summariser
from runs.engine.store import LocalStore
from runs.models import Run
from runs.selectors import pads, story
from tests.conformance.served import ServedWorld

SAID = "Nothing was found in the first thoughts."


@st.agent("hosted-pad", context_budget_tokens=1_500)
def thinker(thoughts: int) -> str:
    for number in range(thoughts):
        st.note(f"Thought {number}: " + "and so it went on and on. " * 20, kind="reasoning")
    return str(st.scratchpad())


@pytest.fixture
def asked(settings: Settings) -> Iterator[list[dict[str, Any]]]:
    """An endpoint that answers, and what it was asked."""
    seen: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            answer = {
                "model": "gpt-4o-mini",
                "choices": [{"message": {"content": f"<think>Short.</think>{SAID}"}}],
                "usage": {"prompt_tokens": 900, "completion_tokens": 12},
            }
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = threading.Thread(target=server.serve_forever, args=(0.02,))
    running.start()
    settings.SUMMARY_MODEL, settings.OPENAI_BASE_URL = "gpt-4o-mini", f"http://127.0.0.1:{server.server_port}/v1"
    settings.SCRATCHPAD_SUMMARY = "model"
    yield seen
    server.shutdown()
    server.server_close()
    running.join()


def drive(actor: Actor) -> tuple[str, pads.Account, Run]:
    """The agent's last view of its scratchpad, the account and the run."""
    store = LocalStore(actor, lease_s=30.0, shared=True)
    world = ServedWorld(actor, store)
    info = run_agent(thinker, {"thoughts": 12}, store=store, controls=world, summarise=summariser.by_setting())
    assert info.status == "succeeded", info.failure
    with tenant_scope(actors.tenant_of(actor)):
        return info.output, pads.account(story.find(info.run_id)), Run.objects.get(id=parse_id("run", info.run_id))


def test_its_call_is_a_recorded_step_with_tokens_and_cost(alice: Actor, asked: list[dict[str, Any]]) -> None:
    seen, account, run = drive(alice)
    assert SAID in seen and "<think>" not in seen
    assert len(account.summaries) == len(asked) > 0
    assert {each.method for each in account.summaries} == {"model"}
    assert all(each.model and each.tokens == 912 for each in account.summaries)
    assert (run.tokens_in, run.tokens_out) == (900 * len(asked), 12 * len(asked))
    assert run.cost == pytest.approx(sum(each.cost for each in account.summaries))
    assert "Thought 0" in json.loads(asked[0]["messages"][1]["content"])[0]


def test_an_endpoint_that_is_away_costs_the_models_words_only(alice: Actor, settings: Settings) -> None:
    settings.SCRATCHPAD_SUMMARY, settings.SUMMARY_MODEL = "model", "small"
    settings.OPENAI_BASE_URL = "http://127.0.0.1:9/v1"
    seen, account, _ = drive(alice)
    assert account.summaries
    assert all(each.method == "extract" and "summariser failed" in each.why for each in account.summaries)
    assert "Summary of entries" in seen


@pytest.mark.parametrize(("wanted", "model"), [("extract", "small"), ("model", "")])
def test_without_both_settings_there_are_extracts(settings: Settings, wanted: str, model: str) -> None:
    settings.SCRATCHPAD_SUMMARY, settings.SUMMARY_MODEL = wanted, model
    assert summariser.by_setting() is None
