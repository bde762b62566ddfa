"""The written conversations are what they claim to be, and recall on a few of them does not fall below a floor."""

from __future__ import annotations

import pytest

from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from tests.bench import quality, recorded
from tests.bench.conversations import SESSIONS, conversations
from tests.bench.topics import TOPICS

pytestmark = pytest.mark.django_db
FEW = 2
HALVES = ("tuning", "report")
# recall@10 and mean reciprocal rank; three questions of five share no word with their evidence.
FLOORS = {"bits": (0.85, 0.65), "sentence": (0.80, 0.55), "words": (0.35, 0.30)}


def test_conversations_are_the_same_at_every_run_and_halves_share_no_sentence() -> None:
    assert conversations("report", 2) == conversations("report", 2)
    asked = {half: {question.text for made in conversations(half, 9) for question in made.questions} for half in HALVES}
    said = {half: {text for topic in TOPICS if topic.half == half for text in topic.said} for half in HALVES}
    assert not asked["tuning"] & asked["report"]
    assert not said["tuning"] & said["report"]


def test_the_questions_are_as_hard_as_the_text_says(tenant: Tenant) -> None:
    every = [made for half in HALVES for made in conversations(half, 9)]
    pairs = [(made, question) for made in every for question in made.questions]
    assert len(pairs) >= 300
    with tenant_scope(tenant.id):
        shared = [quality.shared_words(made, question, quality.lexemes) for made, question in pairs]
    for (_, question), common in zip(pairs, shared, strict=True):
        assert question.shares_words or not common, (question.text, common)
    assert sum(not common for common in shared) >= 0.4 * len(pairs)
    assert sum(len({session for session, _ in question.evidence}) > 1 for _, question in pairs) >= 0.2 * len(pairs)
    assert {question.category for _, question in pairs} == set(quality.CATEGORIES)
    for made in every:
        assert len(made.sessions) == SESSIONS and len({turn.author for said in made.sessions for turn in said}) == 3
        assert len({start.strftime("%Y %m") for start in made.starts}) == SESSIONS
        months = {start.strftime("%B").lower() for start in made.starts}
        assert not months & set(" ".join(turn.text.lower() for said in made.sessions for turn in said).split())


def test_recall_does_not_fall_below_its_floor(tenant: Tenant) -> None:
    """Deterministic. With the model's files all three rungs, without them the one that is left."""
    model = quality.local_model()
    with tenant_scope(tenant.id):
        stored = [quality.store(made) for made in conversations("report", FEW)]
        units = sum(len(session) for one in stored for session in one.units)
        if model is not None:
            assert quality.embed(model) == units
        for rung in quality.RUNGS if model else ("words",):
            found = quality.by_category(quality.measure(stored, rung, model))
            at_10, mrr = FLOORS[rung]
            assert found["all"].at_10 >= at_10, (rung, found)
            assert found["all"].mrr >= mrr, (rung, found)
        chance = 10 * len(stored) / units
        lots = quality.Quality.of(quality.control(stored, "bits" if model else "words", model))
        assert lots.at_10 <= 3 * chance, (lots, chance)


def test_a_recorded_conversation_is_read_with_its_evidence() -> None:
    def said(place: str, text: str) -> dict[str, str]:
        return {"speaker": "Ada", "dia_id": place, "text": text}

    read = recorded.conversation(
        {
            "session_2": [said("D2:1", "Later.")],
            "session_2_date_time": "1:05 am on 3 May, 2023",
            "session_1": [said("D1:1", "First."), said("D1:2", "")],
            "session_1_date_time": "1:56 pm on 8 April, 2023",
            "session_3": [],
            "qa": [
                {"question": "Which?", "category": 1, "evidence": ["D2:1; D:1:2", "D9:9"]},
                {"question": "None?", "category": 5, "evidence": ["D1:1"]},
                {"question": "Where?", "category": 4},
            ],
        },
        number=0,
    )
    assert [[turn.text for turn in session] for session in read.sessions] == [["First.", "-"], ["Later."]]
    assert [start.isoformat() for start in read.starts] == ["2023-04-08T13:56:00+00:00", "2023-05-03T01:05:00+00:00"]
    assert [(asked.text, asked.evidence) for asked in read.questions] == [("Which?", ((1, 0), (0, 1)))]
