"""Every address of the service: probes, the REST API below /api/, the pages below /."""

from __future__ import annotations

from importlib.util import find_spec

from django.urls import URLPattern, URLResolver, include, path

from agentstate.affairs import probes

urlpatterns: list[URLPattern | URLResolver] = [
    path("livez", probes.live, name="livez"),
    path("readyz", probes.ready, name="readyz"),
]
if find_spec("agentstate.api.urls"):
    urlpatterns.append(path("api/", include("agentstate.api.urls")))
urlpatterns.append(path("", include("agentstate.web.urls")))
if find_spec("runs.urls"):
    urlpatterns.append(path("", include("runs.urls")))
