"""Theme, density and keys: server preferences in a cookie, so no page flashes and no script is needed."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_http_methods

from agentstate.http.pages import see_other
from agentstate.web.context import DENSITIES, KEYS, THEMES, Page
from agentstate.web.views.login import safe_next

YEAR_S = 365 * 24 * 3600
CHOICES = {
    "theme": ("Theme", THEMES, ""),
    "density": ("Density", DENSITIES, ""),
    "keys": ("Keyboard shortcuts", KEYS, "Press ? on any page to come here."),
}

SHORTCUTS = (
    (("g", "n"), "Now"),
    (("g", "r"), "Runs"),
    (("g", "a"), "Approvals"),
    (("g", "m"), "Memories"),
    (("g", "s"), "Agents"),
    (("g", "h"), "Health"),
    (("/",), "Find a run"),
    (("j",), "Next row"),
    (("k",), "Row before"),
    (("[",), "Step before"),
    (("]",), "Next step"),
    (("t",), "From a step to its run"),
    (("R",), "Plan to resume a run"),
    (("?",), "This page"),
    (("Esc",), "Close a menu"),
)


@require_http_methods(["GET", "POST"])
def preferences(request: HttpRequest) -> HttpResponse:
    if request.method == "GET":
        context = {"choices": _choices(request), "next": safe_next(request), "shortcuts": SHORTCUTS}
        return render(request, "web/preferences.html", context)
    response = see_other(request, safe_next(request))
    for name, (_, allowed, _) in CHOICES.items():
        if (value := request.POST.get(name, "")) in allowed:
            response.set_cookie(name, value, max_age=YEAR_S, samesite="Lax", httponly=True)
    return response


def _choices(request: HttpRequest) -> list[dict[str, object]]:
    current = Page(request)
    return [
        {"name": name, "title": title, "options": allowed.items(), "value": getattr(current, name), "hint": hint}
        for name, (title, allowed, hint) in CHOICES.items()
    ]
