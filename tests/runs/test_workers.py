"""Workers that are gone: what counts as proof, and what a free lock alone allows."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from django.db import connection

from agentstate.sdk.store import End, Turn, WorkerInfo
from agentstate.tenants.scope import tenant_scope
from runs.models import Run, Worker
from runs.services import clock, sweep, workers
from tests.runs.conftest import Desk


def live_process() -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def info(pid: int, **more: Any) -> WorkerInfo:
    here = workers.this_process()
    return WorkerInfo(
        name=f"w{pid}",
        host=more.get("host", here.host),
        pid=pid,
        boot_id=more.get("boot_id", here.boot_id),
        pid_start=more.get("pid_start", workers.pid_start(pid)),
    )


def registered(pid: int, **more: Any) -> Worker:
    return workers.register(info(pid, **more), kind="hosted", agents=["desk"])


def test_a_living_process_is_seen_and_a_killed_one_is_proven_dead(db: None) -> None:
    process = live_process()
    worker = registered(process.pid)
    sweep.notice_dead(set())
    worker.refresh_from_db()
    assert worker.dead_proof == ""
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    sweep.notice_dead(set())  # a zombie, not reaped yet, drives nothing any more
    process.wait()
    worker.refresh_from_db()
    assert str(process.pid) in worker.dead_proof


def test_a_recycled_pid_is_another_process(db: None) -> None:
    worker = registered(os.getpid(), pid_start=workers.pid_start(os.getpid()) - 1)
    assert "another one" in workers.proof_of_death(worker)


def test_a_machine_of_the_same_name_proves_nothing(db: None) -> None:
    worker = registered(1, boot_id="another boot", pid_start=5)
    assert workers.proof_of_death(worker) == ""


def test_a_free_lock_elsewhere_needs_two_looks_and_is_no_proof(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "_server_is_settled", lambda: True)  # the tests' server may be seconds old
    worker = registered(1, host="elsewhere", boot_id="b", pid_start=5)
    first = sweep.notice_dead(set())
    assert first == {worker.id}
    worker.refresh_from_db()
    assert worker.dead_at is None
    sweep.notice_dead(first)
    worker.refresh_from_db()
    assert worker.dead_at is not None
    assert worker.dead_proof == ""


@pytest.mark.parametrize(
    ("effect", "free"), [("pure", True), ("keyed", True), ("probed", False), ("destructive", False)]
)
def test_before_the_lease_ends_a_lost_connection_frees_only_what_is_safe_to_repeat(
    desk: Desk, effect: str, free: bool
) -> None:
    claim = desk.store.claim(
        info(1, host="elsewhere", boot_id="b", pid_start=5),
        agents={"desk": _spec()},
        run_id=desk.store.admit("desk", {}).run_id,
    )
    assert claim is not None
    classes: dict[str, dict[str, Any]] = {"keyed": {"window_s": 60.0}, "probed": {"has_probe": True}}
    more = classes.get(effect, {})
    desk.begin(claim, "act", effect=effect, timeout_s=1.0, **more)
    with tenant_scope(desk.tenant_id):
        holder = Run.objects.get().worker_id
    assert holder is not None
    assert desk.try_take(claim.run_id) is None
    workers.mark_unreachable(holder)
    assert (desk.try_take(claim.run_id) is not None) is free


def test_proof_of_death_frees_even_a_destructive_step_at_once_and_only_to_be_doubted(desk: Desk) -> None:
    process = live_process()
    claim = desk.store.claim(info(process.pid), agents={"desk": _spec()}, run_id=desk.store.admit("desk", {}).run_id)
    assert claim is not None
    desk.begin(claim, "refund", effect="destructive", timeout_s=60.0)
    process.kill()
    process.wait()
    sweep.notice_dead(set())
    taken = desk.take(claim.run_id)
    assert desk.begin(taken, "refund", effect="destructive", timeout_s=60.0).action == "doubt"


def test_a_worker_that_was_dead_for_a_week_is_forgotten(db: None) -> None:
    worker = registered(1, host="elsewhere", boot_id="b", pid_start=5)
    workers.mark_dead(worker.id, proof="planted")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE runs_worker SET dead_at = now() - interval '8 days'")
    assert sweep.drop_old() == 1


def _spec() -> Any:
    from tests.runs.conftest import SPEC

    return SPEC


def test_a_silent_worker_over_http_is_forgotten_unless_it_drives_a_run(desk: Desk) -> None:
    from runs.engine.store import LocalStore

    store = LocalStore(desk.actor, kind="http", lease_s=3_600)
    claims = [
        store.claim(info(pid, host="far", boot_id="b", pid_start=1), agents={"desk": _spec()}, run_id=run_id)
        for pid, run_id in ((1, desk.store.admit("desk", {}).run_id), (2, desk.store.admit("desk", {}).run_id))
    ]
    assert claims[0] is not None and claims[1] is not None
    store.turn(claims[0], Turn(then=End("succeeded", output=None)))
    with tenant_scope(desk.tenant_id):
        Worker.objects.filter(kind="http").update(seen_at=clock.database_now() - sweep.SILENT * 2)
    sweep.drop_old()
    with tenant_scope(desk.tenant_id):
        assert list(Worker.objects.filter(kind="http", dead_at__isnull=True).values_list("pid", flat=True)) == [2]
