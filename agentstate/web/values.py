"""Values of agents and tools as HTML: everything escaped, invisible signs made visible, secrets already redacted.

A tree is nested <details>, so that it opens without a script.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import orjson
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from agentstate.http.redaction import Hidden, redact, redact_text

__all__ = ["redact", "redact_text", "scalar", "short", "tree", "visible"]

NODES_MAX = 600  # of one tree on a page; the rest is in the raw view
TEXT_CHARS_OPEN = 240  # longer texts start folded
OPEN_ENTRIES_MAX = 24  # a level with more entries starts folded

# Bidirectional overrides, zero-width signs, tag characters, controls: what makes text look like other text.
INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e01ef]"
)
_CHEVRON = '<svg class="i chev" aria-hidden="true"><use href="/static/sprite.svg#chev"/></svg>'


def visible(text: str) -> SafeString:
    """Escaped text in which invisible and direction-changing signs are shown by their number."""
    return mark_safe(INVISIBLE.sub(_mark, escape(text)))  # noqa: S308  escaped in the same expression


def _mark(found: re.Match[str]) -> str:
    return f'<span class="inv" title="invisible sign">U+{ord(found[0]):04X}</span>'


def tree(value: Any, *, label: str = "", whole: bool = False, nodes_max: int = NODES_MAX) -> SafeString:
    """`value` as a foldable tree. `whole`: nothing folded or left out (arguments of an approval)."""
    budget = _Budget(None if whole else nodes_max)
    rows = "".join(_entry(label, redact(value), budget, depth=0))
    left = f'<li class="k">{budget.left_out} more values in the raw view</li>' if budget.left_out else ""
    return mark_safe(f'<ul class="json">{rows}{left}</ul>')  # noqa: S308  every leaf went through visible()


class _Budget:
    def __init__(self, nodes: int | None) -> None:
        self.nodes = nodes
        self.left_out = 0

    def take(self) -> bool:
        if self.nodes is None:
            return True
        if self.nodes == 0:
            self.left_out += 1
            return False
        self.nodes -= 1
        return True


def _entry(label: str, value: Any, budget: _Budget, *, depth: int) -> Iterator[str]:
    if not budget.take():
        return
    key = f'<span class="k">{visible(label)}:</span> ' if label else ""
    if isinstance(value, dict | list) and value:
        yield from _branch(key, value, budget, depth=depth)
    elif isinstance(value, str) and not isinstance(value, Hidden) and budget.nodes is not None and _long(value):
        yield f"<li><details><summary>{_CHEVRON}{key}<small>{len(value):,} characters</small></summary>"
        yield f'<span class="txt">{visible(value)}</span></details></li>'
    else:
        yield f"<li>{key}{scalar(value)}</li>"


def _branch(key: str, value: dict[str, Any] | list[Any], budget: _Budget, *, depth: int) -> Iterator[str]:
    is_open = budget.nodes is None or (depth < 2 and len(value) <= OPEN_ENTRIES_MAX)
    what = ("field" if isinstance(value, dict) else "entry"), ("fields" if isinstance(value, dict) else "entries")
    count = f"{len(value):,} {what[len(value) != 1]}"
    yield f"<li><details{' open' if is_open else ''}><summary>{_CHEVRON}{key}<small>{count}</small></summary><ul>"
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, part in items:
        yield from _entry(str(name), part, budget, depth=depth + 1)
    yield "</ul></details></li>"


def _long(text: str) -> bool:
    return len(text) > TEXT_CHARS_OPEN or text.count("\n") > 4


def scalar(value: Any) -> SafeString:
    if isinstance(value, Hidden):
        return mark_safe(f"<i>hidden: {visible(value.kind)}</i>")  # noqa: S308  kind went through visible()
    if isinstance(value, str):
        return mark_safe(f'<span class="txt">&quot;{visible(value)}&quot;</span>')  # noqa: S308  as above
    if isinstance(value, dict | list):
        return SafeString("{}" if isinstance(value, dict) else "[]")
    return SafeString(escape(plain(value)))


def plain(value: Any) -> str:
    """One line of JSON for a value; numbers keep their form (180.50 stays what the agent sent)."""
    return orjson.dumps(value, default=str).decode()


def short(value: Any, *, chars: int = 120) -> str:
    """What stands in a row of a difference: the value, or its size when it is long."""
    if isinstance(value, list):
        return f"{len(value):,} entries"
    if isinstance(value, dict) and len(value) > 4:
        return f"{len(value):,} fields"
    text = value if isinstance(value, Hidden) else plain(value)
    return text if len(text) <= chars else f"{text[:chars]}… ({len(text):,} characters)"
