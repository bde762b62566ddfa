"""The shortest way of a worker's turn: from the socket to the engine, past Django's request, resolver and ninja.

Only a request about which nothing is to be decided goes it: the address as clients write it, no query, each header
once, a body that is not too large, a key that is remembered. Every other one, and so every refusal that needs no
engine, goes by the view. Both ways call the same function, and what that refuses is said by the same `errors.answer`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agentstate.api import auth, errors
from runs.api import work

TURN = re.compile(r"/api/v1/runs/(run_[0-9a-f]{32})/turn")


@dataclass(frozen=True, slots=True)
class Call:
    """A request that may go directly. `ask` waits for the database, gives the body of a 200 and raises refusals."""

    ask: Callable[[], bytes]
    sent_id: str  # X-Request-ID


def found(scope: Mapping[str, Any], body: bytes) -> Call | None:
    """None: let the view decide."""
    address = TURN.fullmatch(scope["path"])
    if address is None or scope["method"] != "POST" or scope["query_string"] or scope.get("root_path"):
        return None
    headers = _once_each(scope["headers"])
    if headers is None or len(body) > errors.BODY_BYTES_MAX:
        return None
    scheme, _, token = headers.get(b"authorization", b"").decode("latin-1").partition(" ")
    actor = auth.remembered(token) if scheme.lower() == "bearer" else None
    if actor is None:
        return None
    run_id, fence = address[1], headers.get(b"run-fence", b"").decode("latin-1")
    return Call(
        lambda: work.turned(actor, run_id, fence=fence, sent=body),
        sent_id=headers.get(b"x-request-id", b"").decode("latin-1"),
    )


def _once_each(sent: list[tuple[bytes, bytes]]) -> dict[bytes, bytes] | None:
    """None when one came twice, or has a name that Django reads as another's."""
    headers = dict(sent)
    return headers if len(headers) == len(sent) and not any(b"_" in name for name in headers) else None
