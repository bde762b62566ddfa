"""What our Celery processes do beside their work: log as everything else does, and give signs of life."""

from __future__ import annotations

import logging
from typing import Any

from celery.signals import beat_init, before_task_publish, heartbeat_sent, setup_logging, task_prerun

from agentstate import presence


@setup_logging.connect
def log_as_everywhere(**signal: Any) -> None:
    """A receiver keeps Celery from setting up logging of its own."""
    from django.conf import settings

    from agentstate import logs

    logs.configure(settings.LOGGING)
    logging.getLogger("celery").setLevel(logging.WARNING)  # else two lines for each message, every second


@beat_init.connect
def beat_sends_messages(**signal: Any) -> None:
    presence.announce("beat")


@heartbeat_sent.connect  # a worker, every 2 s
@before_task_publish.connect  # beat, every second
def still_there(**signal: Any) -> None:
    presence.refresh()


@task_prerun.connect
def only_living_connections(**signal: Any) -> None:
    """A child keeps its connection from task to task; the server may be gone meanwhile."""
    from agentstate.db import sql

    sql.drop_dead()
