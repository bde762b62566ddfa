"""Recall of one subject: equal to recall by loops on every rung, filtered, explained, and calm about any question."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import numpy as np
import pytest

from agentstate.core.clock import now
from agentstate.core.errors import Invalid, NotFound, TooLarge
from agentstate.db import sql
from agentstate.llm import embedding
from agentstate.llm.endpoint import ModelUnavailable
from agentstate.tenants.models import Tenant, TenantSetting
from agentstate.tenants.scope import tenant_scope
from memory.models import Item, Subject, Unit, UnitTokens
from memory.recall import cues, questions, searching, units, vectors, wanted, words
from memory.recall.embedding import embed_batch
from memory.recall.searching import Recall, search
from tests.memory.recall_world import EPOCH, Slow, Talk, WordEmbedder, slow_scores

pytestmark = pytest.mark.django_db
WORDS = (
    *("apple", "river", "stone", "cloud", "garden", "bicycle", "market", "violin", "winter"),
    *("letter", "bridge", "candle", "forest", "window", "dog", "puppy", "car"),
)


@pytest.fixture(autouse=True)
def embedder(monkeypatch: pytest.MonkeyPatch) -> Iterator[WordEmbedder]:
    made = WordEmbedder()
    monkeypatch.setattr(embedding, "embedder", lambda: made)
    questions.forget_failures()
    yield made
    questions.forget_failures()


@pytest.fixture
def talk(scope: None, subject: Subject) -> Talk:
    return Talk(subject)


def embed_all() -> int:
    """Every unit that lacks a vector gets one."""
    cursor, done = "", 0
    for _ in range(200):
        batch = embed_batch(cursor)
        assert not batch.failed
        cursor, done = batch.cursor, done + batch.done
        if batch.is_over:
            return done
    raise AssertionError("the round does not end")


def found_texts(talk: Talk, recall: Recall) -> list[str]:
    return [talk.texts[hit.id] for hit in recall.hits]


def slowly(talk: Talk, question: str, embedder: WordEmbedder, *, author: int | None = None) -> dict[UUID, float]:
    """The same by the oracle, from the rows as they stand."""
    months = cues.named_months(question)
    rows = Unit.objects.filter(subject_id=talk.subject.id, in_recall=True)
    slow = []
    for row in rows:
        (lexemes,) = words.lexemes_of([words.prepared(talk.texts[row.id])], "english")
        terms = {lexeme: len(positions) for lexeme, positions in lexemes}
        vector = tokens = None
        if row.model:
            made = embedder.embed([talk.texts[row.id]])[0]
            vector = [float(value) for value in made.vector]
            if made.tokens:
                bits = np.unpackbits(np.frombuffer(made.tokens.bits, np.uint8).reshape(made.tokens.count, -1), axis=1)
                ids = np.frombuffer(made.tokens.ids, "<u2").tolist()
                tokens = (ids, [[1 if bit else -1 for bit in token] for token in bits.tolist()])
        at = row.sent_at
        slow.append(
            Slow(
                row.id, row.session_id or row.id, row.seq, row.author_no,
                any(m == at.month and y in (None, at.year) for y, m in months), terms, vector, tokens,
            )
        )  # fmt: skip
    asked = words.asked(question, words.wording()).readable
    return slow_scores(slow, asked, author=author, question=embedder.ask(question))


def lexemes_of(text: str) -> set[str]:
    return {lexeme for lexeme, _ in words.lexemes_of([words.prepared(text)], "english")[0]}


def random_talk(talk: Talk, seed: int) -> None:
    draw = random.Random(seed)
    for number in range(6):
        said = [
            (draw.choice(["Maria", "Tom", "Ada Byron"]), " ".join(draw.choices(WORDS, k=draw.randint(1, 12))))
            for _ in range(draw.randint(1, 9))
        ]
        talk.session(*said, start=EPOCH + timedelta(days=31 * number))
    for _ in range(4):
        talk.item(" ".join(draw.choices(WORDS, k=5)))


@pytest.mark.parametrize("rung", ["words", "bits", "sentence", "mixed"])
@pytest.mark.parametrize("seed", range(4))
def test_every_score_is_that_of_recall_by_loops(talk: Talk, embedder: WordEmbedder, rung: str, seed: int) -> None:
    random_talk(talk, seed)
    embedder.has_tokens = rung != "sentence"
    if rung == "mixed":  # a third has no vector, some of the rest no tokens
        embed_all()
        lost = list(Unit.objects.order_by("id").values_list("id", flat=True))
        Unit.objects.filter(id__in=lost[::3]).update(model="", vector=None)
        UnitTokens.objects.filter(unit_id__in=lost[::4]).delete()
    elif rung != "words":
        embed_all()
    for question in (
        "Where is the dog in the garden?",
        "What did Tom say about the automobile?",
        "winter in March",
        "violin",
    ):
        recall = search(talk.subject.id, question, k=100)
        kept = embedder if rung != "mixed" else _Forgetful(embedder, UnitTokens, talk)
        author = talk.authors.get("Tom") if "Tom" in question else None
        slow = slowly(talk, question, kept, author=author)
        lexemes = set(words.asked(question, words.wording()).readable)
        matching = {unit_id for unit_id, text in talk.texts.items() if lexemes & lexemes_of(text)}
        expected = sorted(
            (unit_id for unit_id, score in slow.items() if score > 0 or unit_id in matching),
            key=lambda unit_id: (-round(slow[unit_id], 9), Unit.objects.get(id=unit_id).seq, unit_id.bytes),
        )
        assert recall.rung == ("bits" if rung == "mixed" else rung)
        assert {hit.id: pytest.approx(hit.score, abs=1e-4) for hit in recall.hits} == {i: slow[i] for i in expected}
        scores = [hit.score for hit in recall.hits]
        assert scores == sorted(scores, reverse=True)


class _Forgetful(WordEmbedder):
    """Gives the oracle tokens only for texts whose unit still has them."""

    def __init__(self, inner: WordEmbedder, tokens: type[UnitTokens], talk: Talk) -> None:
        super().__init__(inner.model_id, dimensions=inner.dimensions)
        held = set(tokens.objects.filter(unit__model__gt="").values_list("unit_id", flat=True))
        self.held = {text for unit_id, text in talk.texts.items() if unit_id in held}

    def embed(self, texts: Any) -> Any:
        return [
            one if text in self.held else embedding.Embedded(one.vector, None)
            for text, one in zip(texts, super().embed(texts), strict=True)
        ]


def test_the_parts_of_a_score_add_up_to_it(talk: Talk) -> None:
    random_talk(talk, 7)
    embed_all()
    recall = search(talk.subject.id, "What did Maria say about the puppy in March?", k=50, explain=True)
    assert recall.hits
    for hit in recall.hits:
        assert sum(hit.scores.values()) == pytest.approx(hit.score)
        assert 0 not in hit.scores.values()
    assert {"bm25", "late", "neighbours", "session", "author", "month"} <= {
        p for hit in recall.hits for p in hit.scores
    }
    best = recall.hits[0]
    assert best.raw["late"] and "session_bm25" in best.raw
    assert {word for hit in recall.hits for word in hit.matched} <= {"maria", "puppi", "march", "say"}
    assert "maria" in best.matched


def test_a_word_of_the_same_family_is_found_by_bits_and_not_by_words(talk: Talk, embedder: WordEmbedder) -> None:
    talk.session(
        ("Tom", "my hound sleeps all day"), ("Tom", "the weather stays dull"), ("Tom", "nothing else happened")
    )
    assert found_texts(talk, search(talk.subject.id, "puppy")) == []
    embed_all()
    assert found_texts(talk, search(talk.subject.id, "puppy"))[0] == "Tom: my hound sleeps all day"


def test_a_unit_without_a_vector_is_found_by_its_words_beside_others_that_have_one(talk: Talk) -> None:
    talk.session(("Tom", "the violin is in the attic"), ("Tom", "lunch was fine"))
    embed_all()
    talk.session(("Tom", "the bicycle is in the cellar"))
    recall = search(talk.subject.id, "Where is the bicycle?")
    assert found_texts(talk, recall)[0] == "Tom: the bicycle is in the cellar"
    assert recall.rung == "bits"
    assert recall.degraded_because == "1 of 3 units have no vector of this model yet"
    assert (recall.units, recall.embedded) == (3, 2)


def test_neighbours_the_session_the_author_and_the_month_each_lift_what_they_should(talk: Talk) -> None:
    talk.session(("Tom", "shall we meet"), ("Ada", "at the bridge then"), ("Tom", "fine by me"))
    talk.session(("Ada", "the forest was loud"), ("Tom", "the forest was quiet"), start=EPOCH + timedelta(days=60))
    hits = {talk.texts[h.id]: h.scores for h in search(talk.subject.id, "bridge").hits}
    assert hits["Tom: shall we meet"].keys() == {"neighbours", "session"}
    assert (
        found_texts(talk, search(talk.subject.id, "What did Ada say about the forest?"))[0]
        == "Ada: the forest was loud"
    )
    by_month = search(talk.subject.id, "What happened in March?").hits
    assert {hit.sent_at.month for hit in by_month} == {3}
    assert all(hit.scores == {"month": pytest.approx(0.3)} for hit in by_month)


def test_a_model_that_is_down_lowers_the_rung_and_is_said(talk: Talk, embedder: WordEmbedder) -> None:
    talk.session(("Tom", "the violin is in the attic"))
    embed_all()
    embedder.down = ModelUnavailable("a canary of the question")
    recall = search(talk.subject.id, "Where is the violin?")
    assert (recall.rung, len(recall.hits)) == ("words", 1)
    assert recall.degraded_because == "the embedding model words@1 could not be asked (ModelUnavailable)"
    embedder.down = None
    assert search(talk.subject.id, "Where is the violin?").rung == "words"  # it rests a moment
    questions.forget_failures()
    assert search(talk.subject.id, "Where is the violin?").rung == "bits"


@pytest.mark.parametrize(
    "answer",
    [
        lambda: embedding.Question(np.full(64, np.nan, dtype=np.float32)),
        lambda: embedding.Question(np.zeros(64, dtype=np.float32)),
        lambda: embedding.Question(np.zeros(0, dtype=np.float32)),
        lambda: embedding.Question(np.zeros((2, 32), dtype=np.float32)),
    ],
)
def test_an_answer_that_is_no_vector_lowers_the_rung(
    talk: Talk, embedder: WordEmbedder, monkeypatch: pytest.MonkeyPatch, answer: Callable[[], embedding.Question]
) -> None:
    talk.session(("Tom", "the violin is in the attic"))
    embed_all()
    monkeypatch.setattr(embedder, "ask", lambda text: answer())
    recall = search(talk.subject.id, "violin")
    assert (recall.rung, len(recall.hits)) == ("words", 1)
    assert "could not be asked (ValueError)" in recall.degraded_because


def test_a_question_of_another_length_meets_no_vector(talk: Talk, monkeypatch: pytest.MonkeyPatch) -> None:
    talk.session(("Tom", "the violin is in the attic"))
    embed_all()
    monkeypatch.setattr(embedding, "embedder", lambda: WordEmbedder(dimensions=32))
    recall = search(talk.subject.id, "violin")
    assert (recall.rung, len(recall.hits), recall.embedded) == ("words", 1, 0)
    assert recall.degraded_because == "1 of 1 units have no vector of this model yet"


def test_tokens_that_were_changed_are_not_believed(talk: Talk) -> None:
    talk.session(("Tom", "the violin is in the attic"), ("Tom", "lunch was fine"))
    embed_all()
    UnitTokens.objects.update(body=b"\x01" + bytes(60))
    recall = search(talk.subject.id, "violin")
    assert (recall.rung, found_texts(talk, recall)[0]) == ("sentence", "Tom: the violin is in the attic")


@pytest.mark.parametrize("mode", ["plain", "blind"])
def test_no_question_is_an_operator(talk: Talk, mode: str) -> None:
    TenantSetting.objects.create(key="memory.tenant", value={"fulltext": mode})
    talk.session(("Tom", "a & b | c's \\ tail:* <-> !done (x) 'quoted' "))
    for question in (
        "' | '",
        "a & | !",
        "tail:*",
        "\\",
        "'); DROP TABLE memory_unit; --",
        "a <-> b",
        ":*",
        "c's",
        "%s %(k)s",
    ):
        search(talk.subject.id, question)
    assert len(search(talk.subject.id, "tail").hits) == 1
    assert search(talk.subject.id, "& | ! <-> ( ) :*").hits == []


@pytest.mark.parametrize("question", ["", "  \n", "a\0b", "half \ud800 pair"])
def test_a_question_that_is_none_is_refused_by_name(talk: Talk, question: str) -> None:
    with pytest.raises(Invalid) as refused:
        search(talk.subject.id, question)
    assert refused.value.field == "question"


def test_a_huge_question_is_asked_by_its_beginning_and_a_monstrous_one_refused(
    talk: Talk, embedder: WordEmbedder
) -> None:
    talk.session(("Tom", "the violin is in the attic"))
    recall = search(talk.subject.id, "violin " + "and so on and on " * 10_000)
    assert recall.is_shortened and len(recall.hits) == 1
    assert len(embedder.asked[0]) == 4_000
    with pytest.raises(TooLarge):
        search(talk.subject.id, "x" * 2_000_000)


@pytest.mark.parametrize("k", [0, -1, 101, 10**9])
def test_k_has_bounds(talk: Talk, k: int) -> None:
    with pytest.raises(Invalid, match="1 to 100"):
        search(talk.subject.id, "violin", k=k)


def test_kinds_are_known(talk: Talk) -> None:
    for kinds in ((), ("letter",)):
        with pytest.raises(Invalid):
            search(talk.subject.id, "violin", kinds=kinds)


def test_a_subject_without_units_answers_with_nothing(talk: Talk) -> None:
    recall = search(talk.subject.id, "violin")
    assert (recall.hits, recall.rung, recall.units, recall.degraded_because) == ([], "words", 0, "")


def test_a_subject_of_another_tenant_is_a_missing_one(tenant: Tenant, other_tenant: Tenant, subject: Subject) -> None:
    with tenant_scope(tenant.id):
        Talk(subject).session(("Tom", "the violin is in the attic"))
    for subject_id in (subject.id, uuid4()):
        with tenant_scope(other_tenant.id), pytest.raises(NotFound, match="There is no such subject"):
            search(subject_id, "violin")


def test_a_subject_that_is_being_erased_is_not_recalled(talk: Talk) -> None:
    talk.session(("Tom", "the violin is in the attic"))
    Subject.objects.update(status="erasing")
    assert search(talk.subject.id, "violin").hits == []


def test_what_left_recall_expired_or_is_not_valid_is_never_returned(talk: Talk) -> None:
    (said,) = talk.session(("Tom", "violin one"))
    gone = talk.item("violin two", expires_at=now() - timedelta(seconds=1))
    over = talk.item("violin three", valid_to=EPOCH + timedelta(days=1))
    future = talk.item("violin four", valid_from=now() + timedelta(days=1))
    item = talk.item("violin five")
    forgotten = talk.item("violin six", status="forgotten")
    assert {hit.id for hit in search(talk.subject.id, "violin").hits} == {said, item}
    assert units.set_in_recall([said], False) == 1
    assert {hit.id for hit in search(talk.subject.id, "violin").hits} == {item}
    assert units.set_in_recall([said], True) == 1
    assert units.drop([item, said]) == 2
    assert search(talk.subject.id, "violin").hits == []
    then = search(talk.subject.id, "violin", at=EPOCH + timedelta(hours=1))
    assert {hit.id for hit in then.hits} == {over}
    assert not {gone, future, forgotten} & {hit.id for hit in then.hits}


def test_filters_choose_what_is_returned_and_not_what_is_compared(talk: Talk) -> None:
    first = talk.session(("Tom", "violin one"), ("Ada", "violin two"), ("Tom", "a word more"))
    second = talk.session(("Tom", "violin three"), start=EPOCH + timedelta(days=10))
    liked = talk.item("violin four", namespace="likes/music")
    other = talk.item("violin five", namespace="likeslike")
    whole = {hit.id: hit.score for hit in search(talk.subject.id, "violin").hits}

    def found(**filters: Any) -> set[UUID]:
        hits = search(talk.subject.id, "violin", **filters).hits
        assert all(hit.score == pytest.approx(whole[hit.id]) for hit in hits)
        return {hit.id for hit in hits}

    assert found(session_id=talk.sessions[0].id) == set(first)
    assert found(kinds=("item",)) == {liked, other}
    assert found(authors=["ada"]) == {first[1]}
    assert found(authors=["Ada", "TOM"], kinds=("message",)) == {*first, *second}
    assert found(authors=["Nobody"]) == set()
    assert found(namespace="likes") == {liked}
    assert found(namespace="likes/%") == set()
    assert found(after=EPOCH + timedelta(days=5)) == set(second)
    assert found(before=EPOCH + timedelta(minutes=2), kinds=("message",)) == {first[0]}
    assert found(at=EPOCH + timedelta(minutes=1)) == {first[0], liked, other}


def test_nothing_is_cut_before_all_signals_have_met(talk: Talk) -> None:
    """A hundred equal texts, and the one that the author's name lifts was written last."""
    for _ in range(12):
        talk.session(*[("Tom", "the violin again")] * 10)
    (last,) = talk.session(("Ada", "the violin again"))
    assert search(talk.subject.id, "What did Ada say of the violin?", k=1).hits[0].id == last


def test_ties_are_broken_by_the_place_in_the_session_and_then_the_id(talk: Talk) -> None:
    ids = [talk.session(("Tom", "violin"))[0] for _ in range(5)]
    expected = sorted(ids, key=lambda unit_id: unit_id.bytes)
    for _ in range(3):
        assert [hit.id for hit in search(talk.subject.id, "violin").hits] == expected


def test_a_search_is_a_handful_of_statements_however_many_units(talk: Talk) -> None:
    talk.session(*[("Tom", f"the violin number {n}") for n in range(200)])
    embed_all()
    with sql.watched() as statements:
        search(talk.subject.id, "violin", k=50)
    assert len(statements) == 2, statements  # subject, policy, words and units in one round trip; tokens
    assert sum("memory_unit u" in statement for statement in statements) == 1
    assert "LIMIT" not in statements[0].partition("FROM memory_unit u")[2]


def test_the_model_may_be_asked_before_the_transaction(
    tenant: Tenant, subject: Subject, embedder: WordEmbedder
) -> None:
    with tenant_scope(tenant.id):
        talk = Talk(subject)
        talk.session(("Tom", "the violin is in the attic"))
        embed_all()
    asked = questions.asked("Where is the violin?", tenant_id=tenant.id)
    embedder.down = AssertionError("asked inside")
    with tenant_scope(tenant.id):
        assert search(subject.id, asked).rung == "bits"


@pytest.mark.parametrize(
    ("question", "months"),
    [
        ("What happened in May?", [(None, 5)]),
        ("May I ask who may come, and may we march?", []),
        ("the party of March 2024", [(2024, 3)]),
        ("in march or April 2023", [(2023, 3), (2023, 4)]),
        ("12 events on Sept. 3rd, 2022", [(2022, 9)]),
        ("since 2021-11", [(2021, 11)]),
        ("December 2020 and January 2021", [(2020, 12), (2021, 1)]),
        ("what did she decide", []),
        ("between June and May, or Sun and Dec", [(None, 6), (None, 5), (None, 12)]),
        ("the marching band of augustus", []),
        ("in augustus", [(None, 8)]),
        ("Was war im März?", [(None, 3)]),
        ("Was haben wir Anfang Dezember 2025 vereinbart?", [(2025, 12)]),
        ("am 3. Jänner", [(None, 1)]),
        ("Mai ist ein schöner Name, sagte Mai", []),
        ("qu'a-t-elle dit en mars ?", [(None, 3)]),
        ("Mars est une planète, et sept amis y vont", []),
        ("le 14 juillet 2024 au matin", [(2024, 7)]),
        ("au mois d'août, fin février", [(None, 8), (None, 2)]),
        ("¿qué pasó en marzo?", [(None, 3)]),
        ("el 5 de mayo de 2026", [(2026, 5)]),
        ("cosa è successo a maggio o in ottobre 2023", [(2023, 5), (2023, 10)]),
        ("o que aconteceu em março", [(None, 3)]),
        ("eu marco a reunião", []),
        ("wat zei ze in mei en sinds maart 2024", [(2024, 5), (2024, 3)]),
        ("mei is a girl", []),
        ("03/2026 or 3.2025, and 14.2.2024", [(2026, 3), (2025, 3), (2024, 2)]),
        ("on 03/04/2026 at 12/2x, version 1.2026.3", []),
        ("会议在 2026-03", [(2026, 3)]),
        ("встреча in March, 三月", [(None, 3)]),
        ("I set it out: gen, giu and out of set", []),
    ],
)  # fmt: skip
def test_months_are_named_and_verbs_are_not(question: str, months: list[tuple[int | None, int]]) -> None:
    assert sorted(cues.named_months(question), key=str) == sorted(months, key=str)


@pytest.mark.parametrize(
    ("question", "number"),
    [
        ("What did Maria say?", 1),
        ("what did maria lopez say", 1),
        ("José's plan", 2),
        ("did Maria answer Jose", None),
        ("Marianne?", None),
        ("", None),
        ("李明说了什么", None),
        ("李明 said what", 3),
    ],
)
def test_exactly_one_author_is_named(question: str, number: int | None) -> None:
    assert cues.named_author(question, {1: "Maria Lopez", 2: "José", 3: "李明", 4: "J"}) == number


def test_an_item_keeps_its_vector_when_only_its_facts_change(talk: Talk) -> None:
    item_id = talk.item("the violin is in the attic")
    embed_all()
    item = Item.objects.get(id=item_id)
    item.valid_from = item.known_from = now()
    item.namespace = "attic"
    units.update_item(item)
    unit = Unit.objects.get(id=item_id)
    assert (unit.valid_from, unit.namespace, unit.model) == (item.valid_from, "attic", "words@1:64")
    talk.revise(item, "the cello is in the attic", 2)
    unit = Unit.objects.get(id=item_id)
    assert (unit.model, unit.vector, UnitTokens.objects.count()) == ("", None, 0)
    assert search(talk.subject.id, "violin").hits == []
    assert len(search(talk.subject.id, "cello").hits) == 1


def test_messages_of_a_batch_are_indexed_by_one_statement(talk: Talk) -> None:
    with sql.watched() as statements:
        talk.session(*[("Tom", f"message {n}") for n in range(100)])
    assert sum("INSERT INTO memory_unit" in statement for statement in statements) == 1


def test_our_own_text_that_came_back_is_not_recalled(talk: Talk) -> None:
    talk.session(("Tom", "violin"), origin="memory")
    assert search(talk.subject.id, "violin").hits == []


def test_a_cue_of_very_many_authors_is_left_out_and_the_filter_still_works(
    talk: Talk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(searching, "QUESTION_AUTHORS_MAX", 2)
    talk.session(*[(name, "violin") for name in ("Ada", "Bob", "Cleo")])
    recall = search(talk.subject.id, "What did Ada say about the violin?", authors=["Cleo"])
    assert [("author" in hit.scores, talk.texts[hit.id]) for hit in recall.hits] == [(False, "Cleo: violin")]


def test_vectors_are_written_only_for_rows_that_were_not_changed_since(talk: Talk, embedder: WordEmbedder) -> None:
    item_id = talk.item("the violin is in the attic")
    read = wanted.batch(wanted.MISSING, model="", after=wanted.FIRST, limit=10)
    stale = [wanted.Text(text.unit_id, "1", text.subject_id, text.text) for text in read.texts]
    assert vectors.write(vectors.KEEP, embedder, vectors.made(embedder, stale)) == 0
    assert Unit.objects.get(id=item_id).model == ""
    assert vectors.write(vectors.KEEP, embedder, vectors.made(embedder, read.texts)) == 1
