"""The tables of memory, and its functions that only SQL can say."""

import django.contrib.postgres.fields
import django.db.models.deletion
import django.db.models.functions.datetime
import pgvector.django.vector
from django.db import migrations, models

import agentstate.core.ids
import agentstate.tenants.security
import memory.constraints
from memory import functions


class Migration(migrations.Migration):
    initial = True

    dependencies = [("audit", "0001_initial"), ("tenants", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Unit",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                ("id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("kind", models.CharField(max_length=7)),
                ("session_id", models.UUIDField(null=True)),
                ("namespace", models.CharField(blank=True, default="", max_length=200)),
                ("seq", models.IntegerField(default=0)),
                ("author_no", models.SmallIntegerField(default=0)),
                ("sent_at", models.DateTimeField()),
                ("in_recall", models.BooleanField(default=True)),
                ("expires_at", models.DateTimeField(null=True)),
                ("valid_from", models.DateTimeField(null=True)),
                ("valid_to", models.DateTimeField(null=True)),
                ("words", models.BinaryField(null=True)),
                ("model", models.CharField(blank=True, default="", max_length=120)),
                ("vector", pgvector.django.vector.VectorField(null=True)),
            ],
        ),
        migrations.CreateModel(
            name="OwnerKey",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                ("owner_id", models.UUIDField(editable=False, primary_key=True, serialize=False)),
                ("wrapped", models.BinaryField()),
                ("key_version", models.IntegerField()),
                ("created", models.DateTimeField(db_default=django.db.models.functions.datetime.Now())),
                ("destroyed_at", models.DateTimeField(null=True)),
            ],
            options={
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE (wrapped, key_version, destroyed_at)", name="memory_ownerkey_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "owner_id"), name="memory_ownerkey_tenant_owner"),
                    models.CheckConstraint(
                        condition=models.Q(("destroyed_at", None), ("wrapped", b""), _connector="OR"),
                        name="memory_ownerkey_destroyed",
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Prompt",
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
                ("agent", models.CharField(max_length=200)),
                ("name", models.CharField(default="main", max_length=100)),
                ("version", models.IntegerField(default=0)),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
            ],
            options={
                "abstract": False,
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE, DELETE", name="memory_prompt_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_prompt_tenant_id"),
                    models.UniqueConstraint(fields=("tenant_id", "agent", "name"), name="memory_prompt_name"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Receipt",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("key", models.CharField(max_length=64)),
                ("body_hash", models.BinaryField(max_length=32)),
                ("reply", models.JSONField(null=True)),
                ("at", models.DateTimeField()),
            ],
            options={
                "abstract": False,
                "indexes": [models.Index(fields=["tenant_id", "at"], name="memory_receipt_old")],
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, DELETE, UPDATE (reply)", name="memory_receipt_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "key"), name="memory_receipt_key"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Subject",
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
                ("external_id", models.CharField(max_length=200, null=True)),
                ("name", models.BinaryField(default=bytes)),
                (
                    "status",
                    models.CharField(
                        choices=[("active", "Active"), ("erasing", "Erasing")], default="active", max_length=8
                    ),
                ),
                ("cap_bytes", models.IntegerField(null=True)),
                ("item_bytes", models.IntegerField(default=0)),
                ("pinned_bytes", models.IntegerField(default=0)),
                ("item_count", models.IntegerField(default=0)),
                ("session_count", models.IntegerField(default=0)),
                ("message_count", models.IntegerField(default=0)),
                ("created_at", models.DateTimeField()),
                ("last_active_at", models.DateTimeField()),
            ],
            options={
                "abstract": False,
                "indexes": [models.Index(fields=["tenant_id", "-last_active_at", "-id"], name="memory_subject_recent")],
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE, DELETE", name="memory_subject_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_subject_tenant_id"),
                    models.UniqueConstraint(fields=("tenant_id", "external_id"), name="memory_subject_external_id"),
                    models.CheckConstraint(
                        condition=models.Q(("status__in", ["active", "erasing"])), name="memory_subject_status"
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("item_bytes__gte", 0), ("item_count__gte", 0), ("pinned_bytes__gte", 0)),
                        name="memory_subject_counts",
                    ),
                    agentstate.tenants.security.SweeperReads(
                        columns=["id", "tenant_id", "status"], name="memory_subject_sweeper"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Session",
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
                ("key", models.CharField(max_length=200)),
                ("agent", models.CharField(blank=True, default="", max_length=200)),
                ("title", models.BinaryField(default=bytes)),
                (
                    "status",
                    models.CharField(
                        choices=[("open", "Open"), ("closed", "Closed"), ("expired", "Expired")],
                        default="open",
                        max_length=8,
                    ),
                ),
                ("version", models.IntegerField(default=1)),
                ("last_seq", models.IntegerField(default=0)),
                ("turns", models.IntegerField(default=0)),
                ("message_count", models.IntegerField(default=0)),
                ("tokens", models.BigIntegerField(default=0)),
                ("summarised_seq", models.IntegerField(default=0)),
                ("extracted_seq", models.IntegerField(default=0)),
                ("created_at", models.DateTimeField()),
                ("last_active_at", models.DateTimeField()),
                ("idle_s", models.IntegerField(null=True)),
                ("expires_at", models.DateTimeField(null=True)),
                ("due_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                (
                    "subject",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.subject",
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="Removed",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("run_id", models.UUIDField(null=True)),
                ("session_key", models.CharField(max_length=200, null=True)),
                ("at", models.DateTimeField()),
                (
                    "subject",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.subject",
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="RecallQuestion",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("agent", models.CharField(blank=True, default="", max_length=200)),
                ("text", models.BinaryField()),
                ("run_id", models.UUIDField(null=True)),
                ("step_seq", models.IntegerField(null=True)),
                ("at", models.DateTimeField()),
                (
                    "subject",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.subject",
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="Proposal",
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
                ("act", models.CharField(max_length=10)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("accepted", "Accepted"),
                            ("rejected", "Rejected"),
                            ("withdrawn", "Withdrawn"),
                        ],
                        default="pending",
                        max_length=10,
                    ),
                ),
                ("item_id", models.UUIDField(null=True)),
                ("expected_version", models.IntegerField(null=True)),
                ("body", models.BinaryField()),
                ("why", models.BinaryField(default=bytes)),
                ("digest", models.BinaryField(max_length=32)),
                ("method", models.CharField(max_length=120)),
                ("confidence", models.FloatField(default=0.5)),
                ("source_run_id", models.UUIDField(null=True)),
                ("source_step_seq", models.IntegerField(null=True)),
                (
                    "source_message_ids",
                    django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), default=list, size=None),
                ),
                ("decided_by", models.CharField(blank=True, default="", max_length=200)),
                ("created_at", models.DateTimeField()),
                ("decided_at", models.DateTimeField(null=True)),
                (
                    "subject",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.subject",
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="Progress",
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
                ("key", models.CharField(max_length=200)),
                ("agent", models.CharField(blank=True, default="", max_length=200)),
                ("version", models.IntegerField(default=0)),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
                (
                    "subject",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.subject",
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="Item",
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
                ("kind", models.CharField(max_length=10)),
                ("namespace", models.CharField(blank=True, default="", max_length=200)),
                ("fact_kind", models.CharField(blank=True, default="", max_length=60)),
                ("attribute", models.BinaryField(null=True)),
                ("schema_version", models.IntegerField(default=1)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("active", "Active"),
                            ("over_cap", "Over Cap"),
                            ("expired", "Expired"),
                            ("superseded", "Superseded"),
                            ("forgotten", "Forgotten"),
                        ],
                        default="active",
                        max_length=10,
                    ),
                ),
                ("pinned", models.BooleanField(default=False)),
                ("importance", models.FloatField(default=0.5)),
                ("version", models.IntegerField(default=1)),
                ("bytes", models.IntegerField()),
                ("tokens", models.IntegerField()),
                ("digest", models.BinaryField(max_length=32)),
                ("origin", models.CharField(default="said", max_length=6)),
                ("valid_from", models.DateTimeField()),
                ("valid_to", models.DateTimeField(null=True)),
                ("known_from", models.DateTimeField()),
                ("known_to", models.DateTimeField(null=True)),
                ("expires_at", models.DateTimeField(null=True)),
                ("superseded_by", models.UUIDField(null=True)),
                ("source_run_id", models.UUIDField(null=True)),
                ("source_step_seq", models.IntegerField(null=True)),
                (
                    "source_message_ids",
                    django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), default=list, size=None),
                ),
                ("locked_by", models.CharField(blank=True, default="", max_length=64)),
                ("locked_name", models.CharField(blank=True, default="", max_length=200)),
                ("locked_until", models.DateTimeField(null=True)),
                ("created_at", models.DateTimeField()),
                ("updated_at", models.DateTimeField()),
                (
                    "subject",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.subject",
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="Injection",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("run_id", models.UUIDField(null=True)),
                ("step_seq", models.IntegerField(null=True)),
                ("call_id", models.UUIDField()),
                ("session_id", models.UUIDField(null=True)),
                ("part", models.CharField(max_length=10)),
                ("source", models.CharField(max_length=8)),
                ("source_id", models.UUIDField()),
                ("version", models.IntegerField(default=1)),
                ("position", models.SmallIntegerField()),
                ("score", models.FloatField(null=True)),
                ("scores", models.JSONField(default=dict)),
                ("tokens", models.IntegerField()),
                ("masked", models.BooleanField(default=False)),
                ("at", models.DateTimeField()),
                (
                    "subject",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.subject",
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="Author",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "subject_id", "no", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("no", models.SmallIntegerField()),
                ("digest", models.BinaryField(max_length=32)),
                ("name", models.BinaryField()),
                (
                    "subject",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.subject",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="Alias",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("kind", models.CharField(max_length=40)),
                ("digest", models.BinaryField(max_length=32)),
                ("value", models.BinaryField()),
                ("created_at", models.DateTimeField()),
                (
                    "subject",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.subject",
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="Summary",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("level", models.CharField(max_length=8)),
                ("from_seq", models.IntegerField(default=0)),
                ("to_seq", models.IntegerField(default=0)),
                ("session_version", models.IntegerField(default=1)),
                ("text", models.BinaryField()),
                ("tokens", models.IntegerField()),
                (
                    "source_ids",
                    django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), default=list, size=None),
                ),
                ("method", models.CharField(max_length=120)),
                ("stale", models.BooleanField(default=False)),
                ("run_id", models.UUIDField(null=True)),
                ("created_at", models.DateTimeField()),
                (
                    "session",
                    models.ForeignKey(
                        db_constraint=False,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.session",
                    ),
                ),
                (
                    "subject",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.subject",
                    ),
                ),
            ],
            options={
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="UnitStaged",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "unit",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="memory.unit",
                    ),
                ),
                ("subject_id", models.UUIDField()),
                ("model", models.CharField(max_length=120)),
                ("vector", pgvector.django.vector.VectorField()),
                ("count", models.SmallIntegerField(default=0)),
                ("body", models.BinaryField(default=bytes)),
            ],
        ),
        migrations.CreateModel(
            name="UnitTokens",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "unit",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="+",
                        serialize=False,
                        to="memory.unit",
                    ),
                ),
                ("subject_id", models.UUIDField()),
                ("model", models.CharField(max_length=120)),
                ("count", models.SmallIntegerField()),
                ("body", models.BinaryField()),
            ],
        ),
        migrations.AddField(
            model_name="unit",
            name="subject",
            field=models.ForeignKey(
                db_constraint=False, on_delete=django.db.models.deletion.CASCADE, related_name="+", to="memory.subject"
            ),
        ),
        migrations.CreateModel(
            name="Upkeep",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("name", models.CharField(max_length=40)),
                ("cursor", models.CharField(blank=True, default="", max_length=200)),
                ("target", models.CharField(blank=True, default="", max_length=200)),
                ("done", models.BigIntegerField(default=0)),
                ("total", models.BigIntegerField(null=True)),
                ("state", models.CharField(default="idle", max_length=8)),
                ("error", models.CharField(blank=True, default="", max_length=400)),
                ("started_at", models.DateTimeField(null=True)),
                ("moved_at", models.DateTimeField(null=True)),
                ("finished_at", models.DateTimeField(null=True)),
            ],
            options={
                "abstract": False,
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE, DELETE", name="memory_upkeep_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_upkeep_tenant_id"),
                    models.UniqueConstraint(fields=("tenant_id", "name"), name="memory_upkeep_name"),
                ],
            },
        ),
        migrations.CreateModel(
            name="ItemRevision",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "item_id", "version", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("version", models.IntegerField()),
                ("subject_id", models.UUIDField()),
                ("change", models.CharField(max_length=12)),
                ("text", models.BinaryField()),
                ("facts", models.BinaryField(null=True)),
                ("reason", models.BinaryField(default=bytes)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("active", "Active"),
                            ("over_cap", "Over Cap"),
                            ("expired", "Expired"),
                            ("superseded", "Superseded"),
                            ("forgotten", "Forgotten"),
                        ],
                        default="active",
                        max_length=10,
                    ),
                ),
                ("pinned", models.BooleanField(default=False)),
                ("importance", models.FloatField(default=0.5)),
                ("valid_from", models.DateTimeField()),
                ("valid_to", models.DateTimeField(null=True)),
                ("schema_version", models.IntegerField(default=1)),
                ("tokens", models.IntegerField()),
                ("restored_from", models.IntegerField(null=True)),
                (
                    "merged_ids",
                    django.contrib.postgres.fields.ArrayField(base_field=models.UUIDField(), default=list, size=None),
                ),
                ("actor_kind", models.CharField(max_length=10)),
                ("actor_id", models.CharField(max_length=64)),
                ("actor_name", models.CharField(max_length=200)),
                ("run_id", models.UUIDField(null=True)),
                ("key", models.CharField(max_length=64, null=True)),
                ("created_at", models.DateTimeField()),
                (
                    "item",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.item",
                    ),
                ),
            ],
            options={
                "indexes": [models.Index(fields=["subject_id"], name="memory_itemrevision_subject")],
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, DELETE", name="memory_itemrevision_rls"
                    ),
                    agentstate.tenants.security.NeverUpdated(columns=[], name="memory_itemrevision_frozen"),
                    models.UniqueConstraint(
                        condition=models.Q(("key__isnull", False)),
                        fields=("tenant_id", "key"),
                        name="memory_itemrevision_key",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            (
                                "change__in",
                                (
                                    "created",
                                    "edited",
                                    "merged",
                                    "consolidated",
                                    "restored",
                                    "upgraded",
                                    "imported",
                                    "pinned",
                                    "unpinned",
                                    "over_cap",
                                    "expired",
                                    "superseded",
                                    "forgotten",
                                ),
                            )
                        ),
                        name="memory_itemrevision_change",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(
                            ("status__in", ["active", "over_cap", "expired", "superseded", "forgotten"])
                        ),
                        name="memory_itemrevision_status",
                    ),
                    agentstate.tenants.security.TenantFK(
                        field="item", name="memory_itemrevision_item", on_delete="CASCADE", to="memory_item"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="ProgressVersion",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "progress_id", "version", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("version", models.IntegerField()),
                ("body", models.BinaryField()),
                ("reason", models.BinaryField(default=bytes)),
                ("tokens", models.IntegerField()),
                ("actor_kind", models.CharField(max_length=10)),
                ("actor_id", models.CharField(max_length=64)),
                ("actor_name", models.CharField(max_length=200)),
                ("run_id", models.UUIDField(null=True)),
                ("step_seq", models.IntegerField(null=True)),
                ("created_at", models.DateTimeField()),
                (
                    "progress",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.progress",
                    ),
                ),
            ],
            options={
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, DELETE", name="memory_progressversion_rls"
                    ),
                    agentstate.tenants.security.NeverUpdated(columns=[], name="memory_progressversion_frozen"),
                    agentstate.tenants.security.TenantFK(
                        field="progress", name="memory_progressversion_of", on_delete="CASCADE", to="memory_progress"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="PromptVersion",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "prompt_id", "version", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("version", models.IntegerField()),
                ("body", models.BinaryField()),
                ("reason", models.BinaryField(default=bytes)),
                ("digest", models.BinaryField(max_length=32)),
                ("tokens", models.IntegerField()),
                ("actor_kind", models.CharField(max_length=10)),
                ("actor_id", models.CharField(max_length=64)),
                ("actor_name", models.CharField(max_length=200)),
                ("created_at", models.DateTimeField()),
                (
                    "prompt",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.prompt",
                    ),
                ),
            ],
            options={
                "constraints": [
                    agentstate.tenants.security.RowSecurity(grants="SELECT, INSERT", name="memory_promptversion_rls"),
                    agentstate.tenants.security.AppendOnly(name="memory_promptversion_frozen"),
                    agentstate.tenants.security.TenantFK(
                        field="prompt", name="memory_promptversion_prompt", on_delete="NO ACTION", to="memory_prompt"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Message",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("subject_id", models.UUIDField()),
                ("seq", models.IntegerField()),
                ("role", models.CharField(max_length=10)),
                ("author_no", models.SmallIntegerField()),
                ("text", models.BinaryField()),
                ("tokens", models.IntegerField()),
                ("bytes", models.IntegerField()),
                ("importance", models.CharField(default="routine", max_length=10)),
                ("origin", models.CharField(default="said", max_length=6)),
                ("outcome", models.CharField(blank=True, default="", max_length=40)),
                ("client_id", models.CharField(max_length=200, null=True)),
                ("run_id", models.UUIDField(null=True)),
                ("step_seq", models.IntegerField(null=True)),
                ("sent_at", models.DateTimeField()),
                ("recorded_at", models.DateTimeField()),
                ("undone_in", models.IntegerField(null=True)),
                (
                    "session",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to="memory.session",
                    ),
                ),
            ],
            options={
                "abstract": False,
                "indexes": [
                    models.Index(fields=["subject_id", "sent_at"], name="memory_message_time"),
                    models.Index(
                        condition=models.Q(("run_id__isnull", False)), fields=["run_id"], name="memory_message_run"
                    ),
                ],
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, DELETE, UPDATE (undone_in, outcome, importance)",
                        name="memory_message_rls",
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_message_tenant_id"),
                    agentstate.tenants.security.NeverUpdated(
                        columns=["text", "seq", "role", "author_no", "origin", "sent_at"], name="memory_message_words"
                    ),
                    models.UniqueConstraint(fields=("session", "seq"), name="memory_message_seq"),
                    models.UniqueConstraint(
                        condition=models.Q(("client_id__isnull", False)),
                        fields=("session", "client_id"),
                        name="memory_message_client_id",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("role__in", ("user", "assistant", "system", "tool"))),
                        name="memory_message_role",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("importance__in", ("decision", "commitment", "fact", "routine"))),
                        name="memory_message_importance",
                    ),
                    models.CheckConstraint(
                        condition=models.Q(("origin__in", ("said", "memory", "prompt"))), name="memory_message_origin"
                    ),
                    agentstate.tenants.security.TenantFK(
                        field="session", name="memory_message_session", on_delete="CASCADE", to="memory_session"
                    ),
                ],
            },
        ),
        migrations.AddIndex(
            model_name="session",
            index=models.Index(fields=["subject", "-last_active_at"], name="memory_session_of_subject"),
        ),
        migrations.AddIndex(
            model_name="session",
            index=models.Index(fields=["tenant_id", "-last_active_at", "-id"], name="memory_session_recent"),
        ),
        migrations.AddIndex(
            model_name="session",
            index=models.Index(
                condition=models.Q(("status", "open")), fields=["tenant_id", "due_at"], name="memory_session_due"
            ),
        ),
        migrations.AddIndex(
            model_name="session",
            index=models.Index(
                condition=models.Q(("ended_at__isnull", False)),
                fields=["tenant_id", "ended_at", "id"],
                name="memory_session_ended",
            ),
        ),
        migrations.AddIndex(
            model_name="session",
            index=models.Index(
                condition=models.Q(("last_seq__gt", models.F("summarised_seq"))),
                fields=["tenant_id", "id"],
                name="memory_session_untold",
            ),
        ),
        migrations.AddIndex(
            model_name="session",
            index=models.Index(
                condition=models.Q(("last_seq__gt", models.F("extracted_seq"))),
                fields=["tenant_id", "id"],
                name="memory_session_unread",
            ),
        ),
        migrations.AddConstraint(
            model_name="session",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, UPDATE, DELETE", name="memory_session_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="session",
            constraint=models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_session_tenant_id"),
        ),
        migrations.AddConstraint(
            model_name="session",
            constraint=models.UniqueConstraint(fields=("tenant_id", "key"), name="memory_session_key"),
        ),
        migrations.AddConstraint(
            model_name="session",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["open", "closed", "expired"])), name="memory_session_status"
            ),
        ),
        migrations.AddConstraint(
            model_name="session",
            constraint=agentstate.tenants.security.TenantFK(
                field="subject", name="memory_session_subject", on_delete="CASCADE", to="memory_subject"
            ),
        ),
        migrations.AddConstraint(
            model_name="session",
            constraint=agentstate.tenants.security.SweeperReads(
                columns=["id", "tenant_id", "status", "last_active_at", "idle_s", "expires_at", "due_at"],
                name="memory_session_sweeper",
            ),
        ),
        migrations.AddIndex(
            model_name="removed",
            index=models.Index(fields=["run_id"], name="memory_removed_of_run"),
        ),
        migrations.AddConstraint(
            model_name="removed",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, DELETE", name="memory_removed_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="removed",
            constraint=models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_removed_tenant_id"),
        ),
        migrations.AddConstraint(
            model_name="removed",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("run_id", None), ("session_key__isnull", False)),
                    models.Q(("run_id__isnull", False), ("session_key", None)),
                    _connector="OR",
                ),
                name="memory_removed_one",
            ),
        ),
        migrations.AddConstraint(
            model_name="removed",
            constraint=models.UniqueConstraint(fields=("subject", "run_id"), name="memory_removed_run"),
        ),
        migrations.AddConstraint(
            model_name="removed",
            constraint=models.UniqueConstraint(fields=("subject", "session_key"), name="memory_removed_session"),
        ),
        migrations.AddConstraint(
            model_name="removed",
            constraint=agentstate.tenants.security.TenantFK(
                field="subject", name="memory_removed_subject", on_delete="CASCADE", to="memory_subject"
            ),
        ),
        migrations.AddIndex(
            model_name="recallquestion",
            index=models.Index(fields=["subject", "-id"], name="memory_question_newest"),
        ),
        migrations.AddConstraint(
            model_name="recallquestion",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, UPDATE, DELETE", name="memory_recallquestion_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="recallquestion",
            constraint=models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_recallquestion_tenant_id"),
        ),
        migrations.AddConstraint(
            model_name="recallquestion",
            constraint=agentstate.tenants.security.TenantFK(
                field="subject", name="memory_question_subject", on_delete="CASCADE", to="memory_subject"
            ),
        ),
        migrations.AddIndex(
            model_name="proposal",
            index=models.Index(
                condition=models.Q(("status", "pending")), fields=["tenant_id", "-id"], name="memory_proposal_pending"
            ),
        ),
        migrations.AddIndex(
            model_name="proposal",
            index=models.Index(fields=["item_id"], name="memory_proposal_item"),
        ),
        migrations.AddConstraint(
            model_name="proposal",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, UPDATE, DELETE", name="memory_proposal_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="proposal",
            constraint=models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_proposal_tenant_id"),
        ),
        migrations.AddConstraint(
            model_name="proposal",
            constraint=models.CheckConstraint(
                condition=models.Q(("act__in", ("add", "update", "supersede", "merge", "forget"))),
                name="memory_proposal_act",
            ),
        ),
        migrations.AddConstraint(
            model_name="proposal",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["pending", "accepted", "rejected", "withdrawn"])),
                name="memory_proposal_status",
            ),
        ),
        migrations.AddConstraint(
            model_name="proposal",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "pending")), fields=("subject", "digest"), name="memory_proposal_once"
            ),
        ),
        migrations.AddConstraint(
            model_name="proposal",
            constraint=agentstate.tenants.security.TenantFK(
                field="subject", name="memory_proposal_subject", on_delete="CASCADE", to="memory_subject"
            ),
        ),
        migrations.AddIndex(
            model_name="progress",
            index=models.Index(fields=["subject"], name="memory_progress_subject"),
        ),
        migrations.AddIndex(
            model_name="progress",
            index=models.Index(fields=["tenant_id", "-updated_at"], name="memory_progress_recent"),
        ),
        migrations.AddConstraint(
            model_name="progress",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, UPDATE, DELETE", name="memory_progress_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="progress",
            constraint=models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_progress_tenant_id"),
        ),
        migrations.AddConstraint(
            model_name="progress",
            constraint=models.UniqueConstraint(fields=("tenant_id", "key"), name="memory_progress_key"),
        ),
        migrations.AddConstraint(
            model_name="progress",
            constraint=agentstate.tenants.security.TenantFK(
                field="subject", name="memory_progress_of_subject", on_delete="CASCADE", to="memory_subject"
            ),
        ),
        migrations.AddIndex(
            model_name="item",
            index=models.Index(fields=["subject", "status", "-updated_at"], name="memory_item_of_subject"),
        ),
        migrations.AddIndex(
            model_name="item",
            index=models.Index(fields=["tenant_id", "-id"], name="memory_item_list"),
        ),
        migrations.AddIndex(
            model_name="item",
            index=models.Index(
                condition=models.Q(("pinned", False), ("status", "active")),
                fields=["expires_at"],
                name="memory_item_expiry",
            ),
        ),
        migrations.AddIndex(
            model_name="item",
            index=models.Index(fields=["tenant_id", "fact_kind", "schema_version"], name="memory_item_schema"),
        ),
        migrations.AddConstraint(
            model_name="item",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, UPDATE, DELETE", name="memory_item_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="item",
            constraint=models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_item_tenant_id"),
        ),
        migrations.AddConstraint(
            model_name="item",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ("semantic", "episodic", "procedural"))), name="memory_item_kind"
            ),
        ),
        migrations.AddConstraint(
            model_name="item",
            constraint=models.CheckConstraint(
                condition=models.Q(("origin__in", ("said", "memory", "prompt"))), name="memory_item_origin"
            ),
        ),
        migrations.AddConstraint(
            model_name="item",
            constraint=models.CheckConstraint(
                condition=models.Q(("status__in", ["active", "over_cap", "expired", "superseded", "forgotten"])),
                name="memory_item_status",
            ),
        ),
        migrations.AddConstraint(
            model_name="item",
            constraint=models.CheckConstraint(
                condition=models.Q(("importance__gte", 0), ("importance__lte", 1)), name="memory_item_importance"
            ),
        ),
        migrations.AddConstraint(
            model_name="item",
            constraint=models.CheckConstraint(
                condition=models.Q(("pinned", False), ("expires_at", None), _connector="OR"),
                name="memory_item_pinned_stays",
            ),
        ),
        migrations.AddConstraint(
            model_name="item",
            constraint=models.CheckConstraint(
                condition=models.Q(("valid_to", None), ("valid_to__gte", models.F("valid_from")), _connector="OR"),
                name="memory_item_valid",
            ),
        ),
        migrations.AddConstraint(
            model_name="item",
            constraint=models.UniqueConstraint(
                condition=models.Q(("status", "active")),
                fields=("subject", "namespace", "digest"),
                name="memory_item_said_once",
            ),
        ),
        migrations.AddConstraint(
            model_name="item",
            constraint=agentstate.tenants.security.TenantFK(
                field="subject", name="memory_item_subject", on_delete="CASCADE", to="memory_subject"
            ),
        ),
        migrations.AddConstraint(
            model_name="item",
            constraint=agentstate.tenants.security.SweeperReads(
                columns=["id", "tenant_id", "status", "expires_at", "subject_id"], name="memory_item_sweeper"
            ),
        ),
        migrations.AddIndex(
            model_name="injection",
            index=models.Index(fields=["run_id", "step_seq"], name="memory_injection_step"),
        ),
        migrations.AddIndex(
            model_name="injection",
            index=models.Index(fields=["source_id", "-id"], name="memory_injection_source"),
        ),
        migrations.AddIndex(
            model_name="injection",
            index=models.Index(fields=["subject"], name="memory_injection_subject"),
        ),
        migrations.AddIndex(
            model_name="injection",
            index=models.Index(fields=["session_id", "-id"], name="memory_injection_session"),
        ),
        migrations.AddConstraint(
            model_name="injection",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, DELETE", name="memory_injection_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="injection",
            constraint=agentstate.tenants.security.NeverUpdated(columns=[], name="memory_injection_frozen"),
        ),
        migrations.AddConstraint(
            model_name="injection",
            constraint=models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_injection_tenant_id"),
        ),
        migrations.AddConstraint(
            model_name="injection",
            constraint=models.CheckConstraint(
                condition=models.Q(("source__in", ("message", "item", "summary", "prompt", "progress"))),
                name="memory_injection_source",
            ),
        ),
        migrations.AddConstraint(
            model_name="injection",
            constraint=agentstate.tenants.security.TenantFK(
                field="subject", name="memory_injection_of_subject", on_delete="CASCADE", to="memory_subject"
            ),
        ),
        migrations.AddConstraint(
            model_name="author",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, DELETE", name="memory_author_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="author",
            constraint=agentstate.tenants.security.NeverUpdated(columns=[], name="memory_author_frozen"),
        ),
        migrations.AddConstraint(
            model_name="author",
            constraint=models.UniqueConstraint(fields=("subject", "digest"), name="memory_author_digest"),
        ),
        migrations.AddConstraint(
            model_name="author",
            constraint=agentstate.tenants.security.TenantFK(
                field="subject", name="memory_author_subject", on_delete="CASCADE", to="memory_subject"
            ),
        ),
        migrations.AddIndex(
            model_name="alias",
            index=models.Index(fields=["subject"], name="memory_alias_subject_list"),
        ),
        migrations.AddConstraint(
            model_name="alias",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, UPDATE, DELETE", name="memory_alias_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="alias",
            constraint=models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_alias_tenant_id"),
        ),
        migrations.AddConstraint(
            model_name="alias",
            constraint=models.UniqueConstraint(fields=("tenant_id", "digest"), name="memory_alias_digest"),
        ),
        migrations.AddConstraint(
            model_name="alias",
            constraint=agentstate.tenants.security.TenantFK(
                field="subject", name="memory_alias_subject", on_delete="CASCADE", to="memory_subject"
            ),
        ),
        migrations.AddIndex(
            model_name="summary",
            index=models.Index(
                condition=models.Q(("stale", False)), fields=["session", "level", "-to_seq"], name="memory_summary_new"
            ),
        ),
        migrations.AddIndex(
            model_name="summary",
            index=models.Index(fields=["session", "level", "to_seq"], name="memory_summary_so_far"),
        ),
        migrations.AddIndex(
            model_name="summary",
            index=models.Index(fields=["subject", "level", "-created_at"], name="memory_summary_subject"),
        ),
        migrations.AddConstraint(
            model_name="summary",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, DELETE, UPDATE (stale)", name="memory_summary_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="summary",
            constraint=models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_summary_tenant_id"),
        ),
        migrations.AddConstraint(
            model_name="summary",
            constraint=models.CheckConstraint(
                condition=models.Q(("level__in", ("turn", "segment", "session", "subject"))),
                name="memory_summary_level",
            ),
        ),
        migrations.AddConstraint(
            model_name="summary",
            constraint=agentstate.tenants.security.TenantFK(
                field="session", name="memory_summary_session", on_delete="CASCADE", to="memory_session"
            ),
        ),
        migrations.AddConstraint(
            model_name="summary",
            constraint=agentstate.tenants.security.TenantFK(
                field="subject", name="memory_summary_of_subject", on_delete="CASCADE", to="memory_subject"
            ),
        ),
        migrations.AddIndex(
            model_name="unitstaged",
            index=models.Index(fields=["subject_id"], name="memory_unitstaged_subject"),
        ),
        migrations.AddConstraint(
            model_name="unitstaged",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, UPDATE, DELETE", name="memory_unitstaged_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="unitstaged",
            constraint=agentstate.tenants.security.TenantFK(
                field="unit", name="memory_unitstaged_unit", on_delete="CASCADE", to="memory_unit"
            ),
        ),
        migrations.AddIndex(
            model_name="unittokens",
            index=models.Index(fields=["subject_id"], name="memory_unittokens_subject"),
        ),
        migrations.AddConstraint(
            model_name="unittokens",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, UPDATE, DELETE", name="memory_unittokens_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="unittokens",
            constraint=memory.constraints.Inline(name="memory_unittokens_inline"),
        ),
        migrations.AddConstraint(
            model_name="unittokens",
            constraint=agentstate.tenants.security.TenantFK(
                field="unit", name="memory_unittokens_unit", on_delete="CASCADE", to="memory_unit"
            ),
        ),
        migrations.AddIndex(
            model_name="unit",
            index=models.Index(fields=["tenant_id", "subject"], name="memory_unit_of_subject"),
        ),
        migrations.AddIndex(
            model_name="unit",
            index=models.Index(fields=["tenant_id", "model", "id"], name="memory_unit_by_model"),
        ),
        migrations.AddConstraint(
            model_name="unit",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, UPDATE, DELETE", name="memory_unit_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="unit",
            constraint=memory.constraints.Inline(name="memory_unit_inline"),
        ),
        migrations.AddConstraint(
            model_name="unit",
            constraint=models.UniqueConstraint(fields=("tenant_id", "id"), name="memory_unit_tenant_id"),
        ),
        migrations.AddConstraint(
            model_name="unit",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ("message", "item"))), name="memory_unit_kind"
            ),
        ),
        migrations.AddConstraint(
            model_name="unit",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    models.Q(("model", ""), ("vector__isnull", True)),
                    models.Q(("vector__isnull", False), models.Q(("model", ""), _negated=True)),
                    _connector="OR",
                ),
                name="memory_unit_model",
            ),
        ),
        migrations.AddConstraint(
            model_name="unit",
            constraint=agentstate.tenants.security.TenantFK(
                field="subject", name="memory_unit_subject", on_delete="CASCADE", to="memory_subject"
            ),
        ),
        migrations.AddConstraint(
            model_name="unit",
            constraint=agentstate.tenants.security.SweeperReads(
                columns=["id", "tenant_id", "subject_id", "in_recall", "expires_at", "model"],
                name="memory_unit_sweeper",
            ),
        ),
        *functions.operations(),
    ]
