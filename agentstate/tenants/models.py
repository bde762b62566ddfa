"""Who: users, tenants, members, API keys, and the keys and settings of each tenant. Services write, not models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Lower

from agentstate.core.ids import new_id
from agentstate.core.limits import EMAIL_CHARS_MAX, NAME_CHARS_MAX, SLUG_CHARS_MAX
from agentstate.tenants.security import GlobalTable, RowSecurity, SweeperReads, TenantModel


def _kept(table: str) -> list[models.BaseConstraint]:
    """TenantModel's constraints for a table from which the application cannot delete."""
    return [
        RowSecurity(name=f"{table}_rls", grants="SELECT, INSERT, UPDATE"),
        models.UniqueConstraint(fields=["tenant_id", "id"], name=f"{table}_tenant_id"),
    ]


class Audited(models.Model):
    """Carries the head of its own audit chain; agentstate.audit moves both under the row's lock."""

    audit_head = models.BinaryField(default=bytes, db_default=b"", editable=False)
    audit_seq = models.IntegerField(default=0, db_default=0, editable=False)

    class Meta:
        abstract = True


if TYPE_CHECKING:  # Django's class takes a parameter in the type stubs only
    _UserManager = BaseUserManager["User"]
else:
    _UserManager = BaseUserManager


class UserManager(_UserManager):
    def create_user(self, email: str, password: str | None = None, **fields: Any) -> User:
        """`password` None makes an account that cannot sign in with one."""
        user = self.model(email=email.strip().lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def get_by_natural_key(self, username: str | None) -> User:
        return self.get(email=(username or "").strip().lower())


class User(AbstractBaseUser):
    """One person, who may be a member of several tenants. Written by sign-up and seed; never deleted, deactivated."""

    class Theme(models.TextChoices):
        SYSTEM = "system"
        LIGHT = "light"
        DARK = "dark"

    class Density(models.TextChoices):
        COMFORTABLE = "comfortable"
        COMPACT = "compact"

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    email = models.EmailField(unique=True, max_length=EMAIL_CHARS_MAX)
    name = models.CharField(max_length=NAME_CHARS_MAX, blank=True, default="")
    is_active = models.BooleanField(default=True)
    theme = models.CharField(max_length=8, choices=Theme.choices, default=Theme.SYSTEM)
    density = models.CharField(max_length=12, choices=Density.choices, default=Density.COMFORTABLE)
    created = models.DateTimeField(auto_now_add=True)

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []
    objects: ClassVar[UserManager] = UserManager()

    class Meta:
        constraints = [
            GlobalTable(name="tenants_user_grants", grants="SELECT, INSERT, UPDATE"),
            models.CheckConstraint(name="tenants_user_email_lower", condition=models.Q(email=Lower("email"))),
        ]

    def __str__(self) -> str:
        return self.name or self.email

    def clean(self) -> None:
        self.email = self.email.strip().lower()


class Tenant(Audited):
    """One customer. The only table besides User that every tenant's requests read, so it holds no secret."""

    id = models.UUIDField(primary_key=True, default=new_id, editable=False)
    slug = models.SlugField(unique=True, max_length=SLUG_CHARS_MAX)
    name = models.CharField(max_length=NAME_CHARS_MAX)
    colour = models.CharField(max_length=16, default="slate")
    production = models.BooleanField(default=False)  # pages mark it, and ask twice
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [GlobalTable(name="tenants_tenant_grants", grants="SELECT, INSERT, UPDATE")]

    def __str__(self) -> str:
        return self.name


class Membership(Audited, TenantModel):
    """A user in a tenant. Removing marks the row, so that its audit chain keeps its head; adding again revives it."""

    class Role(models.TextChoices):
        VIEWER = "viewer"
        OPERATOR = "operator"
        APPROVER = "approver"
        ADMIN = "admin"

    user = models.ForeignKey(User, on_delete=models.PROTECT, related_name="memberships")
    role = models.CharField(max_length=8, choices=Role.choices)
    created = models.DateTimeField(auto_now_add=True)
    removed_at = models.DateTimeField(null=True, blank=True)

    class Meta(TenantModel.Meta):
        constraints = [
            *_kept("tenants_membership"),
            SweeperReads(
                name="tenants_membership_sweeper", columns=["tenant_id", "user_id", "role", "created", "removed_at"]
            ),
            models.UniqueConstraint(fields=["tenant_id", "user"], name="tenants_membership_once"),
            models.CheckConstraint(
                name="tenants_membership_role", condition=models.Q(role__in=["viewer", "operator", "approver", "admin"])
            ),
        ]


class ApiKey(Audited, TenantModel):
    """A machine's way in. The token is shown once; we keep its digest. Revoked and expired ones stay for the audit."""

    name = models.CharField(max_length=NAME_CHARS_MAX)
    prefix = models.CharField(max_length=16)  # first characters of the token, to tell keys apart
    digest = models.BinaryField(max_length=32)  # SHA-256 of the token, which holds 192 random bits
    scopes = ArrayField(models.CharField(max_length=32))  # verbs of tenants.actors
    created = models.DateTimeField(auto_now_add=True)
    created_by = models.CharField(max_length=NAME_CHARS_MAX, blank=True, default="")  # the actor's name then
    expires_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)  # written once a minute at most
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta(TenantModel.Meta):
        constraints = [
            *_kept("tenants_apikey"),
            SweeperReads(
                name="tenants_apikey_sweeper",
                columns=["tenant_id", "id", "name", "digest", "scopes", "expires_at", "last_used_at", "revoked_at"],
            ),
            models.UniqueConstraint(fields=["digest"], name="tenants_apikey_digest"),  # agentstate_resolve_key
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class KeyRing(TenantModel):
    """One version of one key of a tenant, wrapped by the master key. Versions are added, re-wrapped, never deleted."""

    class Purpose(models.TextChoices):
        WRAP = "wrap"  # wraps the keys of runs and subjects
        HMAC = "hmac"  # one version for ever: stored hashes are compared with it

    purpose = models.CharField(max_length=4, choices=Purpose.choices)
    version = models.IntegerField()
    wrapped = models.BinaryField()
    created = models.DateTimeField(auto_now_add=True)

    class Meta(TenantModel.Meta):
        constraints = [
            *_kept("tenants_keyring"),
            models.UniqueConstraint(fields=["tenant_id", "purpose", "version"], name="tenants_keyring_version"),
            models.CheckConstraint(
                name="tenants_keyring_purpose",
                condition=models.Q(purpose="wrap", version__gte=1) | models.Q(purpose="hmac", version=1),
            ),
        ]


class TenantSetting(Audited, TenantModel):
    """One setting that differs from its default. Written by admins on the settings page."""

    key = models.CharField(max_length=NAME_CHARS_MAX)
    value = models.JSONField()
    updated = models.DateTimeField(auto_now=True)

    class Meta(TenantModel.Meta):
        constraints = [
            *TenantModel.Meta.constraints,
            models.UniqueConstraint(fields=["tenant_id", "key"], name="tenants_tenantsetting_key"),
        ]
