"""Sign in, sign out, and the way to a tenant."""

from __future__ import annotations

from django.contrib.auth import authenticate, login, logout
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from agentstate.core.limits import EMAIL_CHARS_MAX
from agentstate.http import problems, throttle
from agentstate.http.pages import see_other
from agentstate.tenants import members

PASSWORD_CHARS_MAX = 1000  # hashing a longer one costs us more than it costs whoever sends it
WRONG = "E-mail and password do not match."


@sensitive_post_parameters("password")
@never_cache
@require_http_methods(["GET", "POST"])
def sign_in(request: HttpRequest) -> HttpResponse:
    wanted = safe_next(request)
    if request.method == "GET":
        if request.user.is_authenticated:
            return HttpResponseRedirect(wanted)
        return _form(request, wanted=wanted)
    email = request.POST.get("email", "").strip()[:EMAIL_CHARS_MAX].replace("\0", "")
    address = request.META.get("REMOTE_ADDR", "")
    try:
        throttle.try_login(email, address=address)
    except throttle.TooManyTries as refusal:
        answer = _form(request, wanted=wanted, email=email, error=refusal.message, status=refusal.http_status)
        return problems.with_headers(answer, refusal)
    user = authenticate(request, username=email, password=request.POST.get("password", "")[:PASSWORD_CHARS_MAX])
    if user is None:
        return _form(request, wanted=wanted, email=email, error=WRONG, status=422)
    throttle.forgive_login(email, address=address)
    login(request, user)
    return see_other(request, wanted)


def _form(request: HttpRequest, *, wanted: str, email: str = "", error: str = "", status: int = 200) -> HttpResponse:
    context = {"next": wanted, "email": email, "error": error}
    return render(request, "web/login.html", context, status=status)


def safe_next(request: HttpRequest, default: str = "/") -> str:
    """The page wanted before signing in, if it is one of ours."""
    wanted = request.POST.get("next") or request.GET.get("next") or default
    return wanted if url_has_allowed_host_and_scheme(wanted, allowed_hosts=None) else default


@require_POST
def sign_out(request: HttpRequest) -> HttpResponse:
    logout(request)
    return see_other(request, reverse("login"))


@login_required
@require_GET
def choose_tenant(request: HttpRequest) -> HttpResponse:
    mine = members.tenants_of(request.user)
    if len(mine) == 1:
        return HttpResponseRedirect(reverse("now", args=[mine[0].slug]))
    return render(request, "web/tenants.html")
