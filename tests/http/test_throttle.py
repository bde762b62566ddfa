"""Five tries to sign in, counted in Redis for all processes, and in this one while Redis is away."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import redis as redis_client

from agentstate.db import wake
from agentstate.http import throttle
from agentstate.http.throttle import TooManyTries

ADDRESS = "192.0.2.1"


@pytest.fixture(params=["redis", "away"])
def counted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> str:
    """Each promise holds with Redis and without."""
    monkeypatch.setattr(throttle, "_local", throttle.Local())
    if request.param == "away":
        nobody = redis_client.Redis.from_url(f"unix://{tmp_path}/nobody.sock")
        monkeypatch.setattr(wake, "redis", lambda: nobody)
    return str(request.param)


def test_the_sixth_try_waits_for_the_window(counted: str) -> None:
    for _ in range(5):
        throttle.try_login("alice@example.test", address=ADDRESS)
    with pytest.raises(TooManyTries, match="Try again in 15 minutes") as refused:
        throttle.try_login(" Alice@Example.test ", address=ADDRESS)
    assert refused.value.http_status == 429
    assert 890 <= refused.value.data["retry_after_s"] <= 901


def test_others_are_not_kept_out(counted: str) -> None:
    for _ in range(6):
        with contextlib.suppress(TooManyTries):
            throttle.try_login("alice@example.test", address=ADDRESS)
    throttle.try_login("bob@example.test", address=ADDRESS)
    throttle.try_login("alice@example.test", address="192.0.2.2")


def test_a_success_starts_the_window_afresh(counted: str) -> None:
    for _ in range(3):
        for _ in range(5):
            throttle.try_login("alice@example.test", address=ADDRESS)
        throttle.forgive_login("alice@example.test", address=ADDRESS)


def test_the_window_ends(counted: str) -> None:
    throttle.spend("probe", "x", tries_max=1, window_s=1)
    with pytest.raises(TooManyTries):
        throttle.spend("probe", "x", tries_max=1, window_s=1)
    _pass_a_second(counted)
    throttle.spend("probe", "x", tries_max=1, window_s=1)


def test_every_counter_in_redis_expires_and_names_nobody(redis: redis_client.Redis) -> None:
    throttle.try_login("alice@example.test", address=ADDRESS)
    (key,) = redis.keys("as:throttle:*")
    assert 0 < redis.ttl(key) <= 900
    assert b"alice" not in key
    assert ADDRESS.encode() not in key


def test_counters_of_the_process_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "LOCAL_KEYS_MAX", 10)
    local = throttle.Local()
    for n in range(100):
        local.count(str(n), window_s=60)
    assert len(local._windows) <= 10


def _pass_a_second(counted: str) -> None:
    if counted == "away":
        throttle._local._windows = {key: (0.0, used) for key, (_, used) in throttle._local._windows.items()}
        return
    client = wake.redis()
    for key in client.keys("as:throttle:probe:*"):
        client.pexpire(key, 0)
