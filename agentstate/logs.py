"""Logs: one event per line with fields, as JSON for machines or aligned for a terminal; secrets are cut out.

Fields with a fixed meaning: run_id, step, fence, tenant, trace_id, request_id. Bind them once with
structlog.contextvars; they are on every line of the same request or task. No customer text belongs into a log.
"""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from agentstate.http.redaction import redact

FIELDS_FIRST = ("timestamp", "level", "event", "tenant", "run_id", "step", "fence", "trace_id", "request_id")
QUIET = {"httpx": "WARNING", "httpcore": "WARNING", "kombu": "WARNING", "amqp": "WARNING", "asyncio": "WARNING"}


class Stderr(logging.StreamHandler[TextIO]):
    """Writes to what sys.stderr is at that moment: it may be exchanged (tests, a worker's child) after the set-up."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


def configure(options: dict[str, Any] | None = None) -> None:
    """Set up structlog and the standard library's logging alike. Idempotent.

    `options`: {"format": "json" | "console" | "" (console on a terminal, else json), "level": "INFO"}. Django hands
    over settings.LOGGING when settings.LOGGING_CONFIG names this function.
    """
    chosen = options or {}
    as_json = (chosen.get("format") or ("console" if sys.stderr.isatty() else "json")) == "json"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        without_secrets,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    _attach(_formatter(shared, as_json=as_json), level=str(chosen.get("level") or "INFO"))


def without_secrets(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Values under secret names and texts that look like credentials are replaced, wherever they stand."""
    redacted: EventDict = redact(dict(event))
    return redacted


def _formatter(shared: list[Processor], *, as_json: bool) -> logging.Formatter:
    last: list[Processor] = [_ordered, _json] if as_json else [structlog.dev.ConsoleRenderer(colors=False)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _attach(formatter: logging.Formatter, *, level: str) -> None:
    handler = Stderr()
    handler.setFormatter(formatter)
    handler.set_name("agentstate")
    root = logging.getLogger()
    root.handlers = [kept for kept in root.handlers if kept.get_name() != "agentstate"] + [handler]
    root.setLevel(level)
    for name, least in QUIET.items():
        logging.getLogger(name).setLevel(least)


def _ordered(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    first = {name: event[name] for name in FIELDS_FIRST if name in event}
    return {**first, **event}


def _json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    return orjson.dumps(event, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
