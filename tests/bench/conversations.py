"""Conversations and questions with known evidence, from a seed. Nobody's real words; the same at every run.

Sessions have dates in their metadata only. Each conversation uses the topics of one half: weights may be looked at on
`tuning`, and are reported on `report`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from tests.bench.topics import AUTHORS, CORRECTIONS, FACTS, FILLER, PEOPLE, SEVERAL, SLOTS, TEMPORAL, Topic

SESSIONS = 8
TURNS = 16  # of filler in a session
START = datetime(2024, 1, 9, 10, 0, tzinfo=UTC)
DAYS_APART = 43  # no two sessions in one month


@dataclass(frozen=True)
class Turn:
    author: str
    text: str


@dataclass(frozen=True)
class Asked:
    """`evidence`: (session, turn) from 0, all of which answer it. `shares_words`: whether by intention it does."""

    text: str
    category: str
    evidence: tuple[tuple[int, int], ...]
    shares_words: bool


@dataclass
class Conversation:
    half: str
    number: int
    starts: list[datetime]
    sessions: list[list[Turn]]
    questions: list[Asked] = field(default_factory=list)

    def evidence(self, question: Asked) -> list[str]:
        return [self.sessions[session][turn].text for session, turn in question.evidence]


def conversations(half: str, count: int, *, seed: int = 11) -> list[Conversation]:
    return [_made(half, number, random.Random(f"{seed}:{half}:{number}")) for number in range(count)]


def _made(half: str, number: int, draw: random.Random) -> Conversation:
    people = draw.sample(PEOPLE, 3)
    starts = [START + timedelta(days=DAYS_APART * n + draw.randint(0, 9)) for n in range(SESSIONS)]
    drafts = [[_filler(draw, people) for _ in range(TURNS)] for _ in range(SESSIONS)]
    spoken = [_Spoken(topic, draw, people) for topic in _of(half)]
    for one in spoken:
        one.put(drafts, draw)
    made = Conversation(half, number, starts, drafts)
    for place, one in enumerate(spoken):
        made.questions += one.questions(made, place + number)
    return made


class _Spoken:
    """One topic in one conversation: who says what, and where it stood in the end."""

    def __init__(self, topic: Topic, draw: random.Random, people: Sequence[str]) -> None:
        self.topic = topic
        value = draw.choice(topic.values)
        speakers = draw.sample(list(people), 2)
        lines = [text.replace("{x}", value) for text in topic.said]
        if topic.second:
            lines.append(topic.said[0].replace("{x}", draw.choice(topic.second)))
        if topic.kind != "author":
            speakers = [speakers[0]] * 2
        self.turns = [Turn(speaker, text) for speaker, text in zip(speakers, lines, strict=False)]
        self.near = [Turn(draw.choice(list(people)), text) for text in topic.near]

    def put(self, sessions: list[list[Turn]], draw: random.Random) -> None:
        """Each in a session of its own, in order; what is nearly the same somewhere."""
        for session, turn in zip(sorted(draw.sample(range(len(sessions)), len(self.turns))), self.turns, strict=True):
            sessions[session].insert(draw.randint(1, len(sessions[session])), turn)
        for turn in self.near:
            session = draw.randrange(len(sessions))
            sessions[session].insert(draw.randint(1, len(sessions[session])), turn)

    def questions(self, conversation: Conversation, place: int) -> Iterator[Asked]:
        where = [self._where(conversation, turn) for turn in self.turns]
        topic = self.topic
        if topic.kind == "fact":
            yield Asked(topic.other, "paraphrase", (where[0],), False)
            if place % 3 == 0:
                yield Asked(topic.asked, "single", (where[0],), True)
        elif topic.kind == "temporal":
            asked_for = place % 2
            month = conversation.starts[where[asked_for][0]].strftime("%B")
            form = topic.asked if place % 4 < 2 else topic.other
            yield Asked(form.replace("{month}", month), "temporal", (where[asked_for],), form == topic.asked)
        elif topic.kind == "author":
            named = place % 2
            yield Asked(topic.asked.replace("{author}", self.turns[named].author), "author", (where[named],), True)
        elif topic.kind == "several":
            yield Asked(topic.other, "multi-session", tuple(where), False)
            if place % 2:
                yield Asked(topic.asked, "multi-session", tuple(where), True)
        else:
            form = topic.asked if place % 2 else topic.other
            yield Asked(form, "correction", (where[-1],), form == topic.asked)

    @staticmethod
    def _where(conversation: Conversation, turn: Turn) -> tuple[int, int]:
        found = [(s, t) for s, said in enumerate(conversation.sessions) for t, one in enumerate(said) if one is turn]
        (place,) = found
        return place


def _of(half: str) -> list[Topic]:
    return [topic for topic in (*FACTS, *TEMPORAL, *AUTHORS, *SEVERAL, *CORRECTIONS) if topic.half == half]


def _filler(draw: random.Random, people: Sequence[str]) -> Turn:
    text = draw.choice(FILLER)
    for slot, values in SLOTS.items():
        text = text.replace(f"{{{slot}}}", draw.choice(values))
    return Turn(draw.choice(list(people)), text)
