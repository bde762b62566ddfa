"""How things are written on a page: icons, states, times, sizes, money, values. Loaded everywhere as built-ins."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlencode

from django import template
from django.http import QueryDict
from django.templatetags.static import static
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from agentstate.core.clock import now
from agentstate.web import diffs, values

register = template.Library()
_VERSION = "0.1.0"

# status -> icon, word, tone, does it call for a person
STATES: dict[str, tuple[str, str, str, bool]] = {
    "queued": ("queued", "queued", "", False),
    "running": ("running", "running", "run", False),
    "started": ("running", "running", "run", False),
    "waiting": ("waiting", "waiting", "wt", True),
    "timer": ("clock", "waiting for time", "", False),
    "pending": ("waiting", "waiting", "wt", True),
    "paused": ("paused", "paused", "", False),
    "pausing": ("paused", "pausing", "", False),
    "cancelling": ("cancelled", "cancelling", "", False),
    "in_doubt": ("doubt", "in doubt", "db", True),
    "failed": ("failed", "failed", "fl", True),
    "stuck": ("stuck", "stuck", "db", True),
    "compensating": ("undo", "compensating", "cp", False),
    "compensated": ("undo", "compensated", "", False),
    "cancelled": ("cancelled", "cancelled", "", False),
    "succeeded": ("done", "done", "", False),
    "done": ("done", "done", "", False),
    "approved": ("done", "approved", "", False),
    "edited": ("done", "approved with edits", "", False),
    "rejected": ("failed", "rejected", "", False),
    "responded": ("done", "answered", "", False),
    "expired": ("clock", "expired", "", False),
    "withdrawn": ("cancelled", "withdrawn", "", False),
    "skipped": ("cancelled", "skipped", "", False),
    "accepted": ("done", "accepted", "", False),
    "active": ("done", "in use", "", False),
    "over_cap": ("alert", "over the cap", "wt", False),
    "superseded": ("undo", "superseded", "", False),
    "forgotten": ("cancelled", "forgotten", "", False),
    "erasing": ("cancelled", "being erased", "fl", True),
    "planned": ("running", "being erased", "run", False),
    "stopping": ("clock", "waits for runs", "run", False),
    "verified": ("done", "erased", "", False),
    "open": ("running", "open", "run", False),
    "closed": ("done", "closed", "", False),
    "idle": ("done", "idle", "", False),
    "ok": ("done", "ok", "", False),
    "silent": ("alert", "silent", "wt", True),
}
KIND_ICONS = {
    "tool": "tool",
    "model": "llm",
    "ask": "waiting",
    "timer": "clock",
    "value": "state",
    "group": "group",
    "memory": "memory",
}
KIND_WORDS = {"model": "model", "ask": "question", "value": "recorded value", "group": "subtask", "memory": "memory"}


@register.simple_tag
@lru_cache(maxsize=256)  # the same few on every row of every page
def icon(name: str, extra: str = "") -> SafeString:
    return format_html(
        '<svg class="i{}" aria-hidden="true"><use href="{}#{}"/></svg>',
        f" {extra}" if extra else "",
        static("sprite.svg"),
        name,
    )


@register.simple_tag
@lru_cache(maxsize=256)
def state(status: str, word: str = "", *, quiet: bool = False) -> SafeString:
    """Shape, word and colour; only what needs a person gets a ground. `quiet` drops the ground in long tables."""
    shape, known, tone, calls = STATES.get(status, ("info", status.replace("_", " "), "", False))
    call = " call" if calls and not quiet else ""
    return format_html('<span class="st{}{}">{}{}</span>', call, f" {tone}" if tone else "", icon(shape), word or known)


@register.filter
def state_word(status: str) -> str:
    return STATES.get(status, ("", status.replace("_", " ")))[1]


@register.filter
def state_tone(status: str) -> str:
    return STATES[status][2] if status in STATES else ""


@register.simple_tag
@lru_cache(maxsize=64)
def kind_icon(kind: str) -> SafeString:
    word = KIND_WORDS.get(kind, kind)
    return format_html('{}<span class="vh">{}: </span>', icon(KIND_ICONS.get(kind, "play")), word)


# Times: absolute UTC in <time datetime>, relative beside it where it helps.


@register.filter
def clock(at: datetime | None) -> SafeString | str:
    """10:04:06 today, else with the day."""
    if at is None:
        return ""
    at = at.astimezone(UTC)
    text = at.strftime("%H:%M:%S" if at.date() == now().date() else "%d %b %H:%M")
    if at.year != now().year:
        text = at.strftime("%d %b %Y")
    stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return format_html('<time datetime="{}" title="{}">{}</time>', stamp, stamp, text)


@register.filter
def precise(at: datetime | None) -> SafeString | str:
    if at is None:
        return ""
    at = at.astimezone(UTC)
    stamp = at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return format_html('<time datetime="{}" title="{}">{}</time>', stamp, stamp, at.strftime("%H:%M:%S.%f")[:-3])


@register.filter
def ago(at: datetime | None) -> str:
    """“12 min ago” or “in 11 min”: one unit, rounded down."""
    if at is None:
        return ""
    seconds = (now() - at).total_seconds()
    if abs(seconds) < 1:
        return "now"
    words = coarse(abs(seconds))
    return f"{words} ago" if seconds > 0 else f"in {words}"


@register.filter
def span_since(at: datetime | None) -> str:
    """“5 min”, from then until now."""
    return coarse(max((now() - at).total_seconds(), 0)) if at else ""


@register.filter
def due_words(at: datetime) -> str:
    return f"due {at.astimezone(UTC):%H:%M}, {ago(at)}"


def coarse(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{int(seconds)} s"


@register.filter
def duration(value: float | timedelta | None) -> str:
    """Seconds (or a timedelta) as 0.8 s, 12 min 7 s, 3 h 2 min, 2 d 4 h."""
    if value is None:
        return ""
    seconds = value.total_seconds() if isinstance(value, timedelta) else float(value)
    if seconds < 0.0995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    for size, unit, part, part_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= size:
            rest = int(seconds % size // part)
            return f"{int(seconds // size)} {unit}" + (f" {rest} {part_unit}" if rest else "")
    return "1 min"


@register.filter
def size(count: int | None) -> str:
    """Bytes as 812 B, 12.4 KiB, 3.0 MiB."""
    if count is None:
        return ""
    for unit, step in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if count >= step:
            return f"{count / step:.1f} {unit}"
    return f"{count} B"


@register.filter
def number(count: int | None) -> str:
    return f"{count:,}" if isinstance(count, int) else ""  # a name the page does not know is ""


@register.filter
def money(amount: float | None) -> str:
    """US dollars, the currency of the price list; small amounts keep three digits that say something."""
    if amount is None:
        return ""
    if amount == 0:
        return "$0"
    return f"${amount:,.2f}" if abs(amount) >= 1 else f"${amount:.3f}" if abs(amount) >= 0.001 else "<$0.001"


@register.simple_tag
def counted(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"


@register.filter
def short_id(public_id: str) -> str:
    """The last eight digits: ids made in the same minute begin alike."""
    return str(public_id).rpartition("_")[2][-8:]


@register.filter
def short_key(key: str) -> str:
    return f"{key[:10]}…" if len(key) > 12 else key


# Values of agents and tools.


@register.simple_tag
def json_tree(value: Any, label: str = "", *, whole: bool = False) -> SafeString:
    return values.tree(value, label=label, whole=whole)


@register.filter
def visible(text: object) -> SafeString:
    return values.visible("" if text is None else str(text))


@register.filter
def one_line(value: Any) -> SafeString:
    return values.visible(values.short(values.redact(value), chars=80))


@register.simple_tag
def difference(before: Any, after: Any) -> diffs.Difference:
    return diffs.difference(before, after)


@register.filter
def as_json(value: Any) -> str:
    return json.dumps(values.redact(value), indent=2, ensure_ascii=False, default=str)


@register.filter
def plainly(text: str) -> str:
    """A title or attribute: no control or direction-changing signs at all."""
    return "".join(sign for sign in str(text) if unicodedata.category(sign)[0] != "C")


@register.filter
def redacted(text: object) -> str:
    return values.redact_text(str(text))


@register.filter
def has_invisible(text: str) -> bool:
    return values.INVISIBLE.search(text) is not None


@register.filter
def of_key(found: Mapping[Any, Any], key: Any) -> Any:
    return found.get(key, "")


@register.filter
def is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


# Words.

OUTCOMES = {
    "done": "done",
    "not_sent": "not sent",
    "refused": "refused",
    "failed": "failed",
    "unknown": "no answer",
    "lost": "worker lost",
    "resumed": "resumed",
}
VERDICTS = {"did_not_happen": "it did not happen", "happened": "it happened", "give_up": "given up"}


@register.filter
def outcome_word(outcome: str) -> str:
    return OUTCOMES.get(outcome, outcome.replace("_", " "))


@register.filter
def verdict_word(verdict: str) -> str:
    return VERDICTS.get(verdict, verdict)


@register.filter
def act_words(action: str) -> str:
    """run.pause_requested -> pause requested; effects and steps keep their noun."""
    noun, _, verb = action.rpartition(".")
    return f"{'' if noun == 'run' else noun + ' '}{verb}".replace("_", " ").strip()


# Addresses and dress.


@register.simple_tag
def asset(path: str) -> str:
    """A static file; the version in its address lets a browser keep it until the next release."""
    return f"{static(path)}?{_VERSION}"


@register.filter
def tint(tenant: Any) -> int:
    """Which bar colour a tenant has: its choice, else one from its name. No state's colour is among them."""
    colours = ("teal", "violet", "pink", "green", "blue")
    return colours.index(tenant.colour) if tenant.colour in colours else sum(tenant.slug.encode()) % len(colours)


@register.filter
def message_tone(level: str) -> str:
    return {"error": "fl", "warning": "wt", "success": "ok"}.get(level, "")


@register.simple_tag(takes_context=True)
def with_query(context: Mapping[str, Any], **changes: object) -> str:
    """The address of this page with some of its query changed; None and "" take a part away."""
    request = context["request"]
    query: QueryDict = request.GET.copy()
    for name, value in changes.items():
        query.pop(name, None)
        if value not in (None, ""):
            query[name] = str(value)
    text = query.urlencode()
    return f"{request.path}?{text}" if text else request.path


@register.filter
def query(parts: Mapping[str, object]) -> str:
    return urlencode(parts)


# Charts: percent in x and width, no viewBox, so text and strokes never stretch.


@register.simple_tag
def spark(counts: list[int], label: str, hot_from: int = -1) -> SafeString:
    """Bars of counts, oldest first; those from index `hot_from` on are drawn in the failure colour."""
    top = max([*counts, 1])
    width = 100 / max(len(counts), 1)
    bars = "".join(
        f'<rect class="{"bad" if 0 <= hot_from <= place and count else "grp"}" x="{place * width:.2f}%"'
        f' y="{20 - _tall(count, top)}" width="{width * 0.7:.2f}%" height="{_tall(count, top)}"/>'
        for place, count in enumerate(counts)
    )
    return format_html(
        '<svg height="20" class="chart spark" role="img" aria-label="{}">{}</svg>',
        label,
        mark_safe(bars),  # noqa: S308  numbers only
    )


def _tall(count: int, top: int) -> int:
    return max(1, round(20 * count / top)) if count else 1


@register.simple_tag
def meter(percent: float, label: str) -> SafeString:
    tone = "warm" if percent >= 90 else "pri"
    return format_html(
        '<svg class="meter chart" role="img" aria-label="{}"><rect class="{}" width="{}%" height="6" rx="3"/></svg>',
        label,
        tone,
        f"{min(percent, 100):.1f}",
    )
