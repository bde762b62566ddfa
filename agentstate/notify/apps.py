"""Notices that leave the house: an outbox in Postgres, delivered at least once."""

from __future__ import annotations

from django.apps import AppConfig


class NotifyConfig(AppConfig):
    name = "agentstate.notify"
    label = "notify"
