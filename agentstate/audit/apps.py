"""Audit: what happened, by whom, from which status to which, why; and the proof that nobody changed it afterwards."""

from __future__ import annotations

from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "agentstate.audit"
    label = "audit"

    def ready(self) -> None:
        from agentstate.audit import sign_ins

        sign_ins.connect()
