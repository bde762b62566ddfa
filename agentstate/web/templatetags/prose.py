"""Texts on a page: Markdown, changes word by word, found words, and bars. Loaded everywhere as built-ins."""

from __future__ import annotations

from collections.abc import Collection
from uuid import UUID

from django import template
from django.utils.html import format_html
from django.utils.safestring import SafeString

from agentstate.core.ids import public_id
from agentstate.web import prose, values

register = template.Library()


@register.filter
def markdown(text: str) -> SafeString:
    return prose.markdown(str(text))


@register.simple_tag
def text_changes(before: str, after: str, side: str = "") -> SafeString:
    return prose.changes(values.redact_text(before), values.redact_text(after), side=side)


@register.simple_tag
def text_marked(text: str, words: Collection[str]) -> SafeString:
    return prose.marked(values.redact_text(text), words)


@register.filter
def facts_line(found: object) -> SafeString:
    """Facts in a row of a list: what they hold, without names that hold nothing."""
    if not isinstance(found, dict):
        return values.visible("")
    plain = [
        (str(name).replace("_", " "), part) for name, part in found.items() if part not in (None, "", False, [], {})
    ]
    told = ", ".join(name if part is True else f"{name} {values.short(part, chars=60)}" for name, part in plain)
    return values.visible(values.redact_text(told.replace('"', "")))


@register.filter
def of_bytes(count: int, cap: int) -> str:
    return f"{count:,} of {cap:,} bytes"


@register.filter
def public(id: UUID, prefix: str) -> str:
    return public_id(prefix, id)


@register.simple_tag
def bar(value: float, most: float = 1.0, tone: str = "ran") -> SafeString:
    """A bar of value out of most; its number stands beside it, so it is hidden from screen readers."""
    share = min(max(value / most, 0.0), 1.0) * 100 if most > 0 else 0.0
    return format_html(
        '<svg class="meter chart" aria-hidden="true"><rect class="{}" width="{}%" height="6" rx="3"/></svg>',
        tone,
        f"{share:.1f}",
    )
