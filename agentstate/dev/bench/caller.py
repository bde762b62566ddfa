"""A client of the REST API with keep-alive, as a program outside would be one."""

from __future__ import annotations

import time
from typing import Any

import httpx

LOOK_EVERY_S = 0.02
WAIT_S_MAX = 60.0


class Caller:
    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30)

    def __call__(self, method: str, path: str, **given: Any) -> Any:
        """Raises: httpx.HTTPStatusError."""
        answer = self._client.request(method, f"/api/v1{path}", **given)
        answer.raise_for_status()
        return answer.json()

    def start(self, agent: str) -> tuple[str, float]:
        """The run's id, and the moment before the request."""
        asked_at = time.time()
        return self("POST", "/runs", json={"agent": agent, "input": {}})["run_id"], asked_at

    def result(self, run_id: str) -> Any:
        """The output, once it is there."""
        ends_at = time.monotonic() + WAIT_S_MAX
        while time.monotonic() < ends_at:
            run = self("GET", f"/runs/{run_id}")
            if run["status"] == "succeeded":
                return run["output"]
            if run["status"] in ("failed", "cancelled", "paused"):
                raise RuntimeError(f"the run is {run['status']}: {run['failure']}")
            time.sleep(LOOK_EVERY_S)
        raise TimeoutError(run_id)

    def approval(self, run_id: str) -> Any:
        """The run's open question, once it is there."""
        ends_at = time.monotonic() + WAIT_S_MAX
        while time.monotonic() < ends_at:
            for approval in self("GET", "/approvals")["approvals"]:
                if approval["run_id"] == run_id and self("GET", f"/runs/{run_id}")["status"] == "waiting":
                    return approval
            time.sleep(LOOK_EVERY_S)
        raise TimeoutError(run_id)

    def approve(self, approval: Any) -> float:
        """The moment before the request."""
        asked_at = time.time()
        self(
            "POST",
            f"/approvals/{approval['approval_id']}/decision",
            headers={"If-Match": f'"{approval["version"]}"'},
            json={"decision": "approve", "proposal_hash": approval["proposal_hash"]},
        )
        return asked_at

    def close(self) -> None:
        self._client.close()
