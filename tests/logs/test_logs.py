"""Log lines: one JSON object each, the same fields everywhere, no secrets."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog

from agentstate import logs


@pytest.fixture
def lines(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """What was logged as JSON since the last time asked."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    logs.configure({"format": "json"})
    structlog.contextvars.clear_contextvars()
    yield lambda: [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    root.handlers, root.level = handlers, level
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_a_line_is_one_json_object_with_the_bound_fields_first(lines: Any) -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1", run_id="run_1")
    structlog.get_logger("x").info("turn.done", steps=3, fence=7, text="a\nb")
    (line,) = lines()
    assert list(line)[:6] == ["timestamp", "level", "event", "run_id", "fence", "request_id"]
    assert {key: line[key] for key in ("level", "event", "run_id", "request_id", "steps", "text")} == {
        "level": "info",
        "event": "turn.done",
        "run_id": "run_1",
        "request_id": "r-1",
        "steps": 3,
        "text": "a\nb",
    }


def test_the_standard_librarys_lines_look_the_same(lines: Any) -> None:
    structlog.contextvars.bind_contextvars(request_id="r-1")
    logging.getLogger("django.request").warning("Not found: %s", "/x", extra={"status": 404})
    (line,) = lines()
    assert (line["event"], line["level"], line["request_id"], line["status"]) == (
        "Not found: /x",
        "warning",
        "r-1",
        404,
    )


@pytest.mark.parametrize(
    ("fields", "hidden"),
    [
        ({"password": "hunter2"}, "hunter2"),
        ({"headers": {"Authorization": "Bearer abcdefghijklmnopqrstuvwx"}}, "abcdefghijklmnopqrstuvwx"),
        ({"url": "postgresql://app:s3cretword@db/x"}, "s3cretword"),
        ({"message": "key sk-abcdefghijklmnopqrstuv is bad"}, "abcdefghijklmnopqrstuv"),
    ],
)
def test_secrets_are_cut_out(lines: Any, fields: dict[str, Any], hidden: str) -> None:
    structlog.get_logger("x").info("call", **fields, run_id="run_1")
    (line,) = lines()
    assert hidden not in json.dumps(line)
    assert line["run_id"] == "run_1"


def test_an_exception_is_one_line_without_the_secrets_in_its_text(lines: Any) -> None:
    for logger in (structlog.get_logger("x"), logging.getLogger("y")):
        try:
            raise RuntimeError("cannot reach postgresql://app:s3cretword@db/x")
        except RuntimeError:
            logger.exception("failed")
        (line,) = lines()
        assert "RuntimeError" in line["exception"]
        assert "s3cretword" not in json.dumps(line)


def test_setting_up_twice_writes_each_line_once(lines: Any) -> None:
    logs.configure({"format": "json"})
    structlog.get_logger("x").info("once")
    assert len(lines()) == 1


def test_a_terminal_gets_aligned_text(lines: Any, capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure({"format": "console"})
    structlog.get_logger("x").info("turn.done", run_id="run_1")
    line = capsys.readouterr().err
    assert "turn.done" in line
    assert "run_id=run_1" in line


def test_noise_below_the_level_is_dropped(lines: Any) -> None:
    structlog.get_logger("x").debug("quiet")
    logging.getLogger("httpx").info("GET /")
    assert lines() == []
