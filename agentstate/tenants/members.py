"""Members: who belongs to a tenant and in which role. A tenant always keeps one admin."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.db import transaction
from django.utils.text import slugify

from agentstate.core import clock
from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.limits import EMAIL_CHARS_MAX, NAME_CHARS_MAX, SLUG_CHARS_MAX
from agentstate.tenants import keyring, recording
from agentstate.tenants.actors import Actor, require, system, tenant_of
from agentstate.tenants.models import Membership, Tenant, User
from agentstate.tenants.scope import tenant_scope

_TENANTS_OF = """
SELECT t.*, m.role AS member_role FROM agentstate_tenants_of(%s) m JOIN tenants_tenant t ON t.id = m.tenant_id
ORDER BY t.name, t.id
"""


def tenants_of(user: Any) -> list[Tenant]:
    """The tenants of a signed-in person, by name; each carries the person's role as `member_role`. One round trip."""
    if not getattr(user, "is_active", False) or getattr(user, "pk", None) is None:
        return []
    return list(Tenant.objects.raw(_TENANTS_OF, [user.pk]))


def membership(user: User, tenant: Tenant) -> Actor:
    """The person as an actor in this tenant. Raises: NotFound when no member, as if the tenant did not exist."""
    for mine in tenants_of(user):
        if mine.pk == tenant.pk:
            return Actor(kind="user", id=str(user.pk), name=str(user), tenant_id=mine.pk, role=mine.member_role)  # type: ignore[attr-defined]
    raise NotFound


def found(*, slug: str, name: str, admin: User, colour: str = "slate", production: bool = False) -> Tenant:
    """A new tenant with its keys and its first admin. Raises: Invalid, Conflict when the slug is taken."""
    slug = _checked_slug(slug)
    name = _checked(name, field="name", chars_max=NAME_CHARS_MAX)
    with transaction.atomic():
        tenant, made = Tenant.objects.get_or_create(
            slug=slug, defaults={"name": name, "colour": colour, "production": production}
        )
        if not made:
            raise Conflict(f"There is a tenant “{slug}” already: choose another short name.", field="slug")
        keyring.ensure(tenant.pk)
        add(admin, role=Membership.Role.ADMIN, actor=system("founding", tenant_id=tenant.pk))
    return tenant


def invite(*, email: str, role: str, actor: Actor, name: str = "") -> Membership:
    """Make the person a member by mail address; an unknown one gets an account without a password.

    Raises: Forbidden, Invalid, Conflict when a member already.
    """
    require(actor, "admin.members")
    email = email.strip().lower()
    try:
        validate_email(email)
    except ValidationError:
        raise Invalid("This is not a mail address.", field="email") from None
    if len(email) > EMAIL_CHARS_MAX:
        raise Invalid(f"A mail address has at most {EMAIL_CHARS_MAX} characters.", field="email")
    with transaction.atomic():
        user = User.objects.filter(email=email).first()
        if user is None:
            user = User.objects.create_user(email, None, name=name.strip()[:NAME_CHARS_MAX])
        return add(user, role=role, actor=actor)


def add(user: User, *, role: str, actor: Actor) -> Membership:
    """Raises: Forbidden, Invalid, Conflict when a member already. Locks: the tenant."""
    require(actor, "admin.members")
    role = _checked_role(role)
    with tenant_scope(tenant_of(actor)):
        _lock_tenant(actor)
        member = Membership.objects.filter(user=user).first()
        if member is not None and member.removed_at is None:
            raise Conflict(f"{user} is a member already, as {member.role}. Change the role instead.", role=member.role)
        if member is None:
            member = Membership.objects.create(user=user, role=role)
        else:
            member.role, member.removed_at = role, None
            member.save(update_fields=["role", "removed_at"])
        recording.record(member, action="added", actor=actor, detail={"role": role, "user": str(user.pk)})
    return member


def change_role(user_id: UUID, *, role: str, actor: Actor, reason: str = "") -> Membership:
    """Idempotent. Raises: Forbidden, NotFound, Invalid, Conflict for the last admin. Locks: the tenant."""
    require(actor, "admin.members")
    role = _checked_role(role)
    with tenant_scope(tenant_of(actor)):
        _lock_tenant(actor)
        member = _member(user_id)
        if member.role != role:
            _refuse_last_admin(member)
            detail = {"from": member.role, "to": role}
            member.role = role
            member.save(update_fields=["role"])
            recording.record(member, action="role_changed", actor=actor, reason=reason, detail=detail)
    return member


def remove(user_id: UUID, *, actor: Actor, reason: str = "") -> Membership:
    """Raises: Forbidden, NotFound, Conflict for the last admin. Locks: the tenant."""
    require(actor, "admin.members")
    with tenant_scope(tenant_of(actor)):
        _lock_tenant(actor)
        member = _member(user_id)
        _refuse_last_admin(member)
        member.removed_at = clock.now()
        member.save(update_fields=["removed_at"])
        recording.record(member, action="removed", actor=actor, reason=reason, detail={"role": member.role})
    return member


def _lock_tenant(actor: Actor) -> None:
    Tenant.objects.select_for_update(no_key=True).get(pk=tenant_of(actor))  # else two admins remove each other at once


def _member(user_id: UUID) -> Membership:
    member = Membership.objects.filter(user_id=user_id, removed_at=None).first()
    if member is None:
        raise NotFound("This person is no member of the tenant.")
    return member


def _refuse_last_admin(member: Membership) -> None:
    if member.role != Membership.Role.ADMIN:
        return
    others = Membership.objects.filter(role=Membership.Role.ADMIN, removed_at=None, user__is_active=True)
    if not others.exclude(pk=member.pk).exists():
        raise Conflict("This is the last admin of the tenant. Make another member an admin first.")


def _checked_role(role: str) -> str:
    if role not in Membership.Role.values:
        raise Invalid(f"Choose a role from: {', '.join(Membership.Role.values)}.", field="role")
    return role


def _checked_slug(slug: str) -> str:
    slug = _checked(slug, field="slug", chars_max=SLUG_CHARS_MAX).lower()
    if slugify(slug) != slug:
        raise Invalid("A slug has letters a to z, digits and hyphens only.", field="slug")
    return slug


def _checked(text: str, *, field: str, chars_max: int) -> str:
    text = text.strip()
    if not text or len(text) > chars_max:
        raise Invalid(f"Give a {field} of 1 to {chars_max} characters.", field=field)
    return text
