import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

import agentstate.core.ids
import agentstate.tenants.rules
import agentstate.tenants.security
from runs import functions, partitions


class Migration(migrations.Migration):
    initial = True

    dependencies = [("audit", "0001_initial"), ("checkpoints", "0001_initial"), ("tenants", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="AdmissionKey",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                ("key", models.CharField(max_length=200)),
                ("body_hash", models.BinaryField()),
                ("run_id", models.UUIDField()),
                ("created_at", models.DateTimeField()),
            ],
            options={
                "db_table": "runs_admissionkey",
                "abstract": False,
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE, DELETE", name="runs_admissionkey_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "key"), name="runs_admissionkey_key"),
                    agentstate.tenants.security.TenantFK(
                        field="run_id", name="runs_admissionkey_run", on_delete="NO ACTION", to="runs_run"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="AgentVersion",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("agent", models.CharField(max_length=200)),
                ("version", models.CharField(max_length=64)),
                ("mode", models.CharField(max_length=10)),
                ("digest", models.CharField(max_length=64)),
                ("fingerprint", models.JSONField()),
                ("input_schema", models.JSONField()),
                ("description", models.TextField(default="")),
                ("on_code_change", models.CharField(default="pause", max_length=8)),
                ("context_budget_tokens", models.IntegerField(null=True)),
                ("created_at", models.DateTimeField()),
                ("seen_at", models.DateTimeField()),
            ],
            options={
                "db_table": "runs_agentversion",
                "abstract": False,
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE, DELETE", name="runs_agentversion_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "id"), name="runs_agentversion_tenant_id"),
                    models.UniqueConstraint(fields=("tenant_id", "agent", "digest"), name="runs_agentversion_digest"),
                ],
            },
        ),
        partitions.CreatePartitioned(
            name="Event",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "month", "run_id", "seq", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("month", models.DateField()),
                ("run_id", models.UUIDField()),
                ("seq", models.IntegerField()),
                ("kind", models.CharField(max_length=12)),
                ("detail", models.JSONField(null=True)),
                ("body", models.BinaryField(null=True)),
                ("tokens", models.IntegerField(default=0)),
                ("at", models.DateTimeField()),
            ],
            options={
                "db_table": "runs_event",
                "constraints": [
                    agentstate.tenants.security.RowSecurity(grants="SELECT, INSERT", hot=True, name="runs_event_rls"),
                    agentstate.tenants.security.AppendOnly(name="runs_event_frozen"),
                ],
            },
        ),
        migrations.CreateModel(
            name="LateReply",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("run_id", models.UUIDField()),
                ("seq", models.IntegerField()),
                ("fence", models.BigIntegerField()),
                ("outcome", models.CharField(max_length=10)),
                ("body", models.BinaryField()),
                ("after_settled", models.BooleanField(default=False)),
                ("received_at", models.DateTimeField()),
            ],
            options={
                "db_table": "runs_latereply",
                "abstract": False,
                "indexes": [models.Index(fields=["run_id", "seq"], name="runs_latereply_step")],
                "constraints": [
                    agentstate.tenants.security.RowSecurity(grants="SELECT, INSERT", name="runs_latereply_rls"),
                    agentstate.tenants.security.AppendOnly(name="runs_latereply_frozen"),
                    agentstate.tenants.security.TenantFK(
                        field="run_id", name="runs_latereply_run", on_delete="NO ACTION", to="runs_run"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Run",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("agent", models.CharField(max_length=200)),
                ("mode", models.CharField(default="replay", max_length=10)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("queued", "Queued"),
                            ("running", "Running"),
                            ("waiting", "Waiting"),
                            ("paused", "Paused"),
                            ("in_doubt", "In Doubt"),
                            ("succeeded", "Succeeded"),
                            ("failed", "Failed"),
                            ("cancelled", "Cancelled"),
                        ],
                        default="queued",
                        max_length=12,
                    ),
                ),
                ("waiting_for", models.CharField(blank=True, default="", max_length=12)),
                ("wake_reason", models.CharField(blank=True, default="start", max_length=20)),
                ("control", models.CharField(blank=True, default="", max_length=8)),
                ("held", models.BooleanField(default=False)),
                ("external_id", models.CharField(max_length=200, null=True)),
                ("session_key", models.CharField(blank=True, default="", max_length=200)),
                (
                    "tags",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=64), default=list, size=None
                    ),
                ),
                ("trace_id", models.CharField(max_length=32)),
                ("started_by_kind", models.CharField(max_length=10)),
                ("started_by_id", models.CharField(max_length=64)),
                ("started_by_name", models.CharField(max_length=200)),
                ("input", models.BinaryField()),
                ("output", models.BinaryField(null=True)),
                ("error", models.BinaryField(null=True)),
                ("error_type", models.CharField(blank=True, default="", max_length=200)),
                ("error_step", models.IntegerField(null=True)),
                (
                    "error_steps",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.IntegerField(), default=list, size=None
                    ),
                ),
                ("fence", models.BigIntegerField(default=0)),
                ("lease_until", models.DateTimeField(null=True)),
                ("due_at", models.DateTimeField(null=True)),
                ("claims", models.IntegerField(default=0)),
                ("attempt", models.IntegerField(default=0)),
                ("generation", models.IntegerField(default=0)),
                ("generation_frame", models.IntegerField(default=0)),
                ("generation_seq", models.IntegerField(default=0)),
                ("step_seq", models.IntegerField(default=0)),
                ("event_seq", models.IntegerField(default=0)),
                ("entry_seq", models.IntegerField(default=0)),
                ("frame_n", models.IntegerField(default=0)),
                ("chain", models.BinaryField(default=bytes)),
                ("tokens_in", models.BigIntegerField(default=0)),
                ("tokens_out", models.BigIntegerField(default=0)),
                ("cost", models.FloatField(default=0.0)),
                ("budget_steps", models.IntegerField(null=True)),
                ("budget_tokens", models.BigIntegerField(null=True)),
                ("budget_cost", models.FloatField(null=True)),
                ("budget_wall_s", models.FloatField(null=True)),
                ("context_budget_tokens", models.IntegerField(null=True)),
                ("created_at", models.DateTimeField()),
                ("started_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                ("audit_head", models.BinaryField(default=bytes)),
                ("audit_seq", models.IntegerField(default=0)),
                (
                    "version",
                    models.ForeignKey(
                        db_constraint=False,
                        db_index=False,
                        null=True,
                        on_delete=django.db.models.deletion.PROTECT,
                        related_name="+",
                        to="runs.agentversion",
                    ),
                ),
            ],
            options={
                "db_table": "runs_run",
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="Approval",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("step_seq", models.IntegerField(null=True)),
                ("kind", models.CharField(max_length=8)),
                ("tool", models.CharField(default="", max_length=200)),
                ("agent", models.CharField(max_length=200)),
                ("risk", models.CharField(default="low", max_length=4)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("pending", "Pending"),
                            ("approved", "Approved"),
                            ("edited", "Edited"),
                            ("rejected", "Rejected"),
                            ("responded", "Responded"),
                            ("expired", "Expired"),
                            ("withdrawn", "Withdrawn"),
                        ],
                        default="pending",
                        max_length=10,
                    ),
                ),
                ("version", models.IntegerField(default=1)),
                ("proposal", models.BinaryField()),
                ("proposal_hash", models.BinaryField()),
                ("decision", models.BinaryField(null=True)),
                ("decided_by_kind", models.CharField(default="", max_length=10)),
                ("decided_by_id", models.CharField(default="", max_length=64)),
                ("decided_by_name", models.CharField(default="", max_length=200)),
                ("requested_at", models.DateTimeField()),
                ("decided_at", models.DateTimeField(null=True)),
                ("expires_at", models.DateTimeField(null=True)),
                ("use_within_s", models.FloatField(null=True)),
                ("use_by", models.DateTimeField(null=True)),
                ("used_at", models.DateTimeField(null=True)),
                ("audit_head", models.BinaryField(default=bytes)),
                ("audit_seq", models.IntegerField(default=0)),
                (
                    "run",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="approvals",
                        to="runs.run",
                    ),
                ),
            ],
            options={
                "db_table": "runs_approval",
                "abstract": False,
            },
        ),
        migrations.CreateModel(
            name="RunTag",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "tenant_id", "tag", "run_id", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("tag", models.CharField(max_length=64)),
                ("run_id", models.UUIDField()),
            ],
            options={
                "db_table": "runs_tag",
                "constraints": [
                    agentstate.tenants.security.RowSecurity(grants="SELECT, INSERT, DELETE", name="runs_tag_rls"),
                    agentstate.tenants.security.TenantFK(
                        field="run_id", name="runs_tag_run", on_delete="NO ACTION", to="runs_run"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="StatusCount",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                ("status", models.CharField(max_length=12)),
                ("count", models.BigIntegerField(default=0)),
            ],
            options={
                "db_table": "runs_statuscount",
                "abstract": False,
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE, DELETE", name="runs_statuscount_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "status"), name="runs_statuscount_status"),
                ],
            },
        ),
        migrations.CreateModel(
            name="StatusDelta",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                ("status", models.CharField(max_length=12)),
                ("delta", models.SmallIntegerField()),
            ],
            options={
                "db_table": "runs_statusdelta",
                "abstract": False,
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE, DELETE", name="runs_statusdelta_rls"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="Step",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "run_id", "seq", blank=True, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("run_id", models.UUIDField()),
                ("seq", models.IntegerField()),
                ("generation", models.IntegerField()),
                ("identity", models.CharField(db_collation="C", max_length=1000)),
                ("parent_seq", models.IntegerField(null=True)),
                ("name", models.CharField(max_length=200)),
                ("kind", models.CharField(max_length=8)),
                ("effect", models.CharField(max_length=12)),
                (
                    "status",
                    models.CharField(
                        choices=[
                            ("waiting", "Waiting"),
                            ("started", "Started"),
                            ("done", "Done"),
                            ("failed", "Failed"),
                            ("in_doubt", "In Doubt"),
                            ("rejected", "Rejected"),
                            ("skipped", "Skipped"),
                        ],
                        max_length=10,
                    ),
                ),
                ("outcome", models.CharField(default="", max_length=10)),
                ("attempt", models.IntegerField(default=1)),
                ("retry", models.IntegerField(default=0)),
                ("edit_version", models.IntegerField(default=0)),
                ("authorised", models.IntegerField(default=0)),
                ("sent", models.IntegerField(default=0)),
                ("key", models.CharField(max_length=64, null=True)),
                ("payload_hash", models.BinaryField()),
                ("input", models.BinaryField()),
                ("output", models.BinaryField(null=True)),
                ("output_hash", models.BinaryField(null=True)),
                ("error", models.BinaryField(null=True)),
                ("error_type", models.CharField(default="", max_length=200)),
                ("fence", models.BigIntegerField()),
                ("worker_id", models.UUIDField(null=True)),
                ("started_at", models.DateTimeField()),
                ("first_called_at", models.DateTimeField(null=True)),
                ("call_by", models.DateTimeField(null=True)),
                ("timeout_s", models.FloatField(null=True)),
                ("window_s", models.FloatField(null=True)),
                ("settles_within_s", models.FloatField(null=True)),
                ("has_probe", models.BooleanField(default=False)),
                ("probes_unknown", models.SmallIntegerField(default=0)),
                ("due_at", models.DateTimeField(null=True)),
                ("doubted_at", models.DateTimeField(null=True)),
                ("ended_at", models.DateTimeField(null=True)),
                ("end_frame", models.IntegerField(null=True)),
                ("source", models.CharField(default="worker", max_length=8)),
                ("model", models.CharField(default="", max_length=120)),
                ("tokens_in", models.IntegerField(default=0)),
                ("tokens_out", models.IntegerField(default=0)),
                ("cost", models.FloatField(default=0.0)),
            ],
            options={
                "db_table": "runs_step",
                "indexes": [
                    models.Index(
                        condition=models.Q(("doubted_at__isnull", False)),
                        fields=["tenant_id", "run_id"],
                        name="runs_step_in_doubt",
                    )
                ],
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE, DELETE", hot=True, name="runs_step_rls"
                    ),
                    agentstate.tenants.rules.RowRule(
                        columns=["status", "doubted_at", "effect", "key"],
                        name="runs_step_words",
                        usual="new.status = ANY ('{started,done}'::text[]) AND new.effect = ANY ('{pure}'::text[])",
                        rule="(new.status = ANY ('{waiting,started,done,failed,rejected,skipped}'::text[]) OR new.status = ANY ('{in_doubt}'::text[]) AND new.doubted_at IS NOT NULL) AND (new.effect = ANY ('{pure,replayable}'::text[]) OR new.effect = ANY ('{keyed,probed,destructive}'::text[]) AND new.key IS NOT NULL)",
                    ),
                    models.UniqueConstraint(fields=("run_id", "generation", "identity"), name="runs_step_identity"),
                    models.UniqueConstraint(
                        condition=models.Q(("key__isnull", False)), fields=("tenant_id", "key"), name="runs_step_key"
                    ),
                    agentstate.tenants.security.TenantFK(
                        field="run_id", name="runs_step_run", on_delete="NO ACTION", to="runs_run"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="StepAttempt",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("run_id", models.UUIDField()),
                ("seq", models.IntegerField()),
                ("attempt", models.IntegerField()),
                ("status", models.CharField(max_length=10)),
                ("outcome", models.CharField(max_length=10)),
                ("key", models.CharField(max_length=64, null=True)),
                ("error", models.BinaryField(null=True)),
                ("error_type", models.CharField(default="", max_length=200)),
                ("fence", models.BigIntegerField()),
                ("worker_id", models.UUIDField(null=True)),
                ("source", models.CharField(max_length=8)),
                ("authorised", models.IntegerField(default=0)),
                ("sent", models.IntegerField(default=0)),
                ("started_at", models.DateTimeField()),
                ("ended_at", models.DateTimeField(null=True)),
                ("end_frame", models.IntegerField(null=True)),
            ],
            options={
                "db_table": "runs_stepattempt",
                "abstract": False,
                "constraints": [
                    agentstate.tenants.security.RowSecurity(grants="SELECT, INSERT", name="runs_stepattempt_rls"),
                    agentstate.tenants.security.AppendOnly(name="runs_stepattempt_frozen"),
                    models.UniqueConstraint(fields=("run_id", "seq", "attempt"), name="runs_stepattempt_attempt"),
                    agentstate.tenants.security.TenantFK(
                        field="run_id", name="runs_stepattempt_run", on_delete="NO ACTION", to="runs_run"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Stop",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("agent", models.CharField(blank=True, default="", max_length=200)),
                ("status", models.CharField(default="active", max_length=8)),
                ("created_at", models.DateTimeField()),
                ("audit_head", models.BinaryField(default=bytes)),
                ("audit_seq", models.IntegerField(default=0)),
            ],
            options={
                "db_table": "runs_stop",
                "abstract": False,
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE, DELETE", hot=True, name="runs_stop_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "id"), name="runs_stop_tenant_id"),
                    models.UniqueConstraint(
                        condition=models.Q(("status", "active")), fields=("tenant_id", "agent"), name="runs_stop_active"
                    ),
                ],
            },
        ),
        migrations.CreateModel(
            name="Tool",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("agent", models.CharField(max_length=200)),
                ("name", models.CharField(max_length=200)),
                ("effect", models.CharField(max_length=12)),
                ("schema", models.JSONField()),
                ("approve", models.CharField(max_length=8)),
                ("window_s", models.FloatField(null=True)),
                ("settles_within_s", models.FloatField(null=True)),
                ("timeout_s", models.FloatField()),
                ("retries", models.IntegerField(default=0)),
                ("has_probe", models.BooleanField(default=False)),
                ("lookup_url", models.CharField(default="", max_length=500)),
                ("note", models.TextField(default="")),
                ("risk", models.CharField(default="low", max_length=4)),
                ("seen_at", models.DateTimeField()),
            ],
            options={
                "db_table": "runs_tool",
                "abstract": False,
                "constraints": [
                    agentstate.tenants.security.RowSecurity(
                        grants="SELECT, INSERT, UPDATE, DELETE", name="runs_tool_rls"
                    ),
                    models.UniqueConstraint(fields=("tenant_id", "id"), name="runs_tool_tenant_id"),
                    models.UniqueConstraint(fields=("tenant_id", "agent", "name"), name="runs_tool_name"),
                ],
            },
        ),
        migrations.CreateModel(
            name="Worker",
            fields=[
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("no", models.IntegerField(unique=True)),
                ("name", models.CharField(max_length=200)),
                ("kind", models.CharField(max_length=8)),
                ("for_tenant", models.UUIDField(null=True)),
                ("host", models.CharField(default="", max_length=200)),
                ("pid", models.IntegerField(default=0)),
                ("boot_id", models.CharField(default="", max_length=64)),
                ("pid_start", models.BigIntegerField(default=0)),
                (
                    "agents",
                    django.contrib.postgres.fields.ArrayField(
                        base_field=models.CharField(max_length=200), default=list, size=None
                    ),
                ),
                ("started_at", models.DateTimeField()),
                ("seen_at", models.DateTimeField()),
                ("dead_at", models.DateTimeField(null=True)),
                ("dead_proof", models.CharField(default="", max_length=200)),
            ],
            options={
                "db_table": "runs_worker",
                "indexes": [
                    models.Index(
                        condition=models.Q(("dead_at__isnull", True)), fields=["kind"], name="runs_worker_living"
                    ),
                    models.Index(fields=["host", "pid"], name="runs_worker_process"),
                ],
                "constraints": [
                    agentstate.tenants.security.GlobalTable(
                        grants="SELECT, INSERT, UPDATE, DELETE", name="runs_worker_grants"
                    )
                ],
            },
        ),
        migrations.AddField(
            model_name="run",
            name="worker",
            field=models.ForeignKey(
                db_constraint=False,
                db_index=False,
                null=True,
                on_delete=django.db.models.deletion.DO_NOTHING,
                related_name="+",
                to="runs.worker",
            ),
        ),
        migrations.CreateModel(
            name="ApprovalVote",
            fields=[
                ("tenant_id", models.UUIDField(db_default=agentstate.tenants.security.CurrentTenant(), editable=False)),
                (
                    "id",
                    models.UUIDField(
                        default=agentstate.core.ids.new_id, editable=False, primary_key=True, serialize=False
                    ),
                ),
                ("actor_kind", models.CharField(max_length=10)),
                ("actor_id", models.CharField(max_length=64)),
                ("actor_name", models.CharField(max_length=200)),
                ("decision", models.CharField(max_length=10)),
                ("version", models.IntegerField()),
                ("proposal_hash", models.BinaryField()),
                ("client_token", models.CharField(max_length=64)),
                ("at", models.DateTimeField()),
                (
                    "approval",
                    models.ForeignKey(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="votes",
                        to="runs.approval",
                    ),
                ),
            ],
            options={
                "db_table": "runs_approvalvote",
                "abstract": False,
                "constraints": [
                    models.UniqueConstraint(fields=("tenant_id", "id"), name="runs_approvalvote_tenant_id"),
                    agentstate.tenants.security.RowSecurity(grants="SELECT, INSERT", name="runs_approvalvote_rls"),
                    agentstate.tenants.security.AppendOnly(name="runs_approvalvote_frozen"),
                    models.UniqueConstraint(
                        fields=("approval", "actor_id", "client_token"), name="runs_approvalvote_token"
                    ),
                    agentstate.tenants.security.TenantFK(
                        field="approval", name="runs_approvalvote_approval", on_delete="NO ACTION", to="runs_approval"
                    ),
                ],
            },
        ),
        migrations.AddIndex(
            model_name="approval",
            index=models.Index(
                condition=models.Q(("status", "pending")), fields=["tenant_id", "-id"], name="runs_approval_inbox"
            ),
        ),
        migrations.AddIndex(
            model_name="approval",
            index=models.Index(fields=["run", "step_seq"], name="runs_approval_step"),
        ),
        migrations.AddIndex(
            model_name="approval",
            index=models.Index(fields=["tenant_id", "tool", "-id"], name="runs_approval_tool"),
        ),
        migrations.AddConstraint(
            model_name="approval",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, UPDATE, DELETE", name="runs_approval_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="approval",
            constraint=models.UniqueConstraint(fields=("tenant_id", "id"), name="runs_approval_tenant_id"),
        ),
        migrations.AddConstraint(
            model_name="approval",
            constraint=models.CheckConstraint(
                condition=models.Q(
                    ("status__in", ["pending", "approved", "edited", "rejected", "responded", "expired", "withdrawn"])
                ),
                name="runs_approval_status",
            ),
        ),
        migrations.AddConstraint(
            model_name="approval",
            constraint=models.CheckConstraint(
                condition=models.Q(("kind__in", ("tool", "ask", "budget", "settle"))), name="runs_approval_kind"
            ),
        ),
        migrations.AddConstraint(
            model_name="approval",
            constraint=agentstate.tenants.security.TenantFK(
                field="run", name="runs_approval_run", on_delete="NO ACTION", to="runs_run"
            ),
        ),
        migrations.AddConstraint(
            model_name="approval",
            constraint=agentstate.tenants.security.SweeperReads(
                columns=["id", "tenant_id", "run_id", "status", "expires_at"], name="runs_approval_sweeper"
            ),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(fields=["tenant_id", "agent", "-id"], name="runs_run_agent"),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                condition=models.Q(("status__in", ["succeeded", "cancelled"]), _negated=True),
                fields=["tenant_id", "status", "-id"],
                name="runs_run_live",
            ),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(fields=["tenant_id", "status", "-id"], name="runs_run_status_list"),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(
                condition=models.Q(("status__in", ["queued", "waiting"])), fields=["due_at"], name="runs_run_due"
            ),
        ),
        migrations.AddIndex(
            model_name="run",
            index=models.Index(condition=models.Q(("status", "running")), fields=["id"], name="runs_run_running"),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=agentstate.tenants.security.RowSecurity(
                grants="SELECT, INSERT, UPDATE, DELETE", hot=True, name="runs_run_rls"
            ),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=models.UniqueConstraint(fields=("tenant_id", "id"), name="runs_run_tenant_id"),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=agentstate.tenants.rules.RowRule(
                columns=["status"],
                name="runs_run_words",
                rule="(new.status = ANY ('{queued,running,waiting,paused,in_doubt,succeeded,failed,cancelled}'::text[]))",
            ),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=models.UniqueConstraint(fields=("tenant_id", "external_id"), name="runs_run_external_id"),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=models.UniqueConstraint(
                condition=models.Q(
                    ("status__in", ["in_doubt", "paused", "queued", "running", "waiting"]),
                    models.Q(("session_key", ""), _negated=True),
                    ("held", False),
                ),
                fields=("tenant_id", "session_key"),
                name="runs_run_session_live",
            ),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=agentstate.tenants.security.TenantFK(
                field="version", name="runs_run_version", on_delete="NO ACTION", to="runs_agentversion"
            ),
        ),
        migrations.AddConstraint(
            model_name="run",
            constraint=agentstate.tenants.security.SweeperReads(
                columns=["id", "tenant_id", "agent", "status", "held", "due_at", "lease_until", "worker_id", "fence"],
                name="runs_run_sweeper",
            ),
        ),
        *functions.operations(),
    ]
