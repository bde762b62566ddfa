"""`research-notes`: reads many pages a few at a time, keeps notes, and orders one dear analysis at the end.

Long on purpose: a generation is closed about every 200 steps, so going on after a crash stays cheap however many
pages there are.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import agentstate as st
from agentstate.dev.demo import models, tools

Json = Any  # what json.loads gives

PAGES_MAX = 5_000
PAGES_AT_ONCE = 5
GENERATION_PAGES = 150  # with their digests about 200 steps
POINTS_MAX = 100  # kept in the state; the newest
POINTS_HANDED_OVER = 20  # in the progress document
NEXT = re.compile(r"[Pp]age (\d{1,9})")

LOST = {"finding": "The analysis was made, but its text is lost.", "analysis_id": ""}  # settled by a person

INPUT = {
    "type": "object",
    "title": "Research a topic",
    "properties": {
        "topic": {
            "type": "string",
            "title": "Topic",
            "description": "What to read about.",
            "minLength": 1,
            "maxLength": 100,
            "default": "heat pumps",
        },
        "pages": {
            "type": "integer",
            "title": "Pages",
            "description": "How many pages to read.",
            "minimum": 1,
            "maximum": PAGES_MAX,
            "default": 40,
        },
        "seconds_per_page": {
            "type": "number",
            "title": "Seconds per page",
            "description": "How long reading one page takes; five are read at once.",
            "minimum": 0,
            "maximum": 30,
            "default": 0.5,
        },
    },
    "required": ["topic"],
    "additionalProperties": False,
}


@st.agent("research-notes", version="1", input_schema=INPUT)
def research_notes(topic: str, pages: int = 40, seconds_per_page: float = 0.5) -> dict[str, Any]:
    """Reads pages about a topic, keeps notes, and writes a report. Another run goes on where the last one ended."""
    task = task_of(topic)
    document = st.memory.progress.read(task)
    begun = st.state.get("first_page") or next_page(document)
    if document.version == 0:
        document = _initialise(task, topic)
    first = st.state.get("next_page", begun)
    last_page = begun + pages - 1
    points: list[str] = list(st.state.get("points", []))
    for start in range(first, last_page + 1, PAGES_AT_ONCE):
        if start - first >= GENERATION_PAGES:
            st.continue_from({"next_page": start, "points": points, "first_page": begun})
        last = min(start + PAGES_AT_ONCE - 1, last_page)
        found = _read(topic, range(start, last + 1), seconds=seconds_per_page)
        points = merged(points, found)
    analysis = tools.order_analysis(topic, pages, points[:POINTS_MAX])
    analysis = analysis or LOST
    report = models.write_report(topic, analysis["finding"], points)
    _hand_over(task, document, first=begun, last=last_page, points=points, analysis=analysis["analysis_id"])
    return {
        "title": report.title,
        "report": report.text,
        "analysis": analysis["analysis_id"],
        "points": len(points),
        "pages": [begun, last_page],
    }


def task_of(topic: str) -> str:
    """The key of the progress document: every run about the topic reads it first and writes it last."""
    return f"research:{' '.join(topic.casefold().split())}"[:200]


def next_page(document: st.memory.Progress) -> int:
    found = NEXT.search(document.sections.get("next", ""))
    return int(found[1]) if found else 1


def _initialise(task: str, topic: str) -> st.memory.Progress:
    """The first run says what is to be done; every later one only moves it on."""
    sections = {"goal": f"Know what is written about {topic}.", "next": "Read page 1."}
    st.memory.progress.write(sections, key=task, expected_version=0, reason="begun")
    return st.memory.progress.read(task)


def _hand_over(
    task: str, document: st.memory.Progress, *, first: int, last: int, points: list[str], analysis: str
) -> None:
    """What the next run has to know; nothing here is read twice."""
    done = f"- Pages {first} to {last}: {len(points)} points, analysis {analysis or 'lost'}."
    sections = {
        **document.sections,
        "done": "\n".join(part for part in (document.sections["done"], done) if part),
        "next": f"Read page {last + 1}.",
        "context": "\n".join(f"- {point}" for point in points[-POINTS_HANDED_OVER:]),
        "do_not_repeat": f"- Pages 1 to {last} have been read.",
    }
    st.memory.progress.write(sections, key=task, reason=f"pages {first} to {last}")


def merged(points: list[str], found: list[str]) -> list[str]:
    return [*points, *(point for point in found if point not in points)][-POINTS_MAX:]


def _read(topic: str, numbers: range, *, seconds: float) -> list[str]:
    pages = st.gather(*(partial(tools.read_page, topic, number, seconds) for number in numbers))
    digest = models.digest_pages(topic, pages)
    st.note(f"Pages {numbers[0]}-{numbers[-1]}: {'; '.join(digest.points)}", kind="note")
    keep_points(digest.points, upto=numbers[-1])
    return digest.points


@st.step(name="keep-points")
def keep_points(found: list[str], upto: int) -> None:
    """Take them over into the run's state, where a person can read how far it is."""
    st.state["points"] = merged(st.state.get("points", []), found)
    st.state["next_page"] = upto + 1
