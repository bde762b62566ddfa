"""The demo tenant "acme", a person of each role, and one API key. Seeding again changes nothing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict

from django.conf import settings
from django.contrib.auth.hashers import make_password

from agentstate.core.errors import Conflict, Unauthorised
from agentstate.dev.plan import write_private
from agentstate.tenants import api_keys, members
from agentstate.tenants.actors import system
from agentstate.tenants.models import Tenant, User

TENANT = "acme"
ROLES = ("admin", "operator", "approver", "viewer")  # the first one founds the tenant
KEY_NAME = "demo"
KEY_SCOPES = ("runs.read", "runs.start", "runs.control", "runs.work", "memory.write")


class Seeded(TypedDict):
    tenant: str
    api_key: str


def run() -> Seeded:
    """Make what is missing. A token that was handed out and still works means that all of it was made. Idempotent."""
    kept = settings.STATE_DIR / "demo-key"
    token = _kept_token(kept)
    if not token:
        tenant = _people(os.environ["AGENTSTATE_DEMO_PASSWORD"])
        token, _ = api_keys.issue(name=KEY_NAME, scopes=KEY_SCOPES, actor=system("seed", tenant_id=tenant.pk))
        write_private(kept, {"AGENTSTATE_KEY": token})
    return Seeded(tenant=TENANT, api_key=token)


def _people(password: str) -> Tenant:
    encoded = make_password(password)  # once: each takes a third of a second
    users = {role: _person(role, encoded) for role in ROLES}
    tenant = Tenant.objects.filter(slug=TENANT).first()
    tenant = tenant or members.found(slug=TENANT, name="Acme", admin=users[ROLES[0]], colour="teal")
    for role, user in users.items():
        try:
            members.add(user, role=role, actor=system("seed", tenant_id=tenant.pk))
        except Conflict:
            continue  # a member already, perhaps in a role that somebody chose
    return tenant


def _person(role: str, encoded: str) -> User:
    email = f"{role}@example.test"
    user, _ = User.objects.update_or_create(email=email, defaults={"password": encoded, "name": f"Demo {role}"})
    return user


def _kept_token(path: Path) -> str:
    if not path.exists():
        return ""
    token = path.read_text().strip().partition("=")[2]
    try:
        api_keys.resolve(token)
    except Unauthorised:  # revoked, or of another database
        return ""
    return token
