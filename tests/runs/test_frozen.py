"""What a step is, and what became of it, does not change in the database, whoever writes."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connections, transaction

from agentstate.core.ids import parse_id
from agentstate.db import sql
from agentstate.sdk.store import Claim
from agentstate.tenants.rules import RowRule
from agentstate.tenants.scope import tenant_scope
from checkpoints.models import Frame
from runs.models import Run, Step
from runs.models.step import EFFECTS
from runs.states import StepStatus
from tests.runs.conftest import Desk


@pytest.fixture
def done(desk: Desk) -> Claim:
    """A run whose first step is done and whose second has started."""
    claim = desk.start()
    desk.finish(claim, desk.begin(claim, "look").seq, output={"found": 1})
    desk.begin(claim, "read")
    return claim


def write(desk: Desk, claim: Claim, seq: int, **changes: Any) -> None:
    with tenant_scope(desk.tenant_id), transaction.atomic():
        assert Step.objects.filter(run_id=parse_id("run", claim.run_id), seq=seq).update(**changes) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"identity": "another#1"},
        {"generation": 7},
        {"name": "another"},
        {"kind": "tool"},
        {"effect": "replayable"},
        {"payload_hash": b"x" * 32},
        {"key": "k" * 64},
        {"fence": 0},
        {"status": "started"},
        {"output": b"forged"},
        {"output_hash": b"x" * 32},
        {"fence": 99},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_a_step_that_is_over_is_frozen(desk: Desk, done: Claim, changes: dict[str, Any]) -> None:
    with pytest.raises(DatabaseError, match=r"step 1 of run .* is frozen"):
        write(desk, done, 1, **changes)


@pytest.mark.parametrize("changes", [{"identity": "another#1"}, {"payload_hash": b"x" * 32}, {"fence": 0}])
def test_a_started_step_keeps_what_it_is(desk: Desk, done: Claim, changes: dict[str, Any]) -> None:
    with pytest.raises(DatabaseError, match=r"step 2 of run .* is frozen"):
        write(desk, done, 2, **changes)


def test_a_started_step_may_fail_and_pass_to_a_higher_fence(desk: Desk, done: Claim) -> None:
    write(desk, done, 2, status="failed", fence=99)


@pytest.mark.parametrize("changes", [{"fence": 0}, {"agent": "another"}])
def test_the_fence_of_a_run_never_falls_and_its_agent_stays(desk: Desk, done: Claim, changes: dict[str, Any]) -> None:
    with pytest.raises(DatabaseError, match="never falls"), tenant_scope(desk.tenant_id), transaction.atomic():
        Run.objects.filter(id=parse_id("run", done.run_id)).update(**changes)


# Rules that a turn is not to pay for are triggers: each must refuse what a check would, by the same error.
@pytest.mark.parametrize("changes", [{"status": "lost"}, {"status": "in_doubt"}, {"status": ""}])
def test_a_step_has_no_other_status_and_a_doubt_has_its_time(desk: Desk, done: Claim, changes: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match=r"violates check constraint \"runs_step_words\""):
        write(desk, done, 2, **changes)


@pytest.mark.parametrize("changes", [{"effect": "harmless"}, {"effect": "keyed", "key": None}, {"status": "lost"}])
def test_no_step_is_inserted_under_another_word(desk: Desk, done: Claim, changes: dict[str, Any]) -> None:
    with (
        pytest.raises(IntegrityError, match=r"violates check constraint \"runs_step_words\""),
        tenant_scope(desk.tenant_id),
        transaction.atomic(),
    ):
        step = Step.objects.get(run_id=parse_id("run", done.run_id), seq=2)
        step.seq, step.identity = 3, "third#1"
        for name, value in changes.items():
            setattr(step, name, value)
        step.save(force_insert=True)


def test_a_run_has_no_other_status(desk: Desk, done: Claim) -> None:
    with (
        pytest.raises(IntegrityError, match=r"violates check constraint \"runs_run_words\""),
        tenant_scope(desk.tenant_id),
        transaction.atomic(),
    ):
        Run.objects.filter(id=parse_id("run", done.run_id)).update(status="lost")


def test_a_frame_is_a_change_to_an_earlier_one(desk: Desk, done: Claim) -> None:
    with (
        pytest.raises(IntegrityError, match=r"violates check constraint \"checkpoints_frame_base\""),
        tenant_scope(desk.tenant_id),
        transaction.atomic(),
    ):
        frame = Frame.objects.filter(run_id=parse_id("run", done.run_id)).latest("n")
        frame.n, frame.base_n = frame.n + 1, frame.n + 1
        frame.save(force_insert=True)


FACTS = """SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgname = ANY(%s)
UNION ALL SELECT proname, prosrc FROM pg_proc WHERE proname = ANY(%s) ORDER BY 1, 2"""


def test_what_is_usual_for_a_step_never_breaks_its_rule(desk: Desk) -> None:
    """It is asked first, and the rule then no more."""
    rule = next(found for found in Step._meta.constraints if isinstance(found, RowRule))
    rows = """SELECT ({usual}), ({rule}) FROM (SELECT status, effect, key, doubted_at
      FROM unnest(%s::text[]) status, unnest(%s::text[]) effect, unnest(ARRAY[NULL, 'k']) key,
           unnest(ARRAY[NULL, now()]) doubted_at) new"""
    words = [[*StepStatus.values, "other", None], [*EFFECTS, "other", None]]
    found = sql.rows(rows.format(usual=rule.usual, rule=rule.rule), words)
    assert {holds for usual, holds in found if usual} == {True}
    assert {holds for usual, holds in found if not usual} >= {True, False}


@pytest.mark.django_db(databases=["default", "owner"])
def test_a_rule_can_be_unmade_and_made_again() -> None:
    models = (Run, Step, Frame)
    rules = [(model, rule) for model in models for rule in model._meta.constraints if isinstance(rule, RowRule)]
    names = [rule.name for _, rule in rules]

    def facts() -> list[Any]:
        with connections["owner"].cursor() as cursor:
            cursor.execute(FACTS, [names, names])
            return list(cursor.fetchall())

    before = facts()
    with connections["owner"].schema_editor() as editor:
        for model, rule in rules:
            editor.remove_constraint(model, rule)
        assert facts() == []
        for model, rule in rules:
            editor.add_constraint(model, rule)
    assert len(before) == 6 and facts() == before
