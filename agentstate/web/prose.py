"""Texts of people and agents as HTML: Markdown made harmless, two texts compared word by word, found words marked.

Nothing here trusts its text: what comes out was escaped or cleaned, and invisible signs are shown by their number.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from difflib import SequenceMatcher
from functools import cache

import nh3
from django.utils.safestring import SafeString, mark_safe
from markdown_it import MarkdownIt
from markdown_it.token import Token

from agentstate.web.values import INVISIBLE, redact_text, visible

TAGS = {"p", "em", "strong", "a", "code", "pre", "blockquote", "ul", "ol", "li", "hr", "br"}
TAGS |= {f"h{level}" for level in range(2, 7)}
TAG = re.compile(r"(<[^>]*>)")
WORD = re.compile(r"\w+|\s+|[^\w\s]")
SAYS = re.compile(r"\w")
ALIKE_MIN = 0.3  # of the longer text's words; below it the two texts stand beside each other
WORDS_MAX = 4_000  # of both texts together; above it the whole texts stand for the change
TOP_LEVEL = 2  # the page's own title is the h1


def markdown(text: str) -> SafeString:
    """CommonMark without raw HTML and images, its headings below the page's title and in unbroken order."""
    parser = _parser()
    tokens = parser.parse(redact_text(text))
    _renumber(tokens)
    html = nh3.clean(
        parser.renderer.render(tokens, parser.options, {}),
        tags=TAGS,
        attributes={"*": set(), "a": {"href"}},
        url_schemes={"http", "https", "mailto"},
        link_rel="noopener noreferrer nofollow",
    )
    parts = TAG.split(html)
    return mark_safe("".join(part if part.startswith("<") else _shown(part) for part in parts))  # noqa: S308  cleaned


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False, "maxNesting": 20}).disable("image")


def _renumber(tokens: list[Token]) -> None:
    """A heading is at most one level below the one before it, whatever number of signs its author wrote."""
    before, shift = TOP_LEVEL - 1, None
    for token in tokens:
        if token.type not in ("heading_open", "heading_close"):
            continue
        if token.type == "heading_open":
            written = int(token.tag[1])
            shift = TOP_LEVEL - written if shift is None else shift
            before = max(TOP_LEVEL, min(written + shift, before + 1, 6))
        token.tag = f"h{before}"


def _shown(text: str) -> str:
    return INVISIBLE.sub(lambda found: f'<span class="inv" title="invisible sign">U+{ord(found[0]):04X}</span>', text)


def changes(before: str, after: str, *, side: str = "") -> SafeString:
    """What was taken out and put in, word by word. `side`: only what stands "before" or "after"."""
    parts: list[str] = []
    for op, old, new in _pieces(before, after):
        if op == "equal":
            parts.append(visible(old))
            continue
        if old and side != "after":
            parts.append(f"<del>{visible(old)}</del>")
        if old and new and not side:
            parts.append(" ")
        if new and side != "before":
            parts.append(f"<ins>{visible(new)}</ins>")
    return mark_safe("".join(parts))  # noqa: S308  every piece went through visible()


def _pieces(before: str, after: str) -> list[tuple[str, str, str]]:
    """Runs of words that are equal or not. Texts with little in common are not cut up: one stands for the other."""
    old, new = WORD.findall(before), WORD.findall(after)
    if len(old) + len(new) > WORDS_MAX:
        return [("equal" if before == after else "replace", before, after)]
    matcher = SequenceMatcher(None, old, new, autojunk=False)
    pieces: list[tuple[str, str, str]] = [
        (op, "".join(old[a:b]), "".join(new[c:d])) for op, a, b, c, d in matcher.get_opcodes()
    ]
    kept = sum(len(piece[1].split()) for piece in pieces if piece[0] == "equal" and SAYS.search(piece[1]))
    if before and after and kept < ALIKE_MIN * max(len(before.split()), len(after.split())):
        return [("replace", before, after)]
    return _joined(pieces)


def _joined(pieces: list[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Two changes with nothing but a space or a sign between them are read as one."""
    joined: list[tuple[str, str, str]] = []
    for place, (op, old, new) in enumerate(pieces):
        is_gap = op == "equal" and not SAYS.search(old) and 0 < place < len(pieces) - 1
        if joined and joined[-1][0] != "equal" and (is_gap or op != "equal"):
            joined[-1] = ("replace", joined[-1][1] + old, joined[-1][2] + new)
        else:
            joined.append((op, old, new))
    return joined


def marked(text: str, words: Collection[str]) -> SafeString:
    """The text with these words (or words that begin with one of four letters or more) marked."""
    wanted = {word.casefold() for word in words if word}
    stems = tuple(word for word in wanted if len(word) >= 4)
    parts: list[str] = []
    for piece in WORD.findall(text):
        folded = piece.casefold()
        hit = folded in wanted or (bool(stems) and folded.startswith(stems))
        parts.append(f"<mark>{visible(piece)}</mark>" if hit else visible(piece))
    return mark_safe("".join(parts))  # noqa: S308  every piece went through visible()
