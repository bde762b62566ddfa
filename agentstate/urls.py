"""Every address of the service: probes, the REST API below /api/, the pages below /."""

from __future__ import annotations

from django.urls import include, path

from agentstate.affairs import probes

handler400 = "agentstate.http.refusals.bad_request"
handler403 = "agentstate.http.refusals.forbidden"
handler404 = "agentstate.http.refusals.not_found"
handler500 = "agentstate.http.refusals.server_error"

urlpatterns = [
    path("livez", probes.live, name="livez"),
    path("readyz", probes.ready, name="readyz"),
    path("api/", include("agentstate.api.urls")),
    path("", include("agentstate.web.urls")),
    path("", include("runs.urls")),
    path("", include("memory.urls")),
]
