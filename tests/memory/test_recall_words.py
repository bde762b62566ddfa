"""Words in three modes and many scripts: what is said is found, and a blind table tells no words."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentstate.core.limits import INDEXED_CHARS_MAX, QUESTION_LEXEMES_MAX
from agentstate.db import sql
from agentstate.llm import embedding
from agentstate.tenants.models import Tenant, TenantSetting
from agentstate.tenants.scope import tenant_scope
from memory.models import Subject, Unit
from memory.recall import rewording, rows, units, words
from memory.recall.searching import search
from memory.recall.words import Wording
from memory.services import subjects
from tests.memory.recall_world import Talk

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _no_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(embedding, "embedder", lambda: None)
    yield


@pytest.fixture(params=["plain", "blind"])
def talk(request: pytest.FixtureRequest, scope: None, subject: Subject) -> Talk:
    TenantSetting.objects.create(key="memory.tenant", value={"fulltext": request.param})
    return Talk(subject)


@pytest.mark.parametrize(
    ("said", "question"),
    [
        ("我喜欢吃苹果,每天早上。", "苹果"),  # a word inside a sentence without spaces
        ("我喜欢吃苹果", "你喜欢什么水果? 苹果吗"),
        ("猫が好きです", "猫"),  # one character
        ("東京タワーに行きました", "タワー"),
        ("ラーメンを食べた", "ﾗｰﾒﾝ"),  # half width
        ("나는 서울에서 일합니다", "서울"),  # an ending glued to the word
        ("ฉันชอบกินข้าวผัด", "ข้าวผัด"),
        ("Я живу в «Москве», рядом с парком", "МОСКВЕ"),
        ("السَّلامُ عليكم، يا صديقي", "السلام صديقي"),  # marks that are not written elsewhere
        ("שָׁלוֹם לכולם", "שלום"),
        ("नमस्ते दुनिया।", "दुनिया"),
        ("Mein Straßenplan für Zürich", "zurich"),
        ("José naïve café", "jose cafe"),
        ("José", "Jose\u0301"),  # composed and not
        ("ﬁnal ｔｅｘｔ", "final text"),
        ("the ID is Ａ１２-ｘ", "a12-x"),
        ("iPhone手机壳", "手机 iphone"),
        ("write to anna@example.com about https://example.com/a/b", "anna@example.com"),
        ("😀 party", "party 😀"),
    ],
)
def test_a_text_is_found_in_its_script(talk: Talk, said: str, question: str) -> None:
    talk.session(("", said), ("", "something else altogether"), ("", "noch etwas ganz anderes 完全不同"))
    hits = search(talk.subject.id, question).hits
    assert hits and talk.texts[hits[0].id] == said
    assert hits[0].scores.get("bm25", 0) > 0


def test_what_was_not_said_is_not_found(talk: Talk) -> None:
    talk.session(("", "我喜欢吃苹果"), ("", "Привет мир"), ("", "hello there"))
    for question in ("香蕉", "пока", "goodbye", "ミカン"):
        assert search(talk.subject.id, question).hits == []


def test_endings_are_known_in_english_and_not_in_simple(talk: Talk) -> None:
    talk.session(("", "we were refunding the payments"))
    assert len(search(talk.subject.id, "refunds").hits) == 1
    setting = TenantSetting.objects.get()
    setting.value["language"] = "simple"
    setting.save()
    talk.session(("", "there were refunds for the others"))
    assert len(search(talk.subject.id, "refund").hits) <= 1  # by the unit from before
    assert search(talk.subject.id, "the").hits  # simple has no stop words


def test_a_blind_table_tells_no_words_and_differs_between_tenants(
    tenant: Tenant, other_tenant: Tenant, subject: Subject
) -> None:
    stored = {}
    for owner in (tenant, other_tenant):
        with tenant_scope(owner.id):
            TenantSetting.objects.create(key="memory.tenant", value={"fulltext": "blind"})
            of = subject if owner == tenant else subjects.resolve(external_id="eve")
            Talk(of).session(("Tom", "canary canary 苹果 flies"))
            stored[owner.id] = kept()
            tried = {words.digest(word) for word in ("canari", "canary", "tom", "fli", "苹果", "苹")}
            assert not tried & stored[owner.id].keys(), "whoever tries words finds none"
            assert stored[owner.id][words.digest(words.blind("canari"))] == 2
            assert len(stored[owner.id]) == 6
    first, second = stored.values()
    assert not first.keys() & second.keys()


def test_a_plain_table_keeps_each_lexeme_and_how_often_and_no_text(scope: None, subject: Subject) -> None:
    Talk(subject).session(("Tom", "canary canary 苹果 " + "flies " * 300))
    assert kept() == {words.digest(word): often for word, often in WORDS_OF_TOM.items()}
    assert b"canar" not in bytes(Unit.objects.get().words or b"")


WORDS_OF_TOM = {"tom": 1, "canari": 2, "fli": 255, "苹果": 1, "苹": 1, "果": 1}


def kept() -> dict[int, int]:
    """Of the only unit: digest of a lexeme -> how often it occurs."""
    entries = np.frombuffer(bytes(Unit.objects.get().words or b""), dtype=rows.ENTRY)
    return dict(zip(entries["digest"].tolist(), entries["often"].tolist(), strict=True))


def test_plain_and_blind_give_the_same_scores(scope: None, tenant: Tenant, subject: Subject) -> None:
    said = [("Tom", "we fly to 東京 in May, to see the towers"), ("Ada", "towers again and again"), ("Tom", "no")]
    talk = Talk(subject)
    talk.session(*said)
    plain = [(hit.seq, hit.score, hit.matched) for hit in search(subject.id, "Towers of 東京?", explain=True).hits]
    Unit.objects.all().delete()
    TenantSetting.objects.create(key="memory.tenant", value={"fulltext": "blind"})
    talk.session(*said)
    blind = [(hit.seq, hit.score, hit.matched) for hit in search(subject.id, "Towers of 東京?", explain=True).hits]
    assert plain == blind and len(plain) == 3
    assert {"tower", "東京"} <= set(plain[0][2])


def test_off_stores_no_words_and_says_that_it_finds_none(scope: None, subject: Subject) -> None:
    TenantSetting.objects.create(key="memory.tenant", value={"fulltext": "off"})
    talk = Talk(subject)
    talk.session(("Tom", "canary"))
    unit = Unit.objects.get()
    assert unit.words is None
    recall = search(subject.id, "canary")
    assert recall.hits == []
    assert recall.degraded_because == "no embedding model is configured, and full text is off"


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ".join(f"w{n:x}" for n in range(20_000)),  # every word another
        "".join(chr(0x4E00 + n * 7919 % 20_000) for n in range(70_000)),  # every pair another
        "".join(chr(0x20000 + n * 7919 % 40_000) for n in range(70_000)),  # in four bytes
        "x" * 100_000,
        "a-b" * 25_000,
        "/".join(f"p{n}" for n in range(20_000)),
        "ﷺ" * 5_000,  # one character that is eighteen
        "'\\ :*" * 10_000,
        "same " * 20_000,
    ],
)
def test_any_text_can_be_indexed(talk: Talk, text: str) -> None:
    (message_id,) = talk.session(("Tom", text))
    stored = bytes(Unit.objects.get(id=message_id).words or b"")
    assert stored and len(stored) % words.ENTRY_BYTES == 0
    assert len(search(talk.subject.id, "Tom").hits) == 1


def test_a_long_question_is_asked_by_its_first_words(scope: None) -> None:
    asked = words.asked(" ".join(f"word{n}" for n in range(500)), Wording("plain", "english"))
    assert asked.readable == [f"word{n}" for n in range(QUESTION_LEXEMES_MAX)]


@given(st.text(max_size=200).filter(lambda text: "\0" not in text and text.isprintable()))
def test_folding_twice_changes_nothing_more(text: str) -> None:
    once = words.folded(text)
    assert words.folded(once) == once


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=20)))
def test_a_literal_holds_exactly_its_lexemes(lexemes: list[str]) -> None:
    literal = words.literal((lexeme, [1, 2]) for lexeme in dict.fromkeys(lexemes))
    found = sql.row("SELECT tsvector_to_array(%s::tsvector)", [literal])
    assert found is not None and set(found[0]) == set(lexemes)


def test_the_index_knows_as_much_of_a_text_as_the_limit_says(scope: None) -> None:
    (made,) = words.terms(["a " * INDEXED_CHARS_MAX + "behind"], Wording("plain", "simple"))
    assert made.words is not None and len(made.words) == INDEXED_CHARS_MAX and "behind" not in made.words


@pytest.mark.parametrize(
    ("before", "after"), [("plain", "blind"), ("blind", "plain"), ("plain", "off"), ("off", "plain")]
)
def test_a_changed_setting_makes_all_words_anew(scope: None, subject: Subject, before: str, after: str) -> None:
    setting = TenantSetting.objects.create(key="memory.tenant", value={"fulltext": before})
    talk = Talk(subject)
    ids = talk.session(*[("Tom", f"canary number {n}") for n in range(7)])
    units.set_in_recall(ids[:1], False)
    setting.value = {"fulltext": after}
    setting.save()
    assert search(subject.id, "canary").hits == []  # the stored words are those of the former setting
    cursor, done = "", 0
    for _ in range(10):
        batch = rewording.reword_batch(cursor, batch_units=3)
        cursor, done = batch.cursor, done + batch.done
        if batch.is_over:
            break
    assert (done, batch.cursor, rewording.target()) == (7, "", f"{after}:english")
    stored = b"".join(bytes(unit.words or b"") for unit in Unit.objects.all())
    assert (words.digest("canari").to_bytes(8, "little") in stored) == (after == "plain")
    assert len(search(subject.id, "canary").hits) == (0 if after == "off" else 6)
