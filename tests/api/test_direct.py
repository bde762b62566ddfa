"""A turn's short way and the view: byte for byte the same answers, and only plain requests go it."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest
from django.db import connections

from agentstate.api import auth, direct, errors
from agentstate.api.asgi import ApiHandler
from agentstate.http import waiting
from agentstate.sdk.store import Claim
from agentstate.tenants import api_keys
from agentstate.tenants.actors import Actor
from tests.api.conftest import AGENT, WORKER, Caller
from tests.api.problems import refused

VIEW = "?by=view"  # a query means that somebody has to look
REQUEST_ID = "asked-1"
NOT_THERE = "run_" + "0" * 32
ANSWERED_AT = re.compile(rb"\r\ndate: [^\r]*")
TIME_LEFT = re.compile(
    rb"\r\ncontent-length: [0-9]+|(?<=\"call_for_s\":)[0-9.]+"
)  # and the length that follows from it
BEGIN = b'{"start": [{"identity": "a#1", "name": "a", "payload": {"x": 1}}]}'
FINISH = b'{"finish": [{"seq": 1, "output": {"y": [1, null, "\\u00e9"]}}], "start": [{"identity": "b#1", "name": "b"}]}'
END = b'{"finish": [{"seq": 2, "output": 2}], "then": {"end": {"outcome": "succeeded", "output": 3}}}'


@dataclass
class Asked:
    """One request for a turn, as bytes."""

    body: bytes
    headers: dict[str, str]
    run_id: str


def raw(api: Caller, asked: Asked, *, query: str = "") -> bytes:
    """All bytes of the answer but its time. The key is remembered before, so only `query` decides the way."""
    path = f"/api/v1/runs/{asked.run_id}/turn"
    with socket.create_connection(address(api), timeout=30) as opened:
        opened.sendall(written("PUT", f"/api/v1/runs/{NOT_THERE}/lease", {"Authorization": f"Bearer {api.token}"}, b""))
        received(opened)
        opened.sendall(written("POST", path + query, asked.headers, asked.body))
        return ANSWERED_AT.sub(b"", received(opened))


def address(api: Caller) -> tuple[str, int]:
    host, port = api.url.removeprefix("http://").split(":")
    return host, int(port)


def written(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def received(opened: socket.socket) -> bytes:
    found = b""
    while b"\r\n\r\n" not in found:
        found += more(opened)
    head, _, body = found.partition(b"\r\n\r\n")
    length = re.search(rb"content-length: ([0-9]+)", head)
    assert length is not None, head
    while len(body) < int(length[1]):
        body += more(opened)
    return head + b"\r\n\r\n" + body


def more(opened: socket.socket) -> bytes:
    part = opened.recv(65536)
    assert part
    return part


def asked(api: Caller, claim: Claim, body: bytes, **headers: str) -> Asked:
    sent = {"Authorization": f"Bearer {api.token}", "Run-Fence": str(claim.fence), "X-Request-ID": REQUEST_ID}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return Asked(body, {name: value for name, value in sent.items() if value}, claim.run_id)


def test_good_turns_are_answered_alike(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    run = api.store().admit("cleaner", {"canary": "CANARY-7f3a"}, external_id="t-2")
    other = api.store().claim(WORKER, agents={"cleaner": AGENT}, run_id=run.run_id)
    assert other is not None and other.fence == claim.fence
    for body in (b"", b"{}", BEGIN, FINISH, FINISH, END, END):
        answers = [raw(api, asked(api, claim, body)), raw(api, asked(api, other, body), query=VIEW)]
        assert TIME_LEFT.sub(b"", answers[0]) == TIME_LEFT.sub(b"", answers[1])
        assert answers[0].startswith(b"HTTP/1.1 200 OK\r\n") and REQUEST_ID.encode() in answers[0]
    assert api("GET", f"/runs/{claim.run_id}").json()["output"] == 3


REFUSED: dict[str, tuple[bytes, dict[str, str], int]] = {
    "no fence": (BEGIN, {"Run_Fence": ""}, 422),
    "a fence in words": (BEGIN, {"Run_Fence": "one"}, 422),
    "an old fence": (BEGIN, {"Run_Fence": "0"}, 409),
    "a fence of nobody's": (BEGIN, {"Run_Fence": "999999999999999999"}, 409),
    "no JSON": (b'{"start": ', {}, 400),
    "bytes that are no text": (b'{"start": "\xff"}', {}, 400),
    "no object": (b"[]", {}, 422),
    "NaN": (b'{"state": {"a": NaN}}', {}, 422),
    "NUL": (b'{"state": {"a/b": "\\u0000"}}', {}, 422),
    "too deep": (b'{"state": ' + b"[" * 2_000 + b"]" * 2_000 + b"}", {}, 422),
    "deeper than any parser": (b'{"state": ' + b"[" * 200_000 + b"]" * 200_000 + b"}", {}, 422),
    "an unknown member": (b'{"begin": []}', {}, 422),
    "no such step": (b'{"finish": [{"seq": 77}]}', {}, 422),
    "another result": (b'{"finish": [{"seq": 1, "output": "another"}]}', {}, 409),
    "another payload": (b'{"start": [{"identity": "a#1", "name": "a", "payload": 2}]}', {}, 422),
    "a caller's trace": (b"[]", {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}, 422),
    "no key": (BEGIN, {"Authorization": ""}, 401),
    "a key of nobody's": (BEGIN, {"Authorization": "Bearer as_" + "0" * 48}, 401),
    "another scheme": (BEGIN, {"Authorization": "Basic eDp5"}, 401),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_are_said_alike(claimed: tuple[Caller, Claim], name: str) -> None:
    api, claim = claimed
    body, headers, status = REFUSED[name]
    for good in (BEGIN, FINISH):
        raw(api, asked(api, claim, good))
    before = api("GET", f"/runs/{claim.run_id}/events").json()
    wanted = asked(api, claim, body, **headers)
    answers = [raw(api, wanted), raw(api, wanted, query=VIEW)]
    assert answers[0] == answers[1]
    assert answers[0].startswith(b"HTTP/1.1 %d " % status), answers[0]
    assert b"\r\ncontent-type: application/problem+json\r\n" in answers[0]
    assert b"\r\nx-content-type-options: nosniff\r\n" in answers[0]
    problem = json.loads(answers[0].partition(b"\r\n\r\n")[2])
    assert problem["request_id"] == REQUEST_ID
    assert api("GET", f"/runs/{claim.run_id}/events").json() == before


def test_rights_and_tenants_are_kept_alike(
    claimed: tuple[Caller, Claim], caller: Callable[..., Caller], alice: Actor, charlie: Actor
) -> None:
    api, claim = claimed
    for one, status in ((caller(alice, "runs.read"), 403), (caller(charlie), 404)):
        wanted = asked(one, claim, BEGIN)
        answers = [raw(one, wanted), raw(one, wanted, query=VIEW)]
        assert answers[0] == answers[1]
        assert answers[0].startswith(b"HTTP/1.1 %d " % status)
    stranger, absent = caller(charlie), asked(caller(charlie), claim, BEGIN)
    absent.run_id = NOT_THERE
    assert raw(stranger, asked(stranger, claim, BEGIN)) == raw(stranger, absent)
    assert api("GET", f"/runs/{claim.run_id}/steps/1").status_code == 404


def test_a_made_up_request_id_is_in_answer_and_problem(claimed: tuple[Caller, Claim]) -> None:
    api, claim = claimed
    assert api("PUT", f"/runs/{claim.run_id}/lease", headers={"Run-Fence": str(claim.fence)}).status_code == 200
    headers = {"Run-Fence": "0", "X-Request-ID": "not one of ours"}
    answers = [api("POST", f"/runs/{claim.run_id}/turn", {}, headers=headers) for _ in range(2)]
    ids = {answer.headers["X-Request-ID"] for answer in answers}
    assert ids == {refused(answer, 409, "fenced")["request_id"] for answer in answers}
    assert len(ids) == 2 and all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)


def test_a_revoked_key_ends_its_turns_within_a_second(claimed: tuple[Caller, Claim], alice: Actor) -> None:
    api, claim = claimed
    held = {"Run-Fence": str(claim.fence)}
    assert api("POST", f"/runs/{claim.run_id}/turn", {}, headers=held).status_code == 200
    api_keys.revoke(UUID(api.actor.id), actor=alice)
    revoked_at = time.monotonic()
    while True:
        sent_at = time.monotonic()
        answer = api("POST", f"/runs/{claim.run_id}/turn", {}, headers=held)
        if answer.status_code != 200:
            break
        assert sent_at < revoked_at + auth.CACHED_S, "asked that late, a remembered answer is too old"
    refused(answer, 401, "unauthorised")


def scope_of(wanted: Asked, **changed: Any) -> dict[str, Any]:
    path = f"/api/v1/runs/{wanted.run_id}/turn"
    headers = [(name.lower().encode(), value.encode()) for name, value in wanted.headers.items()]
    scope = {"type": "http", "method": "POST", "path": path, "query_string": b"", "root_path": "", "headers": headers}
    return {**scope, **changed}


def test_only_a_plain_request_goes_the_short_way(
    claimed: tuple[Caller, Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    api, claim = claimed
    wanted = asked(api, claim, BEGIN)
    scope, path = scope_of(wanted), f"/api/v1/runs/{claim.run_id}"
    assert direct.found(scope, BEGIN) is None  # this process knows no key yet
    monkeypatch.setattr(auth, "CACHED_S", 60.0)
    auth.resolve_cached(api.token)
    call = direct.found(scope, BEGIN)
    assert call is not None and call.sent_id == REQUEST_ID
    for changed in ({"method": "PUT"}, {"query_string": b"x"}, {"root_path": "/below"}, {"path": f"{path}/lease"}):
        assert direct.found({**scope, **changed}, BEGIN) is None
    for odd in (f"{path}/turn/", f"{path}/turn\n", path.upper() + "/turn", f"/api/v1/runs/{UUID(int=1)}/turn"):
        assert direct.found({**scope, "path": odd}, BEGIN) is None
    token = b"Bearer " + api.token.encode()
    for more in ((b"authorization", token), (b"run-fence", b"1"), (b"run_fence", b"1")):
        assert direct.found({**scope, "headers": [*scope["headers"], more]}, BEGIN) is None
    for bearer in (b"", b"Bearer", b"Basic eDp5", token + b" ", token[:-1]):
        assert direct.found({**scope, "headers": [(b"authorization", bearer)]}, BEGIN) is None
    assert direct.found(scope, b" " * (errors.BODY_BYTES_MAX + 1)) is None
    auth.forget()
    assert direct.found(scope, BEGIN) is None


def test_a_plain_turn_makes_no_request_of_django(
    claimed: tuple[Caller, Claim], monkeypatch: pytest.MonkeyPatch
) -> None:
    api, claim = claimed
    handler, wanted = ApiHandler(), asked(api, claim, BEGIN)
    monkeypatch.setattr(handler, "create_request", None)
    monkeypatch.setattr(auth, "CACHED_S", 60.0)  # a slow machine does not lengthen the way
    auth.resolve_cached(api.token)
    sent = asyncio.run(answered(handler, scope_of(wanted), wanted.body))
    assert sent[0]["status"] == 200 and len(sent) == 2
    assert json.loads(sent[1]["body"])["begun"][0]["seq"] == 1


async def answered(handler: ApiHandler, scope: dict[str, Any], body: bytes) -> list[Any]:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    try:
        await handler(scope, receive, send)
    finally:
        await waiting.in_database(connections.close_all)  # the thread outlives the test's database
    return sent
