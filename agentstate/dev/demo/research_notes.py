"""`research-notes`: reads many pages a few at a time, keeps notes, and orders one dear analysis at the end.

Long on purpose: a generation is closed about every 200 steps, so going on after a crash stays cheap however many
pages there are.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import agentstate as st
from agentstate.dev.demo import models, tools

Json = Any  # what json.loads gives

PAGES_MAX = 5_000
PAGES_AT_ONCE = 5
GENERATION_PAGES = 150  # with their digests about 200 steps
POINTS_MAX = 100  # kept in the state; the newest

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
    """Reads pages about a topic, keeps notes, and writes a report."""
    first = st.state.get("next_page", 1)
    points: list[str] = list(st.state.get("points", []))
    for start in range(first, pages + 1, PAGES_AT_ONCE):
        if start - first >= GENERATION_PAGES:
            st.continue_from({"next_page": start, "points": points})
        last = min(start + PAGES_AT_ONCE - 1, pages)
        found = _read(topic, range(start, last + 1), seconds=seconds_per_page)
        points = merged(points, found)
    analysis = tools.order_analysis(topic, pages, points[:POINTS_MAX])
    analysis = analysis or LOST
    report = models.write_report(topic, analysis["finding"], points)
    return {"title": report.title, "report": report.text, "analysis": analysis["analysis_id"], "points": len(points)}


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
