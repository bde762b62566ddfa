"""The Celery app. A message only says "look at run R"; Postgres is the truth, so nothing here retries or acks late."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import redis
from celery import Celery
from celery.signals import beat_init, before_task_publish, heartbeat_sent, setup_logging, worker_ready
from kombu import Queue

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentstate.settings")

app = Celery("agentstate")
app.config_from_object("agentstate.celery_settings")
app.autodiscover_tasks(["runs", "checkpoints", "memory", "agentstate.affairs", "agentstate.audit", "agentstate.notify"])
QUEUES = ("drive", "compact", "summarise", "sweep", "deliver")
app.conf.task_queues = [Queue(name) for name in QUEUES]

READY_KEY = "as:ready:{name}"  # the pid of the newest one that takes messages; read by `up`, doctor and Health
READY_S = 30
_present: dict[str, int] = {}  # what this process is, worker or beat: its pid, which a forked pool child does not have


@setup_logging.connect
def log_as_everywhere(**signal: Any) -> None:
    """A receiver keeps Celery from setting up logging of its own."""
    from agentstate import logs

    logs.configure()


@worker_ready.connect
def worker_takes_messages(**signal: Any) -> None:
    _present["worker"] = os.getpid()
    _say_so()


@beat_init.connect
def beat_sends_messages(**signal: Any) -> None:
    _present["beat"] = os.getpid()
    _say_so()


@heartbeat_sent.connect  # a worker, every 2 s
@before_task_publish.connect  # beat, every second; a no-op in every other process
def _say_so(**signal: Any) -> None:
    from agentstate.db.wake import redis as client

    for name, pid in _present.items():
        if pid == os.getpid():
            with suppress(redis.RedisError, OSError):  # only a sign of life; the next one will do
                client().set(READY_KEY.format(name=name), pid, ex=READY_S)
