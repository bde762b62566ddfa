"""What must hold before anything starts: the application role is a harmless one, and no table forgot its policy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import psycopg
from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from agentstate.db import pooling
from agentstate.tenants.security import FOREIGN_TABLES, GlobalTable, RowSecurity

_ROLE = """
SELECT r.rolname, r.rolsuper, r.rolbypassrls,
  (SELECT c.relname FROM pg_class c WHERE c.relowner = r.oid AND c.relkind IN ('r', 'p', 'v', 'm')
     AND c.relnamespace = 'public'::regnamespace ORDER BY c.relname LIMIT 1)
FROM pg_roles r WHERE r.rolname = current_user
"""
_safe = False  # this process has asked once


def register_all() -> None:
    checks.register(check_row_security, checks.Tags.models)
    checks.register(check_application_role, checks.Tags.database)


def check_row_security(app_configs: Sequence[AppConfig] | None = None, **options: Any) -> list[checks.CheckMessage]:
    """E001: a model with a tenant and no policy. E002: one without either, which did not say that it means it."""
    return [message for model in _tables_of(app_configs) for message in _judge(model)]


def check_application_role(
    app_configs: Sequence[AppConfig] | None = None, databases: Sequence[str] | None = None, **options: Any
) -> list[checks.CheckMessage]:
    """E003: row security would not hold for the role in DATABASE_URL."""
    if "default" not in (databases or ()):
        return []
    try:
        reason = unsafe_reason(connections["default"])
    except ImproperlyConfigured as refusal:  # the first connection of this process was refused already
        reason = str(refusal)
    return [checks.Error(reason, id="tenants.E003")] if reason else []


def refuse_unsafe_connection(connection: BaseDatabaseWrapper, **signal: Any) -> None:
    """On the first connection of a process: web servers and workers run no checks of the tag database.

    Raises: ImproperlyConfigured.
    """
    global _safe
    if _safe or connection.alias != "default":
        return
    reason = unsafe_reason(connection) or _pooler_reason(connection)
    if reason:
        connection.close()  # else the next query would use it without asking again
        raise ImproperlyConfigured(reason)
    _safe = True


def unsafe_reason(connection: BaseDatabaseWrapper) -> str:
    """One sentence on why this role must not serve requests and what to do, or nothing."""
    with connection.cursor() as cursor:
        cursor.execute(_ROLE)
        role, superuser, bypass, owned = cursor.fetchone()
    trouble = (
        "is a superuser" if superuser else "has BYPASSRLS" if bypass else f"owns the table {owned}" if owned else ""
    )
    if not trouble:
        return ""
    return (
        f"The database role {role} in DATABASE_URL {trouble}, so row security would not keep tenants apart: put a role "
        "made with CREATE ROLE .. LOGIN NOSUPERUSER NOBYPASSRLS into DATABASE_URL, and the owner into "
        "DATABASE_OWNER_URL, for migrations only."
    )


def _pooler_reason(connection: BaseDatabaseWrapper) -> str:
    """Said once and in words, not later as a plan that "does not exist"."""
    try:
        pooled = pooling.is_pooled(connection.connection)
        return pooling.plans_trouble("DATABASE_URL", settings.DATABASE_URL) if pooled else ""
    except psycopg.Error:  # whoever wanted the connection learns it by itself
        return ""


def _tables_of(app_configs: Sequence[AppConfig] | None) -> Iterable[type[models.Model]]:
    for config in app_configs or apps.get_app_configs():
        for model in config.get_models(include_auto_created=True):
            if model._meta.managed and not model._meta.proxy and model._meta.db_table not in FOREIGN_TABLES:
                yield model


def _judge(model: type[models.Model]) -> list[checks.CheckMessage]:
    has_tenant = any(field.name == "tenant_id" for field in model._meta.local_fields)
    kinds = {type(constraint) for constraint in model._meta.constraints}
    if has_tenant and RowSecurity not in kinds:
        return [
            checks.Error(
                f"{model._meta.label} has a tenant_id and no RowSecurity, so every tenant reads its rows.",
                hint="Write class Meta(TenantModel.Meta) and constraints = [*TenantModel.Meta.constraints, ...].",
                obj=model,
                id="tenants.E001",
            )
        ]
    if not has_tenant and GlobalTable not in kinds:
        return [
            checks.Error(
                f"{model._meta.label} has no tenant.",
                hint="Inherit TenantModel; or, if its rows belong to nobody, add GlobalTable to Meta.constraints.",
                obj=model,
                id="tenants.E002",
            )
        ]
    return []
