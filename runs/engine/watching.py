"""The watcher: a loop in the main process of each Celery worker that hints at due runs and notices dead workers.

The pool's children may all be busy, and beat may be down; this one has nothing else to do.
"""

from __future__ import annotations

import os
import threading
from uuid import UUID

import structlog
from django.db import DatabaseError, close_old_connections, connection

from runs.engine import hosting
from runs.services import sweep

log = structlog.get_logger(__name__)
EVERY_S = 0.25


class Watcher(threading.Thread):
    def __init__(self) -> None:
        super().__init__(name="agentstate-watcher", daemon=True)
        self._ended = threading.Event()

    def run(self) -> None:
        hosting.this_process(os.getpid())  # shown as a worker from the start, before any child has taken a run
        missed: set[UUID] = set()
        while not self._ended.wait(EVERY_S):
            try:
                missed = sweep.notice_dead(missed)
                sweep.look(hosting.specs())
                sweep.expire_questions()
            except DatabaseError as error:  # a server that restarts: the next look finds it
                log.warning("watcher.database", error=type(error).__name__)
                close_old_connections()
        connection.close()

    def stop(self) -> None:
        self._ended.set()
