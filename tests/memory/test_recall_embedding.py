"""Vectors come later, in batches, whatever befalls the model; and a move to another model waits till it may."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from datetime import timedelta
from functools import partial

import psycopg
import pytest
from django.db import connection, transaction
from redis import Redis

from agentstate.core import clock, failpoints
from agentstate.db import sql
from agentstate.dev.testing import superuser_url
from agentstate.llm import embedding, former_embedder
from agentstate.llm.embedding import Embedded, Question, TokenRows
from agentstate.llm.endpoint import BadAnswer, ModelRefused, ModelUnavailable
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory import tasks
from memory.models import Item, Subject, Unit, UnitStaged, UnitTokens
from memory.recall import embedding as making
from memory.recall import questions, units, vectors, wanted
from memory.recall.embedding import Batch, embed_batch
from memory.recall.searching import search
from memory.services import subjects, turns, upkeep
from tests.memory.recall_world import Talk, WordEmbedder

pytestmark = pytest.mark.django_db
OLD, NEW = "words@1", "words@2"
OPEN_TRANSACTIONS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND usename = 'app' AND xact_start IS NOT NULL"""


class Models:
    """Embedders by name, and which of them the settings choose."""

    def __init__(self) -> None:
        self.known = {name: WordEmbedder(name) for name in (OLD, NEW)}
        self.chosen: WordEmbedder | None = self.known[OLD]

    def choose(self, name: str, **changed: object) -> WordEmbedder:
        if changed:
            self.known[name] = WordEmbedder(name, **changed)  # type: ignore[arg-type]
        self.chosen = self.known[name]
        return self.chosen


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> Iterator[Models]:
    made = Models()
    monkeypatch.setattr(embedding, "embedder", lambda: made.chosen)
    monkeypatch.setattr(former_embedder, "named", made.known.get)
    monkeypatch.setattr(former_embedder, "is_possible", lambda: True)
    questions.forget_failures()
    yield made
    questions.forget_failures()


@pytest.fixture
def talk(scope: None, subject: Subject) -> Talk:
    made = Talk(subject)
    made.session(*[("Tom", f"the violin number {n} stands in room {n * 7}") for n in range(20)])
    made.item("Tom plays the violin")
    return made


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock of the rounds forward."""
    ahead = [0.0]
    real = clock.now
    monkeypatch.setattr(making, "now", lambda: real() + timedelta(seconds=ahead[0]))

    def move(seconds: float) -> None:
        ahead[0] += seconds

    return move


def go_on(cursor: str = "", *, batches: int = 200) -> list[Batch]:
    """Batches until the round is over, fails, or there were enough."""
    made: list[Batch] = []
    for _ in range(batches):
        made.append(embed_batch(made[-1].cursor if made else cursor, batch_units=8))
        if made[-1].is_over or made[-1].failed:
            break
    return made


def labels() -> dict[str, int]:
    return dict(sql.rows("SELECT model, count(*)::int FROM memory_unit GROUP BY model"))


def test_a_round_embeds_every_unit_once_and_a_second_nothing(talk: Talk, models: Models) -> None:
    batches = go_on()
    assert batches[-1] == Batch("", 0, True)
    assert [batch.done for batch in batches if batch.done] == [8, 8, 5]
    assert labels() == {f"{OLD}:64": 21} and UnitTokens.objects.count() == 21
    assert models.chosen and sorted(models.chosen.embedded) == sorted(talk.texts.values())
    assert sum(batch.done for batch in go_on()) == 0
    assert len(models.chosen.embedded) == 21
    assert making.lacking() == (0, 21)


def test_texts_of_a_batch_come_in_the_order_of_their_length(talk: Talk, models: Models) -> None:
    go_on()
    assert models.chosen is not None
    first = [len(text) for text in models.chosen.embedded[:8]]
    assert first == sorted(first)


def test_tokens_are_sealed_and_open_only_in_their_place(talk: Talk) -> None:
    go_on()
    first, second = UnitTokens.objects.order_by("unit_id")[:2]
    assert WordEmbedder(OLD)._tokens("violin")[0].astype("<u2").tobytes() not in bytes(first.body)
    UnitTokens.objects.filter(unit_id=first.unit_id).update(body=second.body, count=second.count)
    recall = search(talk.subject.id, "violin", k=100, explain=True)
    assert {hit.id for hit in recall.hits if "late" not in hit.raw} == {first.unit_id}


def test_without_a_model_a_round_is_over_at_once(talk: Talk, models: Models) -> None:
    models.chosen = None
    assert embed_batch("") == Batch("", 0, True)
    assert making.target() == ""
    assert making.lacking() == (21, 21)


@pytest.mark.parametrize("error", [ModelUnavailable("away"), BadAnswer("noise"), OSError("gone"), ValueError("shape")])
def test_a_model_that_is_down_costs_a_growing_wait_and_no_text(
    talk: Talk, models: Models, later: Callable[[float], None], error: Exception
) -> None:
    assert models.chosen is not None
    models.chosen.down = error
    cursor, waits = "", list[float]()
    for _ in range(9):
        before = clock.now() + timedelta(seconds=sum(waits) + 2 * len(waits))
        failed = embed_batch(cursor)
        assert (failed.done, failed.is_over, failed.failed) == (0, False, type(error).__name__)
        assert embed_batch(failed.cursor) == failed  # it waits, and asks nobody
        until = making.wait_until(failed.cursor)
        assert until is not None
        waits.append((until - before).total_seconds())
        cursor = failed.cursor
        assert len(cursor) <= 200
        later(waits[-1] + 2)
    assert waits == [pytest.approx(wait, abs=1.5) for wait in (5, 10, 20, 40, 80, 160, 320, 600, 600)]
    assert len(search(talk.subject.id, "violin", k=100).hits) >= 1
    models.chosen.down = None
    batches = go_on(cursor)
    assert batches[-1].is_over and labels() == {f"{OLD}:64": 21}


def nonsense() -> dict[str, Callable[[Embedded], Embedded]]:
    import numpy as np

    good = TokenRows(b"\0\0", bytes(8), 1)
    return {
        "other length": lambda one: Embedded(one.vector[:32], one.tokens),
        "not a number": lambda one: Embedded(one.vector * np.float32("nan"), one.tokens),
        "endless": lambda one: Embedded(one.vector * np.float32("inf"), one.tokens),
        "zero": lambda one: Embedded(one.vector * 0, one.tokens),
        "fewer ids": lambda one: Embedded(one.vector, TokenRows(b"", good.bits, 1)),
        "more bits": lambda one: Embedded(one.vector, TokenRows(good.ids, bytes(9), 1)),
        "too many": lambda one: Embedded(one.vector, TokenRows(bytes(2 * 40_000), bytes(8 * 40_000), 40_000)),
    }


@pytest.mark.parametrize("kind", list(nonsense()))
def test_an_answer_that_is_nonsense_is_not_kept(
    talk: Talk, models: Models, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    assert models.chosen is not None
    real, spoiled = models.chosen.embed, nonsense()[kind]
    monkeypatch.setattr(models.chosen, "embed", lambda texts: [spoiled(one) for one in real(texts)])
    assert embed_batch("").failed == "BadAnswer"
    assert labels() == {"": 21}
    monkeypatch.setattr(models.chosen, "embed", lambda texts: real(texts)[1:])
    assert embed_batch("").failed == "BadAnswer"


def test_one_text_that_is_refused_does_not_keep_the_others(
    talk: Talk, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert models.chosen is not None
    real = models.chosen.embed

    def embed(texts: list[str]) -> list[Embedded]:
        if any("number 3 " in text for text in texts):
            raise ModelRefused("this text")
        return real(texts)

    monkeypatch.setattr(models.chosen, "embed", embed)
    assert go_on()[-1].is_over
    assert labels() == {"": 1, f"{OLD}:64": 20}
    monkeypatch.setattr(models.chosen, "embed", real)
    assert sum(batch.done for batch in go_on()) == 1


def test_a_model_that_refuses_everything_is_a_failure(talk: Talk, models: Models) -> None:
    assert models.chosen is not None
    models.chosen.down = ModelRefused("the key is wrong")
    assert embed_batch("").failed == "ModelRefused"


def test_a_round_that_is_killed_goes_on_where_it_was(talk: Talk, models: Models) -> None:
    first = go_on(batches=1)[-1]
    assert go_on(first.cursor)[-1].is_over
    assert models.chosen is not None and len(models.chosen.embedded) == 21


@pytest.mark.parametrize(
    "cursor", ["nonsense", "{}", "[]", '["missing", "x", 0, 0, ""]', '["other one", "00", 0, 0, ""]', "null"]
)
def test_a_cursor_that_cannot_be_read_begins_anew(talk: Talk, cursor: str) -> None:
    assert go_on(cursor)[-1].is_over
    assert labels() == {f"{OLD}:64": 21}


def test_an_item_edited_while_its_text_is_with_the_model_keeps_nothing_of_it(talk: Talk, models: Models) -> None:
    item_id = next(unit_id for unit_id, text in talk.texts.items() if text == "Tom plays the violin")
    assert models.chosen is not None
    real = models.chosen.embed

    def embed(texts: list[str]) -> list[Embedded]:
        if any("plays the violin" in text for text in texts):
            with transaction.atomic():  # a transaction number of its own, as that of another connection
                talk.revise(Item.objects.get(id=item_id), "Tom plays the cello", 2)
        return real(texts)

    models.chosen.embed = embed  # type: ignore[method-assign,assignment]
    go_on()
    assert labels() == {"": 1, f"{OLD}:64": 20}
    go_on()
    assert "Tom plays the cello" in models.chosen.embedded
    assert labels() == {f"{OLD}:64": 21}


def test_only_what_may_be_recalled_is_embedded(talk: Talk) -> None:
    ids = list(talk.texts)
    units.set_in_recall(ids[:5], False)
    Unit.objects.filter(id=ids[5]).update(expires_at=clock.now() - timedelta(seconds=1))
    go_on()
    assert labels() == {"": 6, f"{OLD}:64": 15}
    units.set_in_recall(ids[:5], True)
    go_on()
    assert labels() == {"": 1, f"{OLD}:64": 20}


def test_an_erased_subject_is_passed_by(talk: Talk, tenant: Tenant) -> None:
    other = Talk(subjects.resolve(external_id="eve"))
    other.session(("Eve", "nothing to see"))
    sql.execute("UPDATE memory_ownerkey SET wrapped = '', destroyed_at = now() WHERE owner_id = %s", [other.subject.id])
    assert go_on()[-1].is_over
    assert labels() == {"": 1, f"{OLD}:64": 21}


def test_a_batch_is_bounded_in_characters(scope: None, subject: Subject, models: Models) -> None:
    talk = Talk(subject)
    talk.session(*[("", "long words " * 4_000) for _ in range(5)])
    assert [batch.done for batch in go_on() if batch.done] == [2, 2, 1]


def test_tokens_of_a_model_that_gives_none_any_more_go(talk: Talk, models: Models) -> None:
    go_on()
    models.known.pop(OLD)
    models.choose(NEW, tokens=False)
    go_on()
    assert labels() == {f"{NEW}:64": 21} and UnitTokens.objects.count() == 0
    recall = search(talk.subject.id, "violin")
    assert (recall.rung, recall.degraded_because) == ("sentence", "the model gives no tokens")


def test_while_the_former_model_answers_its_vectors_serve_until_all_are_replaced_at_once(
    talk: Talk, models: Models
) -> None:
    go_on()
    before = [(hit.id, hit.score) for hit in search(talk.subject.id, "What number has the violin?").hits]
    models.choose(NEW, dimensions=128)
    cursor, staged = "", 0
    for _ in range(100):
        batch = embed_batch(cursor, batch_units=8)
        assert not batch.failed
        if labels() == {f"{OLD}:64": 21}:
            recall = search(talk.subject.id, "What number has the violin?")
            assert [(hit.id, hit.score) for hit in recall.hits] == before and recall.rung == "bits"
            staged = max(staged, UnitStaged.objects.count())
        cursor = batch.cursor
        if batch.is_over:
            break
    assert staged == 21
    assert labels() == {f"{NEW}:128": 21} and UnitStaged.objects.count() == 0
    recall = search(talk.subject.id, "What number has the violin?")
    assert (recall.rung, recall.degraded_because, recall.embedded) == ("bits", "", 21)


def test_half_swapped_each_unit_is_asked_for_in_its_own_model(
    talk: Talk, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on()
    new = models.choose(NEW, dimensions=128)
    monkeypatch.setattr(making, "SWAP_UNITS", 5)
    cursor = ""
    while f"{NEW}:128" not in labels():
        cursor = embed_batch(cursor).cursor
    assert labels() == {f"{OLD}:64": 16, f"{NEW}:128": 5}
    recall = search(talk.subject.id, "What number has the violin?", k=50, explain=True)
    assert (recall.embedded, recall.rung, recall.degraded_because) == (21, "bits", "")
    assert all("late" in hit.raw for hit in recall.hits) and len(recall.hits) == 21
    assert new.asked and models.known[OLD].asked
    models.known[OLD].down = ModelUnavailable("gone in the middle")
    questions.forget_failures()
    recall = search(talk.subject.id, "What number has the violin?", k=50)
    assert recall.embedded == 5 and "words@1 could not be asked" in recall.degraded_because
    assert go_on(cursor)[-1].is_over
    assert labels() == {f"{NEW}:128": 21}


def test_no_transaction_is_open_while_either_model_is_asked(
    committed_db: None, tenant: Tenant, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tenant_scope(tenant.id):
        talk = Talk(subjects.resolve(external_id="ada"))
        talk.session(*[("Tom", f"the violin number {n} stands in room {n * 7}") for n in range(12)])
        go_on()
        models.choose(NEW, dimensions=128)
        monkeypatch.setattr(making, "SWAP_UNITS", 5)
        cursor = ""
        while f"{NEW}:128" not in labels():
            cursor = embed_batch(cursor).cursor
    open_then: list[tuple[str, int]] = []
    with psycopg.connect(superuser_url("agentstate"), autocommit=True) as superuser:

        def watched(model: WordEmbedder) -> Callable[[str], Question]:
            real = model.ask

            def ask(question: str) -> Question:
                found = superuser.execute(OPEN_TRANSACTIONS).fetchone()
                assert found is not None
                open_then.append((model.model_id, found[0]))
                return real(question)

            return ask

        for model in models.known.values():
            monkeypatch.setattr(model, "ask", watched(model))
        asked = questions.asked("What number has the violin?", tenant_id=tenant.id)
        assert open_then == [(NEW, 0), (OLD, 0)]
        with tenant_scope(tenant.id):
            recall = search(talk.subject.id, asked, k=50)
        assert (recall.rung, recall.embedded, recall.degraded_because) == ("bits", 12, "")
        # A search that meets vectors of a model nobody has asked says so, and asks nobody.
        with tenant_scope(tenant.id):
            recall = search(talk.subject.id, replace(asked, models=asked.models[:1]), k=50)
        assert (recall.rung, recall.embedded) == ("bits", 5)
        assert recall.degraded_because == "7 of 12 units have no vector of this model yet"
        assert len(open_then) == 2


def test_a_new_model_that_finds_less_does_not_take_effect(
    talk: Talk, models: Models, monkeypatch: pytest.MonkeyPatch, later: Callable[[float], None]
) -> None:
    go_on()
    new = models.choose(NEW)
    real, calls = new.embed, [0]

    def noise(texts: list[str]) -> list[Embedded]:
        """Every answer another one, whatever is asked."""
        calls[0] += 1
        return real([f"{calls[0]} {n}" for n in range(len(texts))])

    new.embed = noise  # type: ignore[method-assign,assignment]
    failed = go_on()[-1]
    assert failed.failed.startswith(f"recall check: {NEW} finds ") and "100%" in failed.failed
    assert labels() == {f"{OLD}:64": 21} and UnitStaged.objects.count() == 21
    assert search(talk.subject.id, "violin").rung == "bits"
    new.embed = real  # type: ignore[method-assign]
    assert go_on(failed.cursor)[-1].failed  # it waits
    later(700)
    UnitStaged.objects.all().delete()  # a person gives the noise up
    assert go_on()[-1].is_over
    assert labels() == {f"{NEW}:64": 21}


def test_going_back_to_the_former_model_drops_what_was_made_for_the_other(talk: Talk, models: Models) -> None:
    go_on()
    models.choose(NEW)
    go_on(batches=4)
    assert UnitStaged.objects.count() > 0
    models.choose(OLD)
    assert go_on()[-1].is_over
    assert UnitStaged.objects.count() == 0 and labels() == {f"{OLD}:64": 21}


def test_when_the_former_model_is_gone_its_vectors_are_replaced_as_they_are_met(talk: Talk, models: Models) -> None:
    go_on()
    models.known.pop(OLD)
    models.choose(NEW, dimensions=32)
    go_on(batches=2)
    assert labels().keys() == {f"{OLD}:64", f"{NEW}:32"}
    recall = search(talk.subject.id, "What number has the violin?", k=50)
    assert recall.rung == "bits" and "have no vector of this model yet" in recall.degraded_because
    go_on()
    assert labels() == {f"{NEW}:32": 21}


def test_an_item_that_is_edited_during_a_move_is_embedded_anew(talk: Talk, models: Models) -> None:
    go_on()
    models.choose(NEW)
    batches = go_on(batches=6)
    item_id = next(unit_id for unit_id, text in talk.texts.items() if text == "Tom plays the violin")
    talk.revise(Item.objects.get(id=item_id), "Tom plays the cello", 2)
    assert not UnitStaged.objects.filter(unit_id=item_id).exists()
    go_on(batches[-1].cursor)
    go_on()
    assert labels() == {f"{NEW}:64": 21}
    assert "Tom plays the cello" in models.known[NEW].embedded


def test_under_upkeep_the_wait_is_kept_in_the_row(talk: Talk, models: Models) -> None:
    assert models.chosen is not None

    def work(cursor: str) -> upkeep.Progressed:
        return upkeep.Progressed(*astuple(embed_batch(cursor)))

    models.chosen.down = ModelUnavailable("away")
    upkeep.step("embed", work, target=making.target())
    (row,) = upkeep.standing()
    assert (row.state, row.error, row.target) == ("failed", "ModelUnavailable", OLD)
    models.chosen.down = None
    upkeep.step("embed", work, target=making.target())
    assert (upkeep.standing()[0].state, labels()) == ("failed", {"": 21})  # it still waits
    sql.execute("UPDATE memory_upkeep SET cursor = ''")  # "now", says a person
    progressed = upkeep.step("embed", work, target=making.target())
    assert progressed is not None and progressed.done == 21
    assert upkeep.standing()[0].state == "running"


def test_two_rounds_at_once_write_each_vector_once(committed_db: None, tenant: Tenant) -> None:
    """The second waits for the rows of the first, finds them changed, and keeps nothing."""
    with tenant_scope(tenant.id):
        talk = Talk(subjects.resolve(external_id="ada"))
        talk.session(("Tom", "the violin"), ("Tom", "the cello"))
    with tenant_scope(tenant.id):
        read = wanted.batch(wanted.MISSING, model="", after=wanted.FIRST, limit=10)
    with psycopg.connect(superuser_url("agentstate")) as other:
        versions: dict[object, object] = dict(other.execute("SELECT id, xmin::text FROM memory_unit").fetchall())
        assert {text.unit_id: text.version for text in read.texts} == versions
    with tenant_scope(tenant.id):
        assert embed_batch("").done == 2
    with tenant_scope(tenant.id):
        for how, name in ((vectors.KEEP, OLD), (vectors.STAGE, NEW)):
            model = WordEmbedder(name)
            assert vectors.write(how, model, vectors.made(model, read.texts)) == 0
        assert labels() == {f"{OLD}:64": 2} and UnitTokens.objects.count() == 2


def test_a_cursor_fits_its_column_whatever_failed() -> None:
    place = making.Place("missing", wanted.FIRST, 10**6, 2e9, "x" * 5_000)
    assert len(place.written()) <= 200
    assert making.Place.read(place.written()).failures == 10**6
    assert json.loads(place.written())[0] == "missing"


@pytest.fixture
def talks(committed_db: None, tenant: Tenant, redis: object) -> Talk:
    """Twenty units, committed."""
    with tenant_scope(tenant.id):
        made = Talk(subjects.resolve(external_id="ada"))
        made.session(*[("Tom", f"the violin number {n}") for n in range(20)])
    return made


OPEN = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'app' AND xact_start IS NOT NULL"


@pytest.mark.parametrize("part", ["missing", "stage and check"])
def test_while_a_model_is_asked_no_transaction_and_no_connection_is_held(
    talks: Talk, tenant: Tenant, models: Models, part: str
) -> None:
    if part != "missing":
        tasks.embed()
        models.choose(NEW)
    seen: list[tuple[object, ...]] = []
    assert models.chosen is not None
    for model in models.known.values():
        model.embed = partial(_watched, model.embed, seen)  # type: ignore[method-assign]
    tasks.embed()
    assert seen and set(seen) == {(0, 0, "running")}
    with tenant_scope(tenant.id):
        assert labels() == {f"{models.chosen.model_id}:64": 20}
        assert upkeep.standing()[0].state == "idle"


def _watched(
    embed: Callable[[list[str]], list[Embedded]], seen: list[tuple[object, ...]], texts: list[str]
) -> list[Embedded]:
    with psycopg.connect(superuser_url("agentstate")) as other:
        states = other.execute("SELECT state FROM memory_upkeep WHERE name = 'embed'").fetchall()
        opened = other.execute(OPEN).fetchone()
        # Other threads of this process may hold connections of their own: this thread's is what matters.
        seen.append((opened and opened[0], int(connection.connection is not None), *(state for (state,) in states)))
    return embed(texts)


def test_a_second_round_does_not_ask_the_model_for_what_the_first_is_at(
    talks: Talk, tenant: Tenant, models: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert models.chosen is not None
    real, depth = models.chosen.embed, [0]

    def embed(texts: list[str]) -> list[Embedded]:
        depth[0] += 1
        if depth[0] == 1:
            tasks.embed()
        return real(texts)

    models.chosen.embed = embed  # type: ignore[method-assign,assignment]
    tasks.embed()
    assert (depth[0], len(models.chosen.embedded)) == (1, 20)
    with tenant_scope(tenant.id):
        Unit.objects.update(model="", vector=None)
    depth[0] = 0
    monkeypatch.setattr(turns, "_take", lambda *_, **__: True)  # as without Redis: asked twice, written once
    tasks.embed()
    assert depth[0] == 2
    with tenant_scope(tenant.id):
        assert labels() == {f"{OLD}:64": 20} and UnitTokens.objects.count() == 20


def test_a_round_killed_while_its_vectors_were_on_their_way_goes_on(
    talks: Talk, tenant: Tenant, models: Models, redis: Redis
) -> None:
    with failpoints.armed("memory.upkeep.asked=raise"), pytest.raises(failpoints.FailpointReached):
        tasks.embed()
    with tenant_scope(tenant.id):
        assert labels() == {"": 20}
    tasks.embed()
    with tenant_scope(tenant.id):
        assert labels() == {f"{OLD}:64": 20}


def test_a_text_edited_or_erased_while_it_is_with_the_model_keeps_nothing_of_it(
    talks: Talk, tenant: Tenant, models: Models
) -> None:
    edited, erased, *_ = talks.texts
    assert models.chosen is not None
    real = models.chosen.embed

    def embed(texts: list[str]) -> list[Embedded]:
        if len(texts) == 20:
            with tenant_scope(tenant.id):
                Unit.objects.filter(id=edited).update(namespace="attic")
                Unit.objects.filter(id=erased).delete()
        return real(texts)

    models.chosen.embed = embed  # type: ignore[method-assign,assignment]
    write = making.ready(tenant.id, "")
    with tenant_scope(tenant.id):
        assert write().done == 18
        assert labels() == {"": 1, f"{OLD}:64": 18}
        assert not UnitTokens.objects.filter(unit_id__in=[edited, erased]).exists()
