from __future__ import annotations

import os
import threading
import time
from uuid import UUID

import pytest

from agentstate.core import ids
from agentstate.core.errors import NotFound


def test_ids_are_version_7_and_carry_the_time() -> None:
    before_ms = time.time_ns() // 1_000_000
    made = ids.new_id()
    assert made.version == 7
    assert made.variant == "specified in RFC 4122"
    assert before_ms <= made.int >> 80 <= before_ms + 5_000


def test_ids_of_a_process_rise_even_within_a_millisecond() -> None:
    made = [ids.new_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_rise_when_the_wall_clock_steps_back(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ids.new_id()
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    assert ids.new_id() > first


def test_a_full_counter_borrows_from_the_next_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    first = ids.new_id()
    monkeypatch.setattr(ids, "_counter", (1 << 42) - 1)
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    assert ids.new_id() > first


def test_threads_never_share_an_id() -> None:
    made: list[UUID] = []
    threads = [threading.Thread(target=lambda: made.extend(ids.new_id() for _ in range(2_000))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 8_000


def test_a_forked_child_does_not_continue_its_parents_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ids, "_last_ms", 0)  # so that what comes after this test is not made in 2033
    monkeypatch.setattr(time, "time_ns", lambda: 2_000_000_000_000_000_000)
    ids.new_id()
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.write(writer, ids.new_id().bytes)
        os._exit(0)
    os.waitpid(pid, 0)
    child = UUID(bytes=os.read(reader, 16))
    ours = ids.new_id()
    assert child.int >> 80 == ours.int >> 80  # the same millisecond
    assert abs((child.int >> 32) - (ours.int >> 32)) > 1_000  # and far apart in what both count


def test_a_public_id_is_read_back() -> None:
    made = ids.new_id()
    assert ids.public_id("run", made) == f"run_{made.hex}"
    assert ids.parse_id("run", f"run_{made.hex}") == made


@pytest.mark.parametrize(
    "text",
    [
        "",
        "run",
        "run_",
        "step_0192b5d8a4d07c3e9d1e2f3a4b5c6d7e",
        "run_0192b5d8a4d07c3e9d1e2f3a4b5c6d7",
        "run_0192b5d8a4d07c3e9d1e2f3a4b5c6d7e0",
        "run_0192B5D8A4D07C3E9D1E2F3A4B5C6D7E",
        "run_0192b5d8-a4d0-7c3e-9d1e-2f3a4b5c6d7e",
        "run_{192b5d8a4d07c3e9d1e2f3a4b5c6d7e}",
        "run_zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
        "run_" + "٣" * 32,
        "run_0192b5d8a4d07c3e9d1e2f3a4b5c6d7e\n",
        "run_0192b5d8a4d07c3e9d1e2f3a4b5c6d\x00e",
    ],
)
def test_a_bad_id_is_like_a_missing_row(text: str) -> None:
    with pytest.raises(NotFound):
        ids.parse_id("run", text)
