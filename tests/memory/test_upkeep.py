"""Upkeep: batches that are done once, whoever kills them, and however many rounds begin at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection

from agentstate.core import failpoints
from agentstate.core.errors import Corrupt
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory.models import Subject, Upkeep
from memory.services import subjects, upkeep
from memory.services.upkeep import Progressed


class Numbering:
    """Makes subjects "1", "2", ... in batches: what was done twice or left out shows."""

    def __init__(self, total: int, batch: int) -> None:
        self.total, self.batch = total, batch

    def __call__(self, cursor: str) -> Progressed:
        first = int(cursor or 0)
        last = min(first + self.batch, self.total)
        for number in range(first, last):
            subjects.resolve(external_id=str(number))
        return Progressed(str(last), last - first, last == self.total)


def _made() -> list[str]:
    return sorted(str(name) for name in Subject.objects.values_list("external_id", flat=True))


def test_a_round_goes_on_where_it_was_left_and_begins_anew_when_over(scope: None) -> None:
    work = Numbering(5, 2)
    seen = [upkeep.step("number", work) for _ in range(3)]
    assert [step and (step.done, step.is_over) for step in seen] == [(2, False), (2, False), (1, True)]
    (standing,) = upkeep.standing()
    assert (standing.state, standing.done, standing.error) == ("idle", 5, "")
    assert standing.finished_at is not None
    again = upkeep.step("number", work)
    assert again == Progressed("2", 2, False)
    assert upkeep.standing()[0].done == 2


def test_an_error_rolls_its_batch_back_and_tells_where(scope: None) -> None:
    def work(cursor: str) -> Progressed:
        if cursor:
            subjects.resolve(external_id="half")
            raise Corrupt("The text of Ada")
        return Progressed("next", 1, False)

    upkeep.step("number", work)
    failed = upkeep.step("number", work)
    assert failed is not None and failed.failed.startswith("Corrupt (corrupt) at test_upkeep.py:")
    (standing,) = upkeep.standing()
    assert (standing.state, standing.done, standing.error) == ("failed", 1, failed.failed)
    assert _made() == []
    assert Upkeep.objects.get().cursor == "next"
    upkeep.step("number", lambda cursor: Progressed("", 0, cursor == "next"))
    assert (upkeep.standing()[0].state, upkeep.standing()[0].error) == ("idle", "")


def test_another_target_begins_a_new_round(scope: None) -> None:
    work = Numbering(9, 2)
    upkeep.step("number", work, target="a")
    assert upkeep.step("number", work, target="a") == Progressed("4", 2, False)
    assert upkeep.step("number", work, target="b") == Progressed("2", 2, False)


def test_two_rounds_at_once_are_one(committed_db: None, tenant: Tenant) -> None:
    inside, go_on = threading.Event(), threading.Event()
    outcomes: list[Progressed | None] = []

    def slow(cursor: str) -> Progressed:
        inside.set()
        assert go_on.wait(20)
        return Numbering(2, 2)(cursor)

    def first() -> None:
        outcomes.append(upkeep.drive(tenant.id, "number", slow))
        connection.close()

    other = threading.Thread(target=first)
    other.start()
    assert inside.wait(20)
    assert upkeep.drive(tenant.id, "number", Numbering(2, 2)) is None  # and does not wait
    go_on.set()
    other.join(20)
    assert outcomes == [Progressed("2", 2, True)]
    with tenant_scope(tenant.id):
        assert _made() == ["0", "1"]


@pytest.mark.parametrize("failpoint", ["memory.upkeep.worked", "memory.upkeep.between"])
def test_a_round_that_died_repeats_nothing_and_leaves_nothing_out(
    committed_db: None, tenant: Tenant, failpoint: str
) -> None:
    with failpoints.armed(f"{failpoint}=raise"), pytest.raises(failpoints.FailpointReached):
        upkeep.drive(tenant.id, "number", Numbering(7, 2))
    done = upkeep.drive(tenant.id, "number", Numbering(7, 2))
    assert done is not None and done.is_over
    with tenant_scope(tenant.id):
        assert _made() == [str(number) for number in range(7)]
        assert upkeep.standing()[0].done == 7


def test_one_call_does_a_bounded_number_of_batches(committed_db: None, tenant: Tenant) -> None:
    some = upkeep.drive(tenant.id, "number", Numbering(100, 2), batches_max=3)
    assert some == Progressed("6", 6, False)


class Apart(Numbering):
    """The same in two parts; `asked`: cursors that a model was asked for."""

    def __init__(self, total: int, batch: int) -> None:
        super().__init__(total, batch)
        self.asked: list[str] = []

    def ready(self, cursor: str) -> Callable[[], Progressed]:
        assert not connection.in_atomic_block
        self.asked.append(cursor)
        return lambda: self(cursor)


def _apart_until_over(tenant: Tenant, work: Apart) -> None:
    for _ in range(20):
        done = upkeep.apart(tenant.id, "number", work.ready)
        if done is not None and done.is_over:
            return
    raise AssertionError("the round does not end")


@pytest.mark.parametrize("failpoint", ["memory.upkeep.asked", "memory.upkeep.worked"])
def test_apart_killed_between_asking_and_writing_the_batch_is_done_again(
    committed_db: None, tenant: Tenant, failpoint: str
) -> None:
    work = Apart(5, 2)
    upkeep.apart(tenant.id, "number", work.ready)
    with failpoints.armed(f"{failpoint}=raise"), pytest.raises(failpoints.FailpointReached):
        upkeep.apart(tenant.id, "number", work.ready)
    with tenant_scope(tenant.id):
        assert (upkeep.standing()[0].state, _made()) == ("running", ["0", "1"])
    _apart_until_over(tenant, work)
    assert work.asked == ["", "2", "2", "4"]
    with tenant_scope(tenant.id):
        assert _made() == [str(number) for number in range(5)]
        assert (upkeep.standing()[0].state, upkeep.standing()[0].done) == ("idle", 5)


@pytest.mark.parametrize("overtaken_by", [1, 3])  # batches; three: a whole round, and its end
def test_apart_what_another_round_did_meanwhile_is_not_written_again(
    committed_db: None, tenant: Tenant, overtaken_by: int
) -> None:
    work = Apart(5, 2)

    def overtaken(cursor: str) -> Callable[[], Progressed]:
        write = work.ready(cursor)
        for _ in range(overtaken_by):
            assert upkeep.apart(tenant.id, "number", work.ready) is not None
        return write

    assert upkeep.apart(tenant.id, "number", overtaken) is None
    with tenant_scope(tenant.id):
        assert upkeep.standing()[0].done == min(5, 2 * overtaken_by)


def test_apart_an_error_of_either_part_is_told_and_keeps_the_cursor(committed_db: None, tenant: Tenant) -> None:
    work = Apart(5, 2)
    upkeep.apart(tenant.id, "number", work.ready)

    def refuses(cursor: str) -> Callable[[], Progressed]:
        raise Corrupt("The text of Ada")

    def writes_half(cursor: str) -> Callable[[], Progressed]:
        def write() -> Progressed:
            subjects.resolve(external_id="half")
            raise Corrupt("The text of Ada")

        return write

    for ready in (refuses, writes_half):
        failed = upkeep.apart(tenant.id, "number", ready)
        assert failed is not None and failed.failed.startswith("Corrupt (corrupt) at test_upkeep.py:")
        with tenant_scope(tenant.id):
            assert (upkeep.standing()[0].state, Upkeep.objects.get().cursor) == ("failed", "2")
            assert _made() == ["0", "1"]
    _apart_until_over(tenant, work)
