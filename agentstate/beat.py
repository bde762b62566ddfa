"""The Celery app of the one beat process: the schedule and nothing else. `celery -A agentstate.beat beat`.

It loads neither Django's apps nor any task, so it starts in half the time and half the memory.
"""

from __future__ import annotations

import os

from celery import Celery

from agentstate import celery_signals

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "agentstate.settings")

__all__ = ["app", "celery_signals"]

app = Celery("agentstate", fixups=[])
app.config_from_object("agentstate.celery_settings")
