"""The Celery app. A message only says "look at run R"; Postgres is the truth, so nothing here retries or acks late."""

from __future__ import annotations

import os

from celery import Celery
from kombu import Queue

from agentstate import celery_signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentstate.settings")

__all__ = ["app", "celery_signals"]

app = Celery("agentstate")
app.config_from_object("agentstate.celery_settings")
app.autodiscover_tasks(["runs", "checkpoints", "memory", "agentstate.affairs", "agentstate.audit", "agentstate.notify"])
QUEUES = ("drive", "compact", "summarise", "sweep", "deliver")
app.conf.task_queues = [Queue(name) for name in QUEUES]
# Celery closes the database's connection before and after each task, which then begins with a session that knows no
# table and no plan. A child keeps its own for as long as it lives; dead ones are dropped, see celery_signals.
app.conf.update(CELERY_DB_REUSE_MAX=app.conf.worker_max_tasks_per_child)
