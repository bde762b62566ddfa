"""Notices that leave the house: an outbox in Postgres, delivered at least once."""

from __future__ import annotations

from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.core.exceptions import ImproperlyConfigured


class NotifyConfig(AppConfig):
    name = "agentstate.notify"
    label = "notify"

    def ready(self) -> None:
        checks.register(check_mail_server)


def check_mail_server(app_configs: Any = None, **options: Any) -> list[checks.CheckMessage]:
    """E001: EMAIL_URL is set and names no mail server. Unset is fine: then nobody is told by mail."""
    from agentstate.notify import mail

    try:
        mail.server()
    except (ImproperlyConfigured, ValueError) as error:
        return [checks.Error(str(error), id="notify.E001")]
    return []
