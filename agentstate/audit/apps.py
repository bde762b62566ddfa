"""Audit: what happened, by whom, from which status to which, why; and the proof that nobody changed it afterwards."""

from __future__ import annotations

from django.apps import AppConfig


class AuditConfig(AppConfig):
    name = "agentstate.audit"
    label = "audit"
