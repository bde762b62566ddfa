"""The Celery app. A message only says "look at run R"; Postgres is the truth, so nothing here retries or acks late."""

from __future__ import annotations

import logging
import os
from typing import Any

from celery import Celery
from celery.signals import beat_init, before_task_publish, heartbeat_sent, setup_logging, worker_ready
from kombu import Queue

from agentstate import presence

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentstate.settings")

app = Celery("agentstate")
app.config_from_object("agentstate.celery_settings")
app.autodiscover_tasks(["runs", "checkpoints", "memory", "agentstate.affairs", "agentstate.audit", "agentstate.notify"])
QUEUES = ("drive", "compact", "summarise", "sweep", "deliver")
app.conf.task_queues = [Queue(name) for name in QUEUES]


@setup_logging.connect
def log_as_everywhere(**signal: Any) -> None:
    """A receiver keeps Celery from setting up logging of its own."""
    from django.conf import settings

    from agentstate import logs

    logs.configure(settings.LOGGING)
    logging.getLogger("celery").setLevel(logging.WARNING)  # else two lines for each message, every second


@worker_ready.connect
def worker_takes_messages(**signal: Any) -> None:
    presence.announce("worker")


@beat_init.connect
def beat_sends_messages(**signal: Any) -> None:
    presence.announce("beat")


@heartbeat_sent.connect  # a worker, every 2 s
@before_task_publish.connect  # beat, every second
def still_there(**signal: Any) -> None:
    presence.refresh()
