"""How messages are told shorter: turns, then a segment of them, then the session so far, then what a subject's say.

Nothing here reads or writes the database, so a model may take its time. The same messages are told the same way, and
nothing told has more tokens than what it was told from, read as it stands in a context: who said it, then the words.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from agentstate.core import tokens
from agentstate.core.extract import TOKENS_PER_BREAK
from agentstate.llm import summarising
from agentstate.llm.summarising import Source
from memory.selectors.messages import OpenedMessage

By = Literal["extractive", "model"]

TURN_TOKENS_MAX = 120
SEGMENT_SHARE = 0.4  # of its messages' tokens, unless what matters in it needs more
IMPORTANT_SHARE = 0.7  # of a folded summary that is held for what matters, word for word; the newest comes first
MARKS = ("[decision] ", "[commitment] ", "[fact] ")
INDENT = "\n  "  # a further line of a message: a line that begins otherwise is the next one


@dataclass(frozen=True, slots=True)
class Told:
    """A summary before it is a row. `source_ids`: messages, or the summaries it was told from."""

    level: str
    from_seq: int
    to_seq: int
    text: str
    tokens: int
    source_ids: tuple[UUID, ...]
    method: str


def segment_of(messages: Sequence[OpenedMessage], *, most: int, whole: bool) -> Sequence[OpenedMessage]:
    """The messages of the next segment: `most` of them, ended between two turns where that leaves at least half.

    `whole`: the session has ended, so a shorter rest is a segment too.
    """
    if len(messages) < most:
        return messages if whole else ()
    messages = messages[:most]
    starts = [place for place, message in enumerate(messages) if message.role == "user" and place >= most // 2]
    return messages[: starts[-1]] if starts else messages


def turns_of(messages: Iterable[OpenedMessage]) -> list[list[OpenedMessage]]:
    """A turn begins with a message of the user."""
    turns: list[list[OpenedMessage]] = []
    for message in messages:
        if not turns or (message.role == "user" and any(said.role != "user" for said in turns[-1])):
            turns.append([])
        turns[-1].append(message)
    return turns


def turn(messages: Sequence[OpenedMessage]) -> Told:
    return _told("turn", messages, tokens_max=TURN_TOKENS_MAX, by="extractive")


def segment(messages: Sequence[OpenedMessage], *, tokens_max: int, by: By) -> Told:
    total = tokens.count("\n".join(map(spoken, messages)))
    important = sum(tokens.count(spoken(m)) + TOKENS_PER_BREAK for m in messages if m.importance != "routine")
    room = max(int(total * SEGMENT_SHARE), min(important + TOKENS_PER_BREAK, total))
    return _told("segment", messages, tokens_max=min(room, tokens_max), by=by)


def session(former: Told | None, segment: Told, *, tokens_max: int, by: By) -> Told:
    """The session so far: what was told of it before, and its new segment."""
    parts = [part for part in (former, segment) if part is not None]
    return _folded("session", parts, from_seq=parts[0].from_seq, to_seq=segment.to_seq, tokens_max=tokens_max, by=by)


def subject(sessions: Sequence[Told], *, tokens_max: int, by: By) -> Told:
    """What the sessions of a subject have come to, the oldest first. `source_ids` of each holds its own id only."""
    return _folded("subject", sessions, from_seq=0, to_seq=0, tokens_max=tokens_max, by=by)


def spoken(message: OpenedMessage) -> str:
    """A message as a summary's source: marked when it matters, who said it, its words."""
    mark = f"[{message.importance}] " if message.importance != "routine" else ""
    return f"{mark}{message.speaker}: {message.text.strip()}".replace("\n", INDENT)


def lines_of(text: str) -> list[str]:
    """The sources that a summary's text came from: its lines, a message of several lines being one of them."""
    lines: list[str] = []
    for line in text.split("\n"):
        if lines and line.startswith(INDENT[1:]):
            lines[-1] += f"\n{line}"
        elif line.strip():
            lines.append(line)
    return lines


def _told(level: str, messages: Sequence[OpenedMessage], *, tokens_max: int, by: By) -> Told:
    texts = [(message.id, spoken(message)) for message in messages]
    text, count, source_ids, method = _summary(texts, tokens_max=tokens_max, by=by, share=1.0)
    return Told(level, messages[0].seq, messages[-1].seq, text, count, source_ids, method)


def _folded(level: str, parts: Sequence[Told], *, from_seq: int, to_seq: int, tokens_max: int, by: By) -> Told:
    texts = [(part.source_ids[0], line) for part in parts for line in lines_of(part.text)]
    text, count, source_ids, method = _summary(texts, tokens_max=tokens_max, by=by, share=IMPORTANT_SHARE)
    return Told(level, from_seq, to_seq, text, count, source_ids, method)


def _summary(
    texts: Sequence[tuple[UUID, str]], *, tokens_max: int, by: By, share: float
) -> tuple[str, int, tuple[UUID, ...], str]:
    important = _held(texts, tokens_max=int(tokens_max * share))
    sources = [Source(id, text, place in important) for place, (id, text) in enumerate(texts)]
    made = summarising.summarise(sources, tokens_max=tokens_max, by=by)
    return made.text, made.tokens, tuple(dict.fromkeys(made.source_ids)), made.method


def _held(texts: Sequence[tuple[UUID, str]], *, tokens_max: int) -> set[int]:
    """Places of the marked texts that are kept word for word: the newest that fit. Others may keep a sentence."""
    held, left = set(), tokens_max
    for place in reversed(range(len(texts))):
        cost = tokens.count(texts[place][1]) + TOKENS_PER_BREAK
        if texts[place][1].startswith(MARKS) and cost <= left:
            held.add(place)
            left -= cost
    return held
