"""Each way of changing the past turns verification red; without any it is green."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from agentstate.audit import clusters, notes, sealing, tasks, trail, verification
from agentstate.audit.models import AuditEntry, AuditSeal, Cluster
from agentstate.db import locks, sql
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from runs.models import Run

type_new_run = Callable[[], Run]
type_sabotage = Callable[..., int]


@pytest.fixture
def past(committed_db: None, tenant: Tenant, alice: Actor, new_run: type_new_run) -> tuple[Run, Run]:
    """Two runs with three entries each, one with a reason; all sealed in two seals. Verifies."""
    runs = new_run(), new_run()
    for to in ("running", "paused", "cancelled"):
        with tenant_scope(tenant.id):
            for run in runs:
                trail.transition(run, to=to, actor=alice, reason="enough" if to == "paused" else "")
        if to != "running":
            assert len(sealing.seal(tenant.id)) == 1
    assert verification.verify(tenant.id) == []
    return runs


def kinds(tenant: Tenant, **options: object) -> set[str]:
    return {finding.kind for finding in verification.verify(tenant.id, **options)}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        "action = 'approved'",
        "actor_id = 'victor'",
        "actor_name = 'Victor'",
        "actor_kind = 'system'",
        "from_status = 'failed'",
        "to_status = 'succeeded'",
        "at = at + interval '1 microsecond'",
        """detail = '{"amount": 1}'""",
        "sha = sha256(sha)",
        "note_sha = sha256('x'), note_id = NULL",
        "object_seq = 9",
    ],
)
def test_a_changed_entry_is_found(tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage, change: str) -> None:
    assert sabotage(f"UPDATE audit_entry SET {change} WHERE object_id = %s AND object_seq = 2", past[0].id) == 1
    found = verification.verify(tenant.id)
    assert {(finding.kind, finding.object_id) for finding in found if finding.object_type == "run"} <= {
        ("changed", str(past[0].id)),
        ("missing", str(past[0].id)),
        ("tail", str(past[0].id)),
    }
    assert any(finding.object_type == "run" for finding in found)


def test_a_changed_entry_with_its_chain_recomputed_is_found_by_the_seal(
    tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage
) -> None:
    """Whoever knows the code can make the object's chain fit again; the root of the minute they cannot."""
    run = past[0]
    sabotage("UPDATE audit_entry SET actor_id = 'victor' WHERE object_id = %s AND object_seq = 2", run.id)
    with tenant_scope(tenant.id):
        entries = [row for row in sql.rows(verification.ENTRIES) if row[1] == run.id]
    head = b""
    for row in entries:
        head = sha256(head + row[7].encode()).digest()
        sabotage("UPDATE audit_entry SET sha = %s WHERE object_id = %s AND object_seq = %s", head, run.id, row[2])
    sabotage("UPDATE runs_run SET audit_head = %s WHERE id = %s", head, run.id)
    found = verification.verify(tenant.id)
    assert {finding.kind for finding in found} == {"seal"}
    assert "an entry under it" in found[0].text


def test_a_deleted_entry_in_the_middle_is_found(tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage) -> None:
    assert sabotage("DELETE FROM audit_entry WHERE object_id = %s AND object_seq = 2", past[0].id) == 1
    assert kinds(tenant) == {"missing", "seal"}


def test_a_deleted_tail_is_found(tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage) -> None:
    assert sabotage("DELETE FROM audit_entry WHERE object_id = %s AND object_seq = 3", past[0].id) == 1
    assert kinds(tenant) == {"tail", "seal"}


def test_a_deleted_tail_whose_head_was_put_back_is_found_by_the_seal(
    tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage
) -> None:
    sabotage("DELETE FROM audit_entry WHERE object_id = %s AND object_seq = 3", past[0].id)
    sabotage(
        "UPDATE runs_run r SET audit_seq = 2, audit_head = e.sha FROM audit_entry e"
        " WHERE r.id = %s AND e.object_id = r.id AND e.object_seq = 2",
        past[0].id,
    )
    assert kinds(tenant) == {"seal"}


def test_an_object_removed_with_all_its_entries_is_found_by_the_seal(
    tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage
) -> None:
    sabotage("DELETE FROM audit_entry WHERE object_id = %s", past[0].id)
    sabotage("DELETE FROM runs_run WHERE id = %s", past[0].id)
    found = verification.verify(tenant.id)
    assert {finding.kind for finding in found} == {"seal"}
    assert found[0].text == "4 entries were sealed, 2 are here"


def test_an_object_removed_without_a_farewell_is_found(
    tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage
) -> None:
    sabotage("DELETE FROM runs_run WHERE id = %s", past[0].id)
    assert [(finding.kind, finding.object_id) for finding in verification.verify(tenant.id)] == [
        ("gone", str(past[0].id))
    ]


def test_an_object_deleted_with_a_farewell_verifies(tenant: Tenant, past: tuple[Run, Run], alice: Actor) -> None:
    with tenant_scope(tenant.id):
        trail.record(past[0], action="deleted", actor=alice)
        Run.objects.filter(id=past[0].id).delete()
    assert verification.verify(tenant.id) == []


def test_two_swapped_entries_are_found(tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage) -> None:
    sabotage(
        "UPDATE audit_entry a SET action = b.action, from_status = b.from_status, to_status = b.to_status, sha = b.sha,"
        " at = b.at, note_id = b.note_id, note_sha = b.note_sha FROM audit_entry b WHERE a.object_id = b.object_id"
        " AND a.object_id = %s AND a.object_seq + b.object_seq = 3",
        past[0].id,
    )
    assert kinds(tenant) == {"changed", "seal"}


def test_entries_of_two_objects_swapped_are_found(
    tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage
) -> None:
    sabotage("DROP INDEX IF EXISTS nothing")
    sabotage("UPDATE audit_entry SET object_seq = object_seq + 100 WHERE object_id = %s AND object_seq = 2", past[0].id)
    sabotage("UPDATE audit_entry SET object_id = %s WHERE object_id = %s AND object_seq = 2", past[0].id, past[1].id)
    sabotage(
        "UPDATE audit_entry SET object_id = %s, object_seq = 2 WHERE object_id = %s AND object_seq = 102",
        past[1].id,
        past[0].id,
    )
    assert "changed" in kinds(tenant)


def test_an_invented_entry_is_found(tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage) -> None:
    sabotage(
        "INSERT INTO audit_entry (tenant_id, object_type, object_id, object_seq, action, from_status, to_status,"
        " actor_kind, actor_id, actor_name, at, detail, sha, epoch, xid) SELECT tenant_id, object_type, object_id, 4,"
        " 'approved', '', '', actor_kind, actor_id, actor_name, at, detail, sha256('x'), epoch, xid FROM audit_entry"
        " WHERE object_id = %s AND object_seq = 3",
        past[0].id,
    )
    assert kinds(tenant) == {"changed", "tail", "seal"}


def test_an_invented_entry_with_its_chain_made_to_fit_is_found_by_the_seal(
    tenant: Tenant, past: tuple[Run, Run], alice: Actor, sabotage: type_sabotage
) -> None:
    """An act that never was, written properly and then moved into the past."""
    with tenant_scope(tenant.id):
        trail.record(past[0], action="approved", actor=alice)
    assert verification.verify(tenant.id) == []
    sabotage("UPDATE audit_entry SET xid = 1 WHERE action = 'approved'")
    found = verification.verify(tenant.id)
    assert [finding.text for finding in found] == ["1 entries of its time or before are under no seal"]


def test_a_changed_reason_is_found(tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage) -> None:
    assert sabotage("UPDATE audit_note SET body = body || 'x'::bytea") == 2
    assert kinds(tenant) == {"note"}


def test_a_removed_reason_is_found(tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage) -> None:
    assert sabotage("DELETE FROM audit_note") == 2
    assert kinds(tenant) == {"note"}


def test_an_erased_reason_is_unreadable_and_the_chain_verifies(tenant: Tenant, past: tuple[Run, Run]) -> None:
    with tenant_scope(tenant.id):
        entries = list(AuditEntry.objects.filter(note_id__isnull=False).order_by("id"))
        first, second = (entry.note_id for entry in entries)
        assert notes.read(entries) == {first: "enough", second: "enough"}
        assert first is not None
        notes.erase(first)
        notes.erase(first)
        assert notes.read(entries) == {second: "enough"}
    assert verification.verify(tenant.id) == []


def test_reasons_are_readable_after_the_tenants_key_was_rotated(tenant: Tenant, past: tuple[Run, Run]) -> None:
    from agentstate.tenants import keyring

    keyring.rotate(tenant.id)
    with tenant_scope(tenant.id):
        assert notes.rewrap() == 2
        assert set(notes.read(AuditEntry.objects.all()).values()) == {"enough"}
    assert verification.verify(tenant.id) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE audit_seal SET n = n - 1 WHERE seq = 1",
        "UPDATE audit_seal SET root = sha256(root) WHERE seq = 1",
        "UPDATE audit_seal SET root = sha256(root) WHERE seq = 2",
        "UPDATE audit_seal SET to_xid = to_xid + 1000000 WHERE seq = 2",
        "UPDATE audit_seal SET from_xid = 1 WHERE seq = 1",
        "UPDATE audit_seal SET mac = sha256(mac) WHERE seq = 2",
        "UPDATE audit_seal SET previous = sha256(previous) WHERE seq = 2",
        "DELETE FROM audit_seal WHERE seq = 1",
    ],
)
def test_a_changed_seal_is_found(tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage, change: str) -> None:
    assert sabotage(change) == 1
    assert kinds(tenant) == {"seal"}


def test_a_forged_seal_without_the_tenants_key_is_found(
    tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage
) -> None:
    """An object vanishes and the newest seal is made anew over what is left, with everything a database holds."""
    sabotage("DELETE FROM audit_entry WHERE object_id = %s AND object_seq = 3", past[0].id)
    sabotage(
        "UPDATE runs_run r SET audit_seq = 2, audit_head = e.sha FROM audit_entry e"
        " WHERE r.id = %s AND e.object_id = r.id AND e.object_seq = 2",
        past[0].id,
    )
    with tenant_scope(tenant.id):
        seal = AuditSeal.objects.get(seq=2)
        seal.n -= 1
        digest = list(sql.rows(verification.WINDOWS))[1][2]
    sabotage("UPDATE audit_seal SET n = %s, root = %s WHERE seq = 2", seal.n, sealing.root_of(seal, digest))
    assert [finding.text for finding in verification.verify(tenant.id)] == ["it was not made with this tenant's key"]


def test_a_cut_off_seal_with_its_entries_is_found_by_an_anchor_only(
    tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage
) -> None:
    with tenant_scope(tenant.id):
        anchor = {2: bytes(AuditSeal.objects.get(seq=2).root).hex()}
    assert verification.verify(tenant.id, anchors=anchor) == []
    sabotage("DELETE FROM audit_seal WHERE seq = 2")
    sabotage("DELETE FROM audit_entry WHERE object_seq = 3")
    sabotage(
        "UPDATE runs_run r SET audit_seq = 2, audit_head = e.sha FROM audit_entry e"
        " WHERE e.object_id = r.id AND e.object_seq = 2"
    )
    assert verification.verify(tenant.id) == []
    assert kinds(tenant, anchors=anchor) == {"seal"}


def test_a_kind_of_object_that_has_no_trail_is_named(
    tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage
) -> None:
    sabotage("UPDATE audit_entry SET object_type = 'rum' WHERE object_id = %s", past[0].id)
    assert {"unknown", "tail", "changed"} <= kinds(tenant)


def test_an_open_transaction_is_sealed_when_it_is_over_and_not_before(
    committed_db: None, tenant: Tenant, alice: Actor, new_run: type_new_run
) -> None:
    slow, quick = new_run(), new_run()
    with tenant_scope(tenant.id):
        trail.transition(slow, to="paused", actor=alice)
        assert _in_another_process(lambda: _move_and_seal(tenant, quick, alice)) == []
    assert [seal.n for seal in sealing.seal(tenant.id)] == [2]
    assert sealing.seal(tenant.id) == []
    assert verification.verify(tenant.id) == []


def test_only_one_sealer_works_at_a_time(
    committed_db: None, tenant: Tenant, alice: Actor, new_run: type_new_run
) -> None:
    run = new_run()
    with tenant_scope(tenant.id):
        trail.transition(run, to="paused", actor=alice)
    with tenant_scope(tenant.id):
        locks.hold("audit.seal", tenant.id)
        assert _in_another_process(lambda: sealing.seal(tenant.id)) == []
    assert len(sealing.seal(tenant.id)) == 1


def test_after_a_restore_into_another_cluster_everything_is_sealed(
    tenant: Tenant, past: tuple[Run, Run], alice: Actor, new_run: type_new_run, sabotage: type_sabotage
) -> None:
    """Moving the old numbers up makes this the other cluster; entries made before anybody noticed are sealed too."""
    late, unnoticed, noticed = new_run(), new_run(), new_run()
    with tenant_scope(tenant.id):
        trail.transition(late, to="paused", actor=alice)  # not sealed when the dump was taken
    far = 10**12
    sabotage("UPDATE audit_entry SET xid = xid + %s", far)
    sabotage("UPDATE audit_seal SET to_xid = to_xid + %s", far)
    sabotage("UPDATE audit_seal SET from_xid = from_xid + %s WHERE seq > 1", far)
    sabotage("UPDATE audit_cluster SET system_id = 1")
    _remake_seals(tenant, sabotage)
    with tenant_scope(tenant.id):
        trail.transition(unnoticed, to="paused", actor=alice)
    assert verification.verify(tenant.id) == []
    closing, *rest = sealing.seal(tenant.id)
    assert (closing.epoch, closing.n, rest) == (1, 2, [])
    with tenant_scope(tenant.id):
        trail.transition(noticed, to="paused", actor=alice)
        assert AuditEntry.objects.get(object_id=noticed.id).epoch == 2
    assert [(seal.epoch, seal.n) for seal in sealing.seal(tenant.id)] == [(2, 1)]
    assert sealing.seal(tenant.id) == []
    assert verification.verify(tenant.id) == []
    sabotage("DELETE FROM audit_entry WHERE object_id = %s", unnoticed.id)
    sabotage("UPDATE runs_run SET audit_seq = 0, audit_head = '' WHERE id = %s", unnoticed.id)
    assert kinds(tenant) == {"seal"}


@pytest.mark.django_db
def test_a_cluster_is_observed_once() -> None:
    assert (clusters.observe(), clusters.observe(), Cluster.objects.count()) == (1, 1, 1)


def test_the_task_seals_every_tenant(tenant: Tenant, other_tenant: Tenant, past: tuple[Run, Run], alice: Actor) -> None:
    with tenant_scope(tenant.id):
        trail.record(past[0], action="seen", actor=alice)
    with tenant_scope(other_tenant.id):
        trail.record(other_tenant, action="seen", actor=alice)
    assert tasks.seal() == 2
    assert tasks.seal() == 0
    assert verification.verify(tenant.id) == verification.verify(other_tenant.id) == []


def test_the_command_says_what_verifies_and_fails_where_something_does_not(
    tenant: Tenant, past: tuple[Run, Run], sabotage: type_sabotage
) -> None:
    out = StringIO()
    call_command("verify_audit", "--tenant", tenant.slug, stdout=out, skip_checks=True)
    assert "6 entries, all verify; newest seal 2:" in out.getvalue()
    anchor = out.getvalue().split("newest seal ")[1].split()[0]
    call_command("verify_audit", "--tenant", tenant.slug, "--anchor", anchor, stdout=out, skip_checks=True)
    with pytest.raises(CommandError, match="1 places do not verify"):
        call_command("verify_audit", "--tenant", tenant.slug, "--anchor", "1:" + "0" * 64, stdout=out, skip_checks=True)
    sabotage("DELETE FROM audit_entry WHERE object_id = %s AND object_seq = 3", past[0].id)
    with pytest.raises(CommandError, match="2 places do not verify"):
        call_command("verify_audit", stdout=out, skip_checks=True)
    assert f"run {past[0].id} #3: its head is of entry 3, the newest here is 2" in out.getvalue()


@pytest.mark.parametrize("arguments", [["--tenant", "nobody"], ["--anchor", "1:" + "0" * 64]])
def test_the_command_refuses_what_it_cannot_do(tenant: Tenant, arguments: list[str]) -> None:
    with pytest.raises(CommandError, match=r"no tenant nobody|name it by --tenant"):
        call_command("verify_audit", *arguments, skip_checks=True)


def _move_and_seal(tenant: Tenant, run: Run, actor: Actor) -> list[AuditSeal]:
    with tenant_scope(tenant.id):
        trail.transition(run, to="paused", actor=actor)
    return sealing.seal(tenant.id)


def _in_another_process(act: Callable[[], list[AuditSeal]]) -> list[AuditSeal]:
    """Another connection is what matters: a thread has its own."""
    from concurrent.futures import ThreadPoolExecutor

    from django.db import connection

    def run() -> list[AuditSeal]:
        try:
            return act()
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(30)


def _remake_seals(tenant: Tenant, sabotage: type_sabotage) -> None:
    """Roots for the moved numbers, as the old cluster would have made them."""
    previous = b""
    with tenant_scope(tenant.id):
        digests = [row[2] for row in sql.rows(verification.WINDOWS)]
        for seal, digest in zip(AuditSeal.objects.order_by("seq"), digests, strict=True):
            seal.previous = previous
            previous = sealing.root_of(seal, digest)
            mac = sealing.mac_of(tenant.id, previous)
            sabotage(
                "UPDATE audit_seal SET previous = %s, root = %s, mac = %s WHERE id = %s",
                bytes(seal.previous), previous, mac, seal.id,
            )  # fmt: skip
