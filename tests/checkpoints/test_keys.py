"""Rotation re-wraps run keys, in batches, and can be killed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from io import StringIO
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import connection

from agentstate.audit.models import AuditEntry
from agentstate.db import sql
from agentstate.tenants import keyring
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from checkpoints import keys
from tests.checkpoints.conftest import Run, kept

pytestmark = pytest.mark.usefixtures("committed_db")


def test_rotation_rewraps_every_run_key_and_frames_still_open(
    run: Run, new_run: Callable[[], Run], tenant: Tenant
) -> None:
    runs = [run, *(new_run() for _ in range(6))]
    for each in runs:
        each.write_many(2)
    with tenant_scope(tenant.id):
        keys.destroy(runs[6].id)
    out = StringIO()
    call_command("rotate_keys", tenant=tenant.slug, stdout=out)
    assert "acme: version 2; 6 keys wrapped by it, 0 left" in out.getvalue()
    with tenant_scope(tenant.id):
        (entry,) = AuditEntry.objects.filter(action="keys_rotated")
    assert entry.detail == {"version": 2, "by_master": 0, "rewrapped": 6, "left": 0, "reasons": 0}
    with tenant_scope(tenant.id):
        versions = sql.rows("SELECT key_version, wrapped FROM checkpoints_runkey WHERE destroyed_at IS NULL")
    assert {(version, keyring.version_of(wrapped)) for version, wrapped in versions} == {(2, 2)}
    assert all(kept(each) == [1, 2] for each in runs[:6])
    call_command("rotate_keys", rewrap_only=True, stdout=out)
    assert "acme: version 2; 0 keys wrapped by it, 0 left" in out.getvalue()


def test_a_rotation_killed_in_the_middle_goes_on(new_run: Callable[[], Run], tenant: Tenant) -> None:
    runs = [new_run() for _ in range(5)]
    keyring.rotate(tenant.id)
    with tenant_scope(tenant.id):
        for run_id, wrapped in keys.KEYS.older_than(2, after=UUID(int=0), limit=2):  # one batch, then dead
            keys.KEYS.rewrap_one(tenant.id, run_id, wrapped)
    assert keys.KEYS.left_behind(tenant.id) == 3
    assert keys.KEYS.rewrap(tenant.id, batch_rows=2) == 3
    assert keys.KEYS.left_behind(tenant.id) == 0
    with tenant_scope(tenant.id):
        assert [keys.existing(run.id) for run in runs] == [run.key for run in runs]


def test_a_key_row_that_is_held_is_skipped_and_counted(run: Run, new_run: Callable[[], Run], tenant: Tenant) -> None:
    new_run()
    keyring.rotate(tenant.id)
    counts: list[int] = []

    def rotate() -> None:
        counts.append(keys.KEYS.rewrap(tenant.id))
        connection.close()

    with tenant_scope(tenant.id):
        sql.row("SELECT 1 FROM checkpoints_runkey WHERE run_id = %s FOR UPDATE", [run.id])
        elsewhere = threading.Thread(target=rotate)
        elsewhere.start()
        elsewhere.join()
    assert counts == [1]
    assert keys.KEYS.left_behind(tenant.id) == 1
