"""RunStore over the REST API: what an agent's own process uses when it does not live inside the server.

A request is repeated only where the protocol makes a repeat harmless, and only after failures that a repeat can mend:
no connection, a connection that broke, 502, 503, 504. All else is raised as the error that the local store raises.
"""

from __future__ import annotations

import random
import time
import urllib.request
from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, Literal
from urllib.parse import quote

import httpx

from agentstate.core import errors
from agentstate.core.errors import DomainError, Unavailable
from agentstate.core.ids import new_id
from agentstate.core.limits import LONG_POLL_S_MAX
from agentstate.sdk import wire
from agentstate.sdk.store import (
    AgentSpec,
    Budget,
    Claim,
    Entry,
    Renewal,
    RunInfo,
    StepFinish,
    Turn,
    TurnReply,
    WorkerInfo,
    type_json,
)

TIMEOUT_S = 30.0
CONNECT_TIMEOUT_S = 5.0
TRIES = 4
REST_S = 0.2  # before the second try; doubled for each further one
REPEATABLE_STATUS = frozenset({502, 503, 504})
# Nothing of the request reached the service.
NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)
ADDRESSES_MAX = 256  # remembered: httpx takes longer to read an address than to send a small request to it
PROBLEM_MEMBERS = frozenset({"type", "title", "status", "detail", "code", "field"})

Repeat = Literal["always", "unsent"]


class HttpStore:
    """One connection pool with keep-alive; safe to share between the threads of a process, not across a fork."""

    def __init__(
        self, url: str, key: str, *, timeout_s: float = TIMEOUT_S, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._base = httpx.URL(url.rstrip("/") + "/api/v1")
        self._address = str(self._base)
        self._headers = [
            (b"Host", self._base.netloc),
            (b"Authorization", f"Bearer {key}".encode()),
            (b"Content-Type", b"application/json"),
            (b"User-Agent", b"agentstate"),
        ]
        # The transport itself: httpx.Client's redirects, cookies and hooks are not wanted and cost more than the rest.
        self._transport = transport or httpx.HTTPTransport(proxy=_proxy_for(self._base))
        self._timeout_s = timeout_s

    def close(self) -> None:
        self._transport.close()

    def register(self, agent: AgentSpec) -> None:
        self._ask("POST", "/agents", wire.dumps(agent))

    def admit(
        self,
        agent: str,
        input: type_json,
        *,
        external_id: str = "",
        session: str = "",
        session_policy: Literal["reject", "queue", "replace"] = "reject",
        tags: Sequence[str] = (),
        budget: Budget | None = None,
        context_budget_tokens: int | None = None,
        idempotency_key: str = "",
        trace_id: str = "",
    ) -> RunInfo:
        """A key of our own, where the caller has none, makes the repeat after a lost answer find the same run."""
        wanted = {
            "agent": agent,
            "input": input,
            "external_id": external_id,
            "session": session,
            "session_policy": session_policy,
            "tags": list(tags),
            "budget": budget,
            "context_budget_tokens": context_budget_tokens,
            "trace_id": trace_id,
        }
        headers = {"Idempotency-Key": idempotency_key or new_id().hex}
        return wire.decode(RunInfo, self._ask("POST", "/runs", wire.dumps(wanted), headers=headers), strict=False)

    def get(self, run_id: str) -> RunInfo:
        return wire.decode(RunInfo, self._ask("GET", _run(run_id)), strict=False)

    def claim(
        self, worker: WorkerInfo, *, agents: Mapping[str, AgentSpec], run_id: str = "", wait_s: float = 0.0
    ) -> Claim | None:
        """Not repeated once sent: a second claim would leave the first one's run to its lease."""
        wait_s = min(wait_s, LONG_POLL_S_MAX)
        wanted = wire.dumps(wire.ClaimRequest(worker, agents=agents, wait_s=wait_s))
        path = f"{_run(run_id)}/claim" if run_id else "/runs/claim"
        found = self._ask("POST", path, wanted, repeat="unsent", wait_s=wait_s)
        return None if found is None else wire.decode(Claim, found, strict=False)

    def renew(self, claim: Claim) -> Renewal:
        found = self._ask("PUT", f"{_run(claim.run_id)}/lease", headers=_fence(claim), within_s=claim.lease_s)
        return wire.decode(Renewal, found, strict=False)

    def turn(self, claim: Claim, turn: Turn) -> TurnReply:
        """The same turn sent twice gives the same answer, so a lost answer is asked for again."""
        found = self._ask("POST", f"{_run(claim.run_id)}/turn", wire.dumps(turn), headers=_fence(claim))
        return wire.decode(TurnReply, found, strict=False)

    def note(self, claim: Claim, entries: Sequence[Entry]) -> None:
        wanted = wire.dumps(wire.ScratchpadRequest(entries))
        self._ask("POST", f"{_run(claim.run_id)}/scratchpad", wanted, headers=_fence(claim))

    def memory(self, claim: Claim, act: str, body: type_json, *, step_seq: int, key: str) -> type_json:
        """A write is done once under its key, so a lost answer is asked for again."""
        headers = {**_fence(claim), **({"Idempotency-Key": key} if key else {})}
        path = f"{_run(claim.run_id)}/memory/{quote(act, safe='')}?step_seq={step_seq}"
        return self._ask("POST", path, wire.dumps(body), headers=headers)

    def late(self, claim: Claim, finish: StepFinish) -> None:
        """Not repeated once sent: each arrival is kept as evidence of its own."""
        self._ask("POST", f"{_run(claim.run_id)}/late", wire.dumps(finish), headers=_fence(claim), repeat="unsent")

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        repeat: Repeat = "always",
        wait_s: float = 0.0,
        within_s: float | None = None,
    ) -> Any:
        """The parsed answer, None for 204. `within_s`: no further try begins later than this. Raises: DomainError."""
        ends_at = time.monotonic() + (within_s or self._timeout_s + wait_s)
        for attempt in range(1, TRIES + 1):
            try:
                return self._once(method, path, body, headers=headers, wait_s=wait_s)
            except _Failed as failed:
                rest_s = failed.rest_s or REST_S * 2 ** (attempt - 1) * random.uniform(0.5, 1.0)  # noqa: S311
                harmless = failed.unsent or repeat == "always"
                if not harmless or attempt == TRIES or time.monotonic() + rest_s > ends_at:
                    raise failed.error from failed.__cause__
                time.sleep(rest_s)
        raise AssertionError("the last try raises or returns")

    def _once(self, method: str, path: str, body: bytes, *, headers: Mapping[str, str] | None, wait_s: float) -> Any:
        sent = [*self._headers]
        if method != "GET":
            sent.append((b"Content-Length", b"%d" % len(body)))
        sent += [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        request = httpx.Request(
            method,
            _url(self._address + path),
            headers=sent,
            stream=httpx.ByteStream(body),  # with `content` httpx makes headers of its own, and another copy of ours
            extensions={"timeout": _timeouts(self._timeout_s + wait_s)},
        )
        try:
            answer = self._transport.handle_request(request)
            content = _content(answer)
        except httpx.TransportError as error:
            unsent = isinstance(error, NOT_SENT)
            where = f"{self._base.host} did not answer ({type(error).__name__})"
            raise _Failed(Unavailable(f"{where}; try again shortly.", retry_after_s=1), unsent=unsent) from error
        if answer.status_code in REPEATABLE_STATUS:
            refusal = _error(answer, self._base.host)
            ours = isinstance(refusal, Unavailable) and "request_id" in refusal.data  # a proxy gives none
            raise _Failed(refusal, unsent=ours, rest_s=_retry_after(answer))
        if answer.is_success:
            return wire.loads(content) if content else None
        raise _error(answer, self._base.host)


@lru_cache(ADDRESSES_MAX)
def _url(address: str) -> httpx.URL:
    return httpx.URL(address)


@lru_cache(ADDRESSES_MAX)
def _timeouts(timeout_s: float) -> Mapping[str, float | None]:
    return httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S).as_dict()


def _content(answer: httpx.Response) -> bytes:
    """Of a plain success the bytes as they came; all else is httpx's to decode. The connection is free afterwards."""
    if not answer.is_success or "Content-Encoding" in answer.headers:
        return answer.read()
    assert isinstance(answer.stream, httpx.SyncByteStream)
    try:
        return b"".join(answer.stream)
    finally:
        answer.close()


class _Failed(Exception):
    """A try that another one may mend."""

    def __init__(self, error: DomainError, *, unsent: bool, rest_s: float = 0.0) -> None:
        self.error = error
        self.unsent = unsent
        self.rest_s = rest_s


def _by_code(root: type[DomainError]) -> dict[str, type[DomainError]]:
    found = {root.code: root}
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            found.update(_by_code(child))
    return found


_CLASSES = _by_code(DomainError)
_BY_STATUS: dict[int, type[DomainError]] = {
    400: errors.Invalid,
    401: errors.Unauthorised,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    422: errors.Invalid,
    429: errors.Unavailable,
}


def _error(answer: httpx.Response, host: str) -> DomainError:
    """The error of a problem, with its data; of anything else (a proxy's page) what the status says."""
    try:
        problem = answer.json()
    except ValueError:
        problem = {}
    if not isinstance(problem, dict) or "code" not in problem:
        cls = _BY_STATUS.get(answer.status_code, Unavailable if answer.status_code >= 500 else DomainError)
        return cls(f"{host} answered {answer.status_code}.")
    known = _CLASSES.get(str(problem["code"])) or _BY_STATUS.get(answer.status_code, DomainError)
    details = {str(name): value for name, value in problem.items() if name not in PROBLEM_MEMBERS}
    details.pop("message", None)
    return known(str(problem.get("detail", "")), field=str(problem.get("field", "")), **details)


def _retry_after(answer: httpx.Response) -> float:
    """Seconds, from either form of the header; 0 when it says nothing."""
    text = answer.headers.get("Retry-After", "")
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0


def _proxy_for(url: httpx.URL) -> str | None:
    """What HTTP_PROXY, HTTPS_PROXY and NO_PROXY say of this address."""
    if urllib.request.proxy_bypass(url.host):
        return None
    return urllib.request.getproxies().get(url.scheme)


def _run(run_id: str) -> str:
    return f"/runs/{quote(run_id, safe='')}"


def _fence(claim: Claim) -> dict[str, str]:
    return {"Run-Fence": str(claim.fence)}
