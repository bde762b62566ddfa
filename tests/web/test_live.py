"""Live pages: the stream says that something happened, misses nothing over a reconnect, and tells strangers nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pytest
from django.test import Client

from agentstate.sdk.store import End, StepFinish, Turn
from agentstate.tenants.actors import Actor
from tests.e2e import browser as browsing
from tests.web.forms import text
from tests.web.world import World

if TYPE_CHECKING:
    from agentstate.tenants.models import Tenant, User

WAIT_S = 20.0


class Stream:
    """Events as they come, with what a browser would send to go on."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.lines = answer.iter_lines()
        self.last_id = ""

    def next(self, kind: str) -> dict[str, Any]:
        """The next event of this kind. The client's own timeout bounds the wait."""
        event: dict[str, str] = {}
        for line in self.lines:
            name, _, value = line.partition(": ")
            if line == "" and event.get("event") == kind:
                found: dict[str, Any] = orjson.loads(event["data"])
                return found
            if line == "":
                event = {}
            elif name:
                event[name] = value
                self.last_id = value if name == "id" else self.last_id
        raise AssertionError(f"the stream ended before an event {kind}")


@pytest.fixture
def address(committed_db: None, tmp_path: Path) -> Iterator[str]:
    with browsing.web_server(tmp_path / "web.log") as address:
        yield address


@contextmanager
def streaming(address: str, user: User | None, run: str, **headers: str) -> Iterator[Stream]:
    cookie = browsing.session_of(user) if user else {"name": "none", "value": ""}
    with (
        httpx.Client(base_url=address, cookies={cookie["name"]: cookie["value"]}, trust_env=False) as client,
        client.stream("GET", f"/t/acme/runs/{run}/live/", headers=headers, timeout=WAIT_S) as answer,
    ):
        yield Stream(answer)


def test_a_stream_tells_what_happens_and_goes_on_where_it_was_left(
    committed_db: None, tenant: Tenant, alice: Actor, bob_user: User, charlie_user: User, address: str
) -> None:
    world = World(alice)
    run = world.running("1")
    claim = world.claims[run]
    with streaming(address, bob_user, run) as stream:
        headers = stream.answer.headers
        assert headers["Content-Type"].startswith("text/event-stream")
        assert headers["X-Accel-Buffering"] == "no" and headers["Content-Encoding"] == "identity"
        before = stream.next("run")
        started = time.monotonic()
        world.store.turn(claim, Turn(finish=[StepFinish(before["steps"], output={"seen": 1})]))
        event = stream.next("run")
        assert time.monotonic() - started < 5, "a hint came, not the next heartbeat"
        assert event["seq"] > before["seq"] and event["status"] == "running"
    world.begin(claim, "while nobody listened")
    with streaming(address, bob_user, run, **{"Last-Event-ID": stream.last_id}) as again:
        missed = again.next("run")
        assert missed["seq"] > event["seq"] and missed["steps"] == event["steps"] + 1
        world.store.turn(claim, Turn(finish=[StepFinish(missed["steps"])], then=End("succeeded", output={})))
        assert again.next("over") == {}
    for user, status in ((None, 401), (charlie_user, 404)):
        with streaming(address, user, run) as refused:
            assert refused.answer.status_code == status


@pytest.mark.django_db
def test_a_reader_at_the_end_gets_all_rows_and_one_further_up_only_what_changed(
    alice_client: Client, world: World, base: str
) -> None:
    run = world.running("1")
    claim = world.claims[run]
    for number in range(3):
        world.step(claim, f"more {number}", number)
    ask = {"live": "1", "rows": "3", "since": "2000-01-01T00:00:00+00:00"}
    at_end = text(alice_client.get(f"{base}/runs/{run}/", {**ask, "end": "1"}, headers={"HX-Request": "true"}))
    assert 'id="steps" hx-swap-oob="true"' in at_end and 'id="step-row-6"' in at_end and "<html" not in at_end
    assert 'id="run-head" hx-swap-oob="true"' in at_end
    reading = text(alice_client.get(f"{base}/runs/{run}/", {**ask, "end": ""}, headers={"HX-Request": "true"}))
    assert "3 new steps" in reading and "show</a>" in reading
    assert 'id="step-row-3" class="hot"' in reading or 'id="step-row-3" hx-swap-oob="true"' in reading
    assert 'id="step-row-6"' not in reading, "rows do not enter while somebody reads above"
