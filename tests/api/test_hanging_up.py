"""A caller that goes away takes nothing with it, and the API answers under Django's own handler too."""

from __future__ import annotations

import json
import socket

from django.test import Client

from agentstate.sdk.store import Claim
from tests.api.conftest import AGENT, WORKER, Caller

WANTED = {
    "worker": {"name": "gone"},
    "agents": {"cleaner": {"name": "cleaner", "version": "1"}},
    "wait_s": 25,
}


def test_a_poll_whose_caller_hung_up_takes_no_run(api: Caller) -> None:
    polls = [open_poll(api) for _ in range(8)]
    assert api("GET", "/agents").status_code == 200  # the server has read them: it answers in the order of arrival
    for poll in polls:
        poll.close()
    run = api.store().admit("cleaner", None)
    claim = api.store().claim(WORKER, agents={"cleaner": AGENT}, wait_s=3)
    assert claim is not None and claim.run_id == run.run_id
    names = [event["detail"].get("to") for event in api("GET", f"/runs/{run.run_id}/events").json()["events"]]
    assert names.count("running") == claim.fence  # nobody's claim that we do not know of


def open_poll(api: Caller) -> socket.socket:
    host, port = api.url.removeprefix("http://").split(":")
    body = json.dumps(WANTED).encode()
    lines = ["POST /api/v1/runs/claim HTTP/1.1", "Host: localhost", f"Authorization: Bearer {api.token}"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
    opened = socket.create_connection((host, int(port)))
    opened.sendall("\r\n".join(lines).encode() + body)
    return opened


def test_a_stream_whose_caller_hung_up_ends(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    headers = {"Accept": "text/event-stream"}
    for _ in range(30):  # more than the server has database threads and connections
        with api.client.stream("GET", f"/api/v1/runs/{claim.run_id}/events", headers=headers) as stream:
            assert stream.status_code == 200
            assert next(stream.iter_lines()).startswith("id: 1")
    assert api("GET", f"/runs/{claim.run_id}").status_code == 200


def test_the_same_views_answer_under_djangos_own_handler() -> None:
    client = Client()
    for path, status, code in (("/api/v1/runs", 401, "unauthorised"), ("/api/v1/nothing", 404, "not-found")):
        answer = client.get(path)
        assert (answer.status_code, answer.json()["code"]) == (status, code)
        assert answer["Content-Type"] == "application/problem+json"
    assert client.patch("/api/v1/runs").status_code == 405
    assert client.get("/api/v1/openapi.json").json()["info"]["title"] == "agentstate"
