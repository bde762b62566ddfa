"""Texts of others on a page: harmless whatever they contain, and compared word by word."""

from __future__ import annotations

import re

import pytest

from agentstate.web import prose

LINK = r'<a( href="(https?://|mailto:)[^"<>]*")? rel="noopener noreferrer nofollow">'
HARMLESS = re.compile(rf"</?(p|em|strong|code|pre|blockquote|ul|ol|li|hr|br|h[2-6])>|{LINK}|</a>")


@pytest.mark.parametrize(
    "hostile",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "![x](https://example.test/pixel.png)",
        "[click](javascript:alert(1))",
        "[click](data:text/html,<script>alert(1)</script>)",
        '[a](https://example.test "x\\" onmouseover=\\"alert(1)")',
        "<style>body{display:none}</style>",
        "```html\n<script>alert(1)</script>\n```",
        "<a href='https://example.test' style='position:fixed'>x</a>",
        "[x][1]\n\n[1]: <javascript:alert(1)>",
    ],
)
def test_markdown_lets_nothing_through_that_runs_loads_or_dresses(hostile: str) -> None:
    html = prose.markdown(hostile)
    assert [part for part in prose.TAG.split(html) if part.startswith("<") and not HARMLESS.fullmatch(part)] == []


def test_markdown_shows_what_cannot_be_seen_and_hides_what_is_secret() -> None:
    html = prose.markdown("pay\u202eevil\u200b and `a\u202eb` with sk-abcdefghijklmnopqrstuvwx")
    assert html.count('class="inv"') == 3 and "\u202e" not in html and "\u200b" not in html
    assert "abcdefghijklmnop" not in html and "hidden: API key" in html


def test_headings_follow_the_pages_title_without_gaps() -> None:
    html = prose.markdown("### Goal\n\n##### Deep\n\n# Top\n\n###### End")
    assert [part for part in prose.TAG.split(html) if part.startswith("<h")] == ["<h2>", "<h3>", "<h2>", "<h3>"]


def test_a_deeply_nested_text_ends() -> None:
    assert len(prose.markdown("> " * 5_000 + "x")) < 100_000
    assert len(prose.markdown("[" * 20_000)) < 200_000


def test_changes_are_told_word_by_word_and_escaped() -> None:
    before, after = "Never phone before 10:00", "Never phone before 11:00 <b>"
    assert prose.changes(before, after) == "Never phone before <del>10</del> <ins>11</ins>:00<ins> &lt;b&gt;</ins>"
    assert prose.changes(before, after, side="before") == "Never phone before <del>10</del>:00"
    assert "<del>" not in prose.changes(before, after, side="after")
    assert "<ins>" not in prose.changes("same", "same") and prose.changes("", "") == ""


def test_texts_with_little_in_common_are_not_cut_into_words() -> None:
    html = prose.changes("Never phone before 10:00.", "May be phoned from 8:00 on.")
    assert html == "<del>Never phone before 10:00.</del> <ins>May be phoned from 8:00 on.</ins>"
    near = prose.changes("We sent one red lamp by post today", "We sent two blue lamps by post today")
    assert near == "We sent <del>one red lamp</del> <ins>two blue lamps</ins> by post today"
    assert prose.changes("", "new") == "<ins>new</ins>" and prose.changes("old", "") == "<del>old</del>"


def test_a_comparison_of_long_texts_is_bounded() -> None:
    before, after = "word " * 3_000, "other " * 3_000
    html = prose.changes(before, after)
    assert html.startswith("<del>") and html.count("<ins>") == 1


def test_found_words_are_marked_and_the_rest_is_escaped() -> None:
    html = prose.marked("Lamps & <lamp> for Ünal", ["lamp", "ünal", ""])
    assert html == "<mark>Lamps</mark> &amp; &lt;<mark>lamp</mark>&gt; for <mark>Ünal</mark>"
    assert prose.marked("on only", ["on"]) == "<mark>on</mark> only"
