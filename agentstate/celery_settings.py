"""Celery's configuration; each value has a reason in docs/ARCHITECTURE.md ("Celery")."""

from __future__ import annotations

from django.conf import settings

broker_url = settings.BROKER_URL
broker_connection_retry_on_startup = True
broker_transport_options = {"socket_timeout": 10, "health_check_interval": 20, "visibility_timeout": 3600}
task_default_queue = "sweep"
task_serializer = "json"
accept_content = ["json"]
task_ignore_result = True
task_acks_late = False
task_publish_retry_policy = {"max_retries": 1, "interval_start": 0, "interval_max": 0.2}
worker_prefetch_multiplier = 1
worker_max_tasks_per_child = 500
worker_hijack_root_logger = False
worker_soft_shutdown_timeout = 5.0
timezone = "UTC"
# Whatever is not named goes to task_default_queue.
task_routes = {
    "runs.drive": "drive",
    "checkpoints.compact": "compact",
    "notify.deliver": "deliver",
    "memory.summarise": "summarise",
    "memory.extract": "summarise",
    "memory.embed": "summarise",
    "memory.reword": "summarise",
    "memory.consolidate": "summarise",
    "memory.backfill": "summarise",
}
# The net under the watcher. The schedule is code; a message that waited longer than it `expires` is dropped.
beat_schedule = {
    "sweep": {"task": "runs.sweep", "schedule": 1.0, "options": {"expires": 5}},
    "seal": {"task": "audit.seal", "schedule": 60.0, "options": {"expires": 60}},
    "fold": {"task": "runs.fold_counts", "schedule": 60.0, "options": {"expires": 60}},
    "partitions": {"task": "runs.ensure_partitions", "schedule": 86_400.0},
    "deliver": {"task": "notify.deliver", "schedule": 2.0, "options": {"expires": 5}},
    "compact": {"task": "checkpoints.compact", "schedule": 86_400.0},
    "erase": {"task": "affairs.erase", "schedule": 15.0, "options": {"expires": 15}},
    "flush": {"task": "memory.flush", "schedule": 1.0, "options": {"expires": 5}},
    "expire": {"task": "memory.expire", "schedule": 60.0, "options": {"expires": 60}},
    "summarise": {"task": "memory.summarise", "schedule": 15.0, "options": {"expires": 15}},
    "extract": {"task": "memory.extract", "schedule": 15.0, "options": {"expires": 15}},
    "embed": {"task": "memory.embed", "schedule": 15.0, "options": {"expires": 15}},
    "reword": {"task": "memory.reword", "schedule": 60.0, "options": {"expires": 60}},
    "consolidate": {"task": "memory.consolidate", "schedule": 60.0, "options": {"expires": 60}},
    "retain": {"task": "memory.retain", "schedule": 600.0, "options": {"expires": 600}},
    "backfill": {"task": "memory.backfill", "schedule": 600.0, "options": {"expires": 600}},
    "invariants": {"task": "affairs.invariants", "schedule": 3_600.0, "options": {"expires": 600}},
}
