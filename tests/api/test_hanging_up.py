"""Callers that go away, connections that break, and Django's own handler: the API answers, and loses nothing."""

from __future__ import annotations

import json
import socket

import psycopg
from django.conf import settings
from django.db import connection
from django.test import Client

from agentstate.dev.testing import superuser_url
from agentstate.sdk.store import Claim, StepFinish, StepStart, Turn
from tests.api.conftest import AGENT, WORKER, Caller
from tests.api.problems import refused

POLLS = 8
WANTED = {"agents": {"cleaner": {"name": "cleaner", "version": "1"}}, "wait_s": 25}
DROP = "select pg_terminate_backend(pid) from pg_stat_activity where usename = %s and pid <> %s"
DROP += " and datname = current_database()"  # other workers of this session have their own


def test_a_poll_whose_caller_hung_up_keeps_no_run(api: Caller) -> None:
    polls = [open_poll(api, f"gone-{number}") for number in range(POLLS)]
    while api("GET", "/agents").json()["agents"][0]["workers"] < POLLS:
        pass  # a poll is known as a worker from its first look on
    for poll in polls:
        poll.shutdown(socket.SHUT_WR)
    for poll in polls:
        while poll.recv(4096):  # its own end, closed too: by then the server knows
            pass
        poll.close()
    for _ in range(2 * POLLS):  # a look that was under way when its caller went is over before these are
        assert api.store().claim(WORKER, agents={"cleaner": AGENT}, wait_s=0) is None
    run = api.store().admit("cleaner", None)
    claim = api.store().claim(WORKER, agents={"cleaner": AGENT}, wait_s=20)
    assert claim is not None and claim.run_id == run.run_id
    details = [event["detail"] for event in api("GET", f"/runs/{run.run_id}/events").json()["events"]]
    moves = [(detail["from"], detail["to"]) for detail in details if "from" in detail]
    assert moves[-1] == ("queued", "running")
    assert ("running", "running") not in moves  # taken over after a lease: somebody had it and was not there


def open_poll(api: Caller, name: str) -> socket.socket:
    host, port = api.url.removeprefix("http://").split(":")
    body = json.dumps({**WANTED, "worker": {"name": name}}).encode()
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


def test_a_database_that_drops_its_connections_costs_a_repeat_and_nothing_else(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    store = api.store()
    reply = store.turn(claim, Turn(start=[StepStart("a#1", "a")]))
    with psycopg.connect(superuser_url(connection.settings_dict["NAME"]), autocommit=True) as superuser:
        ended = superuser.execute(DROP, [settings.APP_ROLE, connection.connection.info.backend_pid]).fetchall()
    assert ended
    assert store.turn(claim, Turn(finish=[StepFinish(reply.begun[0].seq, output=1)])).status == "running"
    refusals = [answer for answer in (api("GET", "/runs") for _ in range(8)) if answer.status_code != 200]
    for answer in refusals:
        assert refused(answer, 503, "unavailable") and answer.headers["Retry-After"] == "1"
    assert api("GET", f"/runs/{claim.run_id}/steps/1").json()["output"] == 1
