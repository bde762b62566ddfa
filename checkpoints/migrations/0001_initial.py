"""Keys, frames, blobs and pins of runs, and the trigger that keeps frames as they were written."""

import django.db.models.functions.datetime
from django.db import migrations, models

import agentstate.tenants.rules
import agentstate.tenants.security
import checkpoints.constraints
from agentstate.tenants import functions
from checkpoints import constraints


class Migration(migrations.Migration):
    initial = True

    dependencies = [("tenants", "0001_initial")]

    operations = [
        functions.plain(constraints.WRITTEN_ONCE, drop="checkpoints_written_once()"),
        migrations.CreateModel(
            name="Blob",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "run_id", "sha", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("run_id", models.UUIDField()),
                ("sha", models.BinaryField()),
                ("bytes", models.IntegerField()),
                ("body", models.BinaryField()),
                ("created", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, DELETE, UPDATE (created)", name="checkpoints_blob_rls"
                    ),
                    checkpoints.constraints.WrittenOnce(name="checkpoints_blob_written_once"),
                    checkpoints.constraints.ExternalBody(name="checkpoints_blob_body"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Frame",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "run_id", "n", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("run_id", models.UUIDField()),
                ("n", models.IntegerField()),
                ("generation", models.IntegerField()),
                ("step_seq", models.IntegerField(null=True)),
                ("kind", models.CharField(max_length=16)),
                ("base_n", models.IntegerField(null=True)),
                ("schema_version", models.IntegerField()),
                ("sha", models.BinaryField()),
                ("chain", models.BinaryField()),
                ("plain_bytes", models.IntegerField()),
                ("body", models.BinaryField()),
                ("fence", models.BigIntegerField()),
                ("created", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
            ],
            options={
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, DELETE, UPDATE (body, base_n)",
                        hot=True,
                        name="checkpoints_frame_rls",
                    ),
                    checkpoints.constraints.WrittenOnce(name="checkpoints_frame_written_once"),
                    checkpoints.constraints.ExternalBody(name="checkpoints_frame_body"),
                    agentstate.tenants.rules.RowRule(
                        columns=["base_n", "n"], name="checkpoints_frame_base", rule="new.base_n < new.n"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Pin",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "run_id", "n", "holder", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("run_id", models.UUIDField()),
                ("n", models.IntegerField()),
                ("holder", models.UUIDField()),
            ],
            options={
                "indexes": [models.Index(fields=["holder"], name="checkpoints_pin_holder")],
                "constraints": [
                    agentstate.tenants.security.RowSecurity(grants="SELECT, INSERT, DELETE", name="checkpoints_pin_rls")
                ],
            },
        ),
        migrations.CreateModel(
            name="RunKey",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                ("run_id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("wrapped", models.BinaryField()),
                ("key_version", models.IntegerField()),
                ("created", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("destroyed_at", models.DateTimeField(null=True)),
            ],
            options={
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE (wrapped, key_version, destroyed_at)",
                        name="checkpoints_runkey_rls",
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "run_id"), name="checkpoints_runkey_tenant_run"),
                    models.CheckConstraint(
                        condition=models.Q(("destroyed_at", None), ("wrapped", b""), _connector="OR"),
                        name="checkpoints_runkey_destroyed",
                    ),
                ],
            },
        ),
        functions.plain(constraints.PUT_BLOB, drop="checkpoints_put_blob(uuid, bytea, int, bytea)"),
    ]
