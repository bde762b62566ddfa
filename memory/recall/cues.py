"""What a question names: one author of the subject, months. Plain rules, no model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np

from memory import months
from memory.recall import words
from memory.recall.ranking import Booleans, Cues, Units

LONG = months.numbers(months.LONG)
SHORT = months.numbers(months.SHORT)
# "may" and "march" are verbs too, "mars" a planet, "sept" seven, "mar" and "dec" may be anything: those need a word
# before, a day or year beside them, or, the English ones, a capital inside the sentence.
AMBIGUOUS = months.AMBIGUOUS | (SHORT.keys() - LONG.keys())
LANGUAGES = months.languages()
_NAMES = "|".join(sorted({*LONG, *SHORT}, key=len, reverse=True))
_BEFORE = "|".join(months.before())
NAMED = re.compile(
    rf"(?:(?P<day_before>\b\d{{1,2}})(?:\.|er|re|º|°|st|nd|rd|th)?\s+(?:de\s+|of\s+|di\s+)?)?"
    rf"(?:\b(?P<before>{_BEFORE})(?:[\s-]+|(?<=')))?\b(?P<name>{_NAMES})\b\.?"
    r"(?P<day>\s+\d{1,2}(?:st|nd|rd|th)?\b(?!\d))?(?:\s*,?\s*(?:(?:of|de|del|do)\s+)?(?P<year>(?:19|20)\d\d)\b)?",
    re.IGNORECASE,
)
ANY = re.compile(rf"\b(?:{_NAMES})\b", re.IGNORECASE)  # NAMED takes far longer to find nothing
INSIDE = re.compile(r"[\w,;:]['\")]?\s+$")  # what stands before a word that does not begin its sentence
NUMBERED = re.compile(
    r"(?<![\d/.-])(?:(?P<year>(?:19|20)\d\d)-(?P<month>0[1-9]|1[0-2])(?!\d)"
    r"|(?P<month_first>0?[1-9]|1[0-2])[/.](?P<year_last>(?:19|20)\d\d)(?!\.?\d)"
    r"|(?:0?[1-9]|[12]\d|3[01])\.(?P<month_dotted>0?[1-9]|1[0-2])\.(?P<year_dotted>(?:19|20)\d\d)(?!\d))"
)
NAME_CHARS_MIN = 2

Month = tuple[int | None, int]  # year, if it is named, and month from 1


def found(question: str, units: Units, *, authors: Mapping[int, str]) -> Cues:
    """`authors`: number -> name, of the subject."""
    return Cues(_of_author(units, named_author(question, authors)), _of_months(units, named_months(question)))


def named_author(question: str, authors: Mapping[int, str]) -> int | None:
    """The number of the author whose name, or first name, stands in the question: when it is exactly one."""
    asked = f" {_spaced(question)} "
    named = {number for number, name in authors.items() if any(f" {form} " in asked for form in _forms(name))}
    return named.pop() if len(named) == 1 else None


def named_months(question: str) -> list[Month]:
    """The months a question names, each with the year beside it, else the only year that the question names."""
    years = {int(year) for year in re.findall(r"\b((?:19|20)\d\d)\b", question)}
    year = years.pop() if len(years) == 1 else None
    found: list[Month] = [_numbered(hit) for hit in NUMBERED.finditer(question)]
    for hit in NAMED.finditer(question) if ANY.search(question) else ():
        name = hit["name"].lower()
        if name not in AMBIGUOUS or _is_a_month(hit, question):
            found.append((int(hit["year"]) if hit["year"] else year, LONG.get(name) or SHORT[name]))
    return found


def _numbered(hit: re.Match[str]) -> Month:
    """2026-03, 03/2026 and 3.2026, 14.3.2026: what another place could read as a day is left out (03/04/2026)."""
    year = hit["year"] or hit["year_last"] or hit["year_dotted"]
    return int(year), int(hit["month"] or hit["month_first"] or hit["month_dotted"])


def _is_a_month(hit: re.Match[str], question: str) -> bool:
    name, before = hit["name"].lower(), (hit["before"] or "").lower()
    if hit["day"] or hit["day_before"] or hit["year"] or (before and LANGUAGES[before] & LANGUAGES[name]):
        return True
    is_inside = INSIDE.search(question[: hit.start("name")]) is not None
    return "en" in LANGUAGES[name] and hit["name"][0].isupper() and is_inside


def _forms(name: str) -> list[str]:
    spaced = _spaced(name)
    return [form for form in {spaced, spaced.partition(" ")[0]} if len(form) >= NAME_CHARS_MIN]


def _spaced(text: str) -> str:
    return " ".join(re.findall(r"\w+", words.folded(text)))


def _of_author(units: Units, number: int | None) -> Booleans | None:
    # An item has no author; its number is 0, and those of authors begin at 1.
    return (units.author == number) if number else None


def _of_months(units: Units, months: list[Month]) -> Booleans | None:
    if not months:
        return None
    wanted, sent = set(months), [datetime.fromtimestamp(at, UTC) for at in units.sent_at]
    return np.array([(None, at.month) in wanted or (at.year, at.month) in wanted for at in sent], dtype=bool)
