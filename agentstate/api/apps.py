from __future__ import annotations

from django.apps import AppConfig


class ApiConfig(AppConfig):
    """The REST API: one NinjaAPI object that joins the tiers' routers."""

    name = "agentstate.api"
    label = "api"
