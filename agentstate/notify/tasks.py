"""The delivery's beat."""

from __future__ import annotations

from celery import shared_task

from agentstate.notify import delivery


@shared_task(name="notify.deliver")
def deliver() -> int:
    return delivery.deliver()
