"""Every address of the service: probes, the REST API below /api/, the pages below /."""

from __future__ import annotations

from django.urls import include, path

from agentstate.affairs import probes

urlpatterns = [
    path("livez", probes.live, name="livez"),
    path("readyz", probes.ready, name="readyz"),
    path("api/", include("agentstate.api.urls")),
    path("", include("agentstate.web.urls")),
    path("", include("runs.urls")),
]
