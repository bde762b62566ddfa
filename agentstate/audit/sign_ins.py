"""Sign-ins in the trail: on the chain of the person's membership, in every tenant that person belongs to.

An unknown e-mail address has no membership, so nothing is written: a log line of http.throttle is all there is.
"""

from __future__ import annotations

from typing import Any

from django.contrib.auth import user_logged_in, user_login_failed
from django.db import transaction
from django.http import HttpRequest

from agentstate.audit import trail
from agentstate.tenants import keyring, members
from agentstate.tenants.actors import system
from agentstate.tenants.models import Membership, Tenant, User
from agentstate.tenants.scope import tenant_scope


def connect() -> None:
    user_logged_in.connect(signed_in, dispatch_uid="audit.signed_in")
    user_login_failed.connect(failed_to_sign_in, dispatch_uid="audit.failed_to_sign_in")


def signed_in(request: HttpRequest | None, user: User, **signal: Any) -> None:
    address = _address(request)
    # After the commit: a sign-in belongs to several tenants, and a scope to one.
    transaction.on_commit(lambda: _record(user, "signed_in", address))


def failed_to_sign_in(credentials: dict[str, Any], request: HttpRequest | None = None, **signal: Any) -> None:
    email = str(credentials.get("username") or credentials.get("email") or "").strip().lower()
    user = User.objects.filter(email=email, is_active=True).first()
    if user:
        address = _address(request)
        transaction.on_commit(lambda: _record(user, "sign_in_failed", address))


def _record(user: User, action: str, address: str) -> None:
    for tenant in members.tenants_of(user):
        with tenant_scope(tenant.id):
            member = Membership.objects.get(user=user)
            # Who it was when it failed, nobody knows.
            actor = members.membership(user, tenant) if action == "signed_in" else system("sign-in")
            trail.record(member, action=action, actor=actor, detail=_detail(tenant, address))


def _detail(tenant: Tenant, address: str) -> dict[str, str]:
    """The address as an HMAC: the same address can be recognised, and not read."""
    return {"address": keyring.hmac(tenant.id, address.encode()).hex()[:32]} if address else {}


def _address(request: HttpRequest | None) -> str:
    return str(request.META.get("REMOTE_ADDR", "")) if request else ""
