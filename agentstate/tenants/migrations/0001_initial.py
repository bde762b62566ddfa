"""Users, tenants, and what every other table stands on: the scope's function and the append-only trigger."""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.text
from django.conf import settings
from django.db import migrations, models

import agentstate.core.ids
import agentstate.tenants.security
from agentstate.tenants import functions


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        functions.plain(functions.TENANT, drop="agentstate_tenant()"),
        functions.plain(functions.APPEND_ONLY, drop="agentstate_append_only()"),
        migrations.CreateModel(
            name="User",
            fields=[
                ("password", models.CharField(max_length=128, verbose_name="password")),
                ("last_login", models.DateTimeField(blank=True, null=True, verbose_name="last login")),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("email", models.EmailField(max_length=254, unique=True)),
                ("name", models.CharField(blank=True, default="", max_length=200)),
                ("is_active", models.BooleanField(default=True)),
                (
                    "theme",
                    models.CharField(
                        choices=[("system", "System"), ("light", "Light"), ("dark", "Dark")],
                        default="system",
                        max_length=8,
                    ),
                ),
                (
                    "density",
                    models.CharField(
                        choices=[("comfortable", "Comfortable"), ("compact", "Compact")],
                        default="comfortable",
                        max_length=12,
                    ),
                ),
                ("created", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "constraints": [
                    agentstate.tenants.security.GlobalTable(
                        grants="SELECT, INSERT, UPDATE", name="tenants_user_grants"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("email", django.db.models.functions.text.Lower("email"))),
                        name="tenants_user_email_lower",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                ("audit_head", models.BinaryField(db_default=b"", default=bytes)),
                ("audit_seq", models.IntegerField(db_default=0, default=0, editable=False)),
                ("name", models.CharField(max_length=200)),
                ("prefix", models.CharField(max_length=16)),
                ("digest", models.BinaryField(max_length=32)),
                (
                    "scopes",
                    django.contrib.postgres.fields.ArrayField(base_field=models.CharField(max_length=32), size=None),
                ),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("created_by", models.CharField(blank=True, default="", max_length=200)),
                ("expires_at", models.DateTimeField(blank=True, null=True)),
                ("last_used_at", models.DateTimeField(blank=True, null=True)),
                ("revoked_at", models.DateTimeField(blank=True, null=True)),
            ],
            options={
                "abstract": False,
                "constraints": [
                    agentstate.tenants.security.RowSecurity(grants="SELECT, INSERT, UPDATE", name="tenants_apikey_rls"),
                    models.UniqueConstraint(fields=("tenant_id", "id"), name="tenants_apikey_tenant_id"),
                    agentstate.tenants.security.SweeperReads(
                        columns=[
                            "tenant_id",
                            "id",
                            "name",
                            "digest",
                            "scopes",
                            "expires_at",
                            "last_used_at",
                            "revoked_at",
                        ],
                        name="tenants_apikey_sweeper",
                    ),
                    models.UniqueConstraint(fields=("digest",), name="tenants_apikey_digest"),
                ],
            },
        ),
        migrations.CreateModel(
            name="KeyRing",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                ("purpose", models.CharField(choices=[("wrap", "Wrap"), ("hmac", "Hmac")], max_length=4)),
                ("version", models.IntegerField()),
                ("wrapped", models.BinaryField()),
                ("created", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "abstract": False,
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE", name="tenants_keyring_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "id"), name="tenants_keyring_tenant_id"),
                    models.UniqueConstraint(fields=("tenant_id", "purpose", "version"), name="tenants_keyring_version"),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("purpose", "wrap"), ("version__gte", 1)),
                            models.Q(("purpose", "hmac"), ("version", 1)),
                            _connector="OR",
                        ),
                        name="tenants_keyring_purpose",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Tenant",
            fields=[
                ("audit_head", models.BinaryField(db_default=b"", default=bytes)),
                ("audit_seq", models.IntegerField(db_default=0, default=0, editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("slug", models.SlugField(max_length=60, unique=True)),
                ("name", models.CharField(max_length=200)),
                ("colour", models.CharField(default="slate", max_length=16)),
                ("production", models.BooleanField(default=False)),
                ("created", models.DateTimeField(auto_now_add=True)),
            ],
            options={
                "constraints": [
                    agentstate.tenants.security.GlobalTable(
                        grants="SELECT, INSERT, UPDATE", name="tenants_tenant_grants"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="TenantSetting",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                ("audit_head", models.BinaryField(db_default=b"", default=bytes)),
                ("audit_seq", models.IntegerField(db_default=0, default=0, editable=False)),
                ("key", models.CharField(max_length=200)),
                ("value", models.JSONField()),
                ("updated", models.DateTimeField(auto_now=True)),
            ],
            options={
                "abstract": False,
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE, DELETE", name="tenants_tenantsetting_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "id"), name="tenants_tenantsetting_tenant_id"),
                    models.UniqueConstraint(fields=("tenant_id", "key"), name="tenants_tenantsetting_key"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Membership",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                ("audit_head", models.BinaryField(db_default=b"", default=bytes)),
                ("audit_seq", models.IntegerField(db_default=0, default=0, editable=False)),
                (
                    "role",
                    models.CharField(
                        choices=[
                            ("viewer", "Viewer"),
                            ("operator", "Operator"),
                            ("approver", "Approver"),
                            ("admin", "Admin"),
                        ],
                        max_length=8,
                    ),
                ),
                ("created", models.DateTimeField(auto_now_add=True)),
                ("removed_at", models.DateTimeField(blank=True, null=True)),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="memberships",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "abstract": False,
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE", name="tenants_membership_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "id"), name="tenants_membership_tenant_id"),
                    agentstate.tenants.security.SweeperReads(
                        columns=["tenant_id", "user_id", "role", "created", "removed_at"],
                        name="tenants_membership_sweeper",
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "user"), name="tenants_membership_once"),
                    models.CheckConstraint(
                        condition=models.Q(("role__in", ["viewer", "operator", "approver", "admin"])),
                        name="tenants_membership_role",
                    ),
                ],
            },
        ),
        functions.crossing(
            "agentstate_resolve_key(bytea)",
            arguments="wanted bytea",
            returns="TABLE (id uuid, tenant_id uuid, name text, scopes text[], expires_at timestamptz, "
            "last_used_at timestamptz, revoked_at timestamptz)",
            # One row or none, by the unique index on digest; whoever can ask has the token's digest already.
            body="""
SELECT k.id, k.tenant_id, k.name::text, k.scopes::text[], k.expires_at, k.last_used_at, k.revoked_at
FROM tenants_apikey k WHERE k.digest = wanted""",
        ),
        functions.crossing(
            "agentstate_tenants_of(uuid)",
            arguments="person uuid",
            returns="TABLE (tenant_id uuid, role text)",
            body="""
SELECT m.tenant_id, m.role::text FROM tenants_membership m WHERE m.user_id = person AND m.removed_at IS NULL""",
        ),
    ]
