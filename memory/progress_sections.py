"""The text of a progress document: six headings in one order, read from Markdown and written back.

Nothing is lost on the way: reading what was written gives the same sections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from agentstate.core.errors import Invalid, TooLarge
from agentstate.core.limits import PROGRESS_BYTES_MAX

HEADINGS = {
    "goal": "Goal",
    "done": "Done",
    "blocked_by": "Blocked by",
    "next": "Next",
    "context": "Context",
    "do_not_repeat": "Do not repeat",
}
FIELDS = {heading.casefold(): field for field, heading in HEADINGS.items()}
WAY_OUT = f"A progress document has the headings {', '.join(HEADINGS.values())}, each at most once."
HEADING = re.compile(r"^(?P<marks>#{1,6})[ \t]+(?P<words>.+?)[ \t]*#*[ \t]*$")
FENCE = re.compile(r"^\s{0,3}(`{3,}|~{3,})")
SECTION_MARKS_MAX = 2  # a deeper heading belongs to the section's own text, unless it is one of the six
FOLDED = re.compile(r"^- \((?P<count>\d+) earlier lines? folded")


@dataclass(frozen=True, slots=True)
class Sections:
    """The text below each heading, without the white space around it; empty where nothing is said."""

    goal: str = ""
    done: str = ""
    blocked_by: str = ""
    next: str = ""
    context: str = ""
    do_not_repeat: str = ""

    def as_dict(self) -> dict[str, str]:
        return {field: getattr(self, field) for field in HEADINGS}


def parse(markdown: str) -> Sections:
    """Raises: Invalid for an unknown or repeated heading, or text before the first, with the way out."""
    found: dict[str, list[str]] = {}
    lines, fence = None, ""
    for line in markdown.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        fence = _fence_after(fence, line)
        field = "" if fence else _section_of(line)
        if field:
            if field in found:
                raise Invalid(f"The heading {HEADINGS[field]} comes twice. {WAY_OUT}", field="/body")
            lines = found[field] = []
        elif lines is not None:
            lines.append(line)
        elif line.strip():
            raise Invalid(f"There is text before the first heading: “{line.strip()[:80]}”. {WAY_OUT}", field="/body")
    return _checked({field: "\n".join(text) for field, text in found.items()})


def of_mapping(sections: Mapping[str, str]) -> Sections:
    """From field names (blocked_by) or headings (Blocked by). Raises: Invalid."""
    found: dict[str, str] = {}
    for name, text in sections.items():
        field = FIELDS.get(str(name).replace("_", " ").casefold())
        if field is None or field in found:
            raise Invalid(f"There is no section “{str(name)[:80]}”, or it comes twice. {WAY_OUT}", field="/sections")
        found[field] = text
    return _checked(found)


def render(sections: Sections) -> str:
    """Markdown with all six headings, in their order."""
    parts = [f"## {HEADINGS[field]}\n\n{text}\n" if text else f"## {HEADINGS[field]}\n" for field, text in
             sections.as_dict().items()]  # fmt: skip
    return "\n".join(parts)


def bounded(sections: Sections, *, version: int) -> tuple[Sections, int]:
    """The sections within PROGRESS_BYTES_MAX, and how many of the oldest lines of Done were folded for that.

    `version`: the one before, which has those lines. Raises: TooLarge naming the largest section.
    """
    lines, folded = sections.done.split("\n"), 0
    before = FOLDED.match(lines[0])
    earlier = int(before["count"]) if before else 0
    rest = lines[1:] if before else lines
    while len(render(sections).encode()) > PROGRESS_BYTES_MAX and len(rest) > 1:
        # A sixteenth at a time: one line at a time would render a long list once for each of its lines.
        step = max(1, len(rest) // 16)
        folded, rest = folded + step, rest[step:]
        note = f"- ({earlier + folded:d} earlier lines folded; version {version} has them)"
        sections = replace(sections, done="\n".join([note, *rest]).strip())
    size = len(render(sections).encode())
    if size > PROGRESS_BYTES_MAX:
        largest = max(HEADINGS, key=lambda field: len(getattr(sections, field).encode()))
        raise TooLarge(
            f"This progress document has {size:,} bytes; at most {PROGRESS_BYTES_MAX:,} are kept. Its largest section "
            f"is {HEADINGS[largest]}: shorten it, or keep the detail as an artifact or a message.",
            field="/body",
            bytes=size,
            bytes_max=PROGRESS_BYTES_MAX,
        )
    return sections, folded


def _section_of(line: str) -> str:
    """The field a heading opens; "" for a line that opens none. Raises: Invalid."""
    heading = HEADING.match(line)
    if heading is None:
        return ""
    field = FIELDS.get(" ".join(heading["words"].rstrip(":").split()).casefold(), "")
    if not field and len(heading["marks"]) <= SECTION_MARKS_MAX:
        raise Invalid(
            f"“{heading['words'][:80]}” is no heading of a progress document. {WAY_OUT} Put it below one, with ###.",
            field="/body",
        )
    return field


def _fence_after(fence: str, line: str) -> str:
    """The code fence that is open behind this line: what looks like a heading inside is none."""
    found = FENCE.match(line)
    if found is None:
        return fence
    if not fence:
        return found[1]
    closes = found[1][0] == fence[0] and len(found[1]) >= len(fence) and line.strip() == found[1]
    return "" if closes else fence


def _checked(found: Mapping[str, str]) -> Sections:
    """What stands in a section can be read back from it. Raises: Invalid."""
    sections = Sections(**{field: text.strip("\n").rstrip() for field, text in found.items()})
    for field, text in sections.as_dict().items():
        fence = ""
        for line in text.split("\n"):
            fence = _fence_after(fence, line)
            if not fence and _section_of(line):
                raise Invalid(
                    f"The section {HEADINGS[field]} holds a heading of its own: “{line[:80]}”.", field="/body"
                )
        if fence:
            raise Invalid(f"A code block in {HEADINGS[field]} is not closed.", field="/body")
    return sections
