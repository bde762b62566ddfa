"""Erasures, and the function that finds open ones."""

import django.contrib.postgres.fields
from django.db import migrations, models

import agentstate.core.ids
import agentstate.tenants.security
from agentstate.affairs import functions


class Migration(migrations.Migration):
    initial = True

    dependencies = [("audit", "0001_initial"), ("tenants", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Erasure",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("audit_head", models.BinaryField(db_default=b"", default=bytes)),
                ("audit_seq", models.IntegerField(db_default=0, default=0, editable=False)),
                ("subject_id", models.UUIDField()),
                ("external_id_hmac", models.CharField(blank=True, default="", max_length=64)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("planned", "Planned"),
                            ("stopping", "Stopping"),
                            ("erasing", "Erasing"),
                            ("verified", "Verified"),
                            ("failed", "Failed"),
                        ],
                        default="planned",
                        max_length=8,
                    ),
                ),
                ("requested_by_kind", models.CharField(max_length=10)),
                ("requested_by_id", models.CharField(max_length=64)),
                ("requested_by_name", models.CharField(max_length=200)),
                ("cursor", models.CharField(blank=True, default="", max_length=40)),
                (
                    "run_ids",
                    django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), default=list, size=None),
                ),
                (
                    "stopped_ids",
                    django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), default=list, size=None),
                ),
                ("waits", models.JSONField(default=dict)),
                (
                    "shared_ids",
                    django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), default=list, size=None),
                ),
                ("keys_destroyed", models.IntegerField(default=0)),
                ("counts", models.JSONField(default=dict)),
                ("problem", models.CharField(blank=True, default="", max_length=400)),
                ("receipt", models.JSONField(null=True)),
                ("signature", models.BinaryField(null=True)),
                ("started_at", models.DateTimeField()),
                ("moved_at", models.DateTimeField()),
                ("finished_at", models.DateTimeField(null=True)),
            ],
            options={
                "abstract": False,
                "indexes": [
                    models.Index(
                        condition=models.Q(("status__in", ["planned", "stopping", "erasing"])),
                        fields=["moved_at"],
                        name="affairs_erasure_open",
                    ),
                    models.Index(fields=["tenant_id", "-id"], name="affairs_erasure_recent"),
                ],
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE", name="affairs_erasure_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "id"), name="affairs_erasure_tenant_id"),
                    models.UniqueConstraint(fields=("tenant_id", "subject_id"), name="affairs_erasure_subject"),
                    models.CheckConstraint(
                        condition=models.Q(("status__in", ["planned", "stopping", "erasing", "verified", "failed"])),
                        name="affairs_erasure_status",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            models.Q(("receipt__isnull", False), ("signature__isnull", False), ("status", "verified")),
                            models.Q(
                                ("receipt__isnull", True),
                                ("signature__isnull", True),
                                models.Q(("status", "verified"), _negated=True),
                            ),
                            _connector="OR",
                        ),
                        name="affairs_erasure_receipt",
                    ),
                    agentstate.tenants.security.SweeperReads(
                        columns=["id", "tenant_id", "status", "moved_at"], name="affairs_erasure_sweeper"
                    ),
                ],
            },
        ),
        *functions.operations(),
    ]
