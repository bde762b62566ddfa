"""Whether two statements say the same: by their words, without a model, and rather "no" than a fact lost.

Near: the shorter one's words all stand in the longer one, in the same order, and are at least NEAR_MIN of it; a word
exchanged for another is never near, nor are statements whose numbers, dates, negations or qualifiers differ.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from agentstate.core.extract import UNSPACED
from agentstate.core.wording import FILLERS, FRAMING, NEGATIONS, NUMERALS, QUALIFIERS

NEAR_MIN = 0.8  # share of the longer statement's words
TOKEN = re.compile(r"[^\W_]+(?:[@.,:/+_'’-]+[^\W_]+)*")
DIGIT = re.compile(r"\d")
DOES = ("do", "does", "doe", "did")  # comes with a "not" ("doe": without its s)


@dataclass(frozen=True, slots=True)
class Words:
    """A statement as it is compared. `terms` in their order, fillers left out."""

    terms: tuple[str, ...]
    guard: tuple[str, ...]  # numbers, dates, negations, qualifiers; sorted, each as often as it stands there


def words(text: str) -> Words:
    terms = tuple(term for term in tokens_of(text) if term not in FILLERS)
    return Words(tuple(map(singular, terms)), tuple(sorted(term for term in terms if guards(term))))


def is_near(one: Words, other: Words) -> bool:
    """Whether both are one statement, told once with a little more."""
    short, long = sorted((one.terms, other.terms), key=len)
    if one.guard != other.guard or not short:
        return False
    return len(short) >= NEAR_MIN * len(long) and _is_subsequence(short, long)


def differs_in_guard(one: Words, other: Words) -> bool:
    """Whether both are nearly the same words with another number, date or negation: they may contradict."""
    if one.guard == other.guard:
        return False
    plain = [tuple(term for term in each.terms if not guards(term) and term not in DOES) for each in (one, other)]
    short, long = sorted(plain, key=len)
    return len(short) > 1 and len(short) >= NEAR_MIN * len(long) and _is_subsequence(short, long)


def tokens_of(text: str) -> list[str]:
    folded = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    folded = folded.replace("can't", "can not").replace("cannot", "can not").replace("won't", "will not")
    folded = folded.replace("n't", " not")
    tokens: list[str] = []
    for run in UNSPACED.findall(folded):
        tokens += [run[at : at + 2] for at in range(max(1, len(run) - 1))]
        tokens += [char for char in run if char in NEGATIONS]
    for token in TOKEN.findall(UNSPACED.sub(" ", folded)):
        tokens += _parts(token)
    return tokens


def _parts(token: str) -> list[str]:
    """One token, or those that only a comma or slash held together."""
    if token in FRAMING:
        return [token]
    token = re.sub(r"(?<=\d),(?=\d{3}\b)", "", token)
    pieces = re.split(r"[,]+", token) if not DIGIT.search(token) else [token]
    return [_joined(piece.removesuffix("'s").strip("'")) for piece in pieces if piece]


def _joined(token: str) -> str:
    """E-mail is email; an address, a number or a date stays as it is."""
    return token.replace("-", "") if not DIGIT.search(token) and "@" not in token else token


def guards(term: str) -> bool:
    return bool(DIGIT.search(term)) or "@" in term or term in NEGATIONS or term in QUALIFIERS or term in NUMERALS


def singular(term: str) -> str:
    return term[:-1] if len(term) > 3 and term.endswith("s") and not term.endswith("ss") and term.isalpha() else term


def stem(term: str) -> str:
    if not (term.isascii() and term.isalpha()) or len(term) < 4 or guards(term):
        return term
    for suffix in ("ing", "ed", "es", "s"):
        if term.endswith(suffix) and len(term) - len(suffix) >= 3:
            term = term[: -len(suffix)]
            break
    if term.endswith("e") and len(term) > 3:
        term = term[:-1]
    return term[:-1] if len(term) > 3 and term[-1] == term[-2] and term[-1] not in "ls" else term


def _is_subsequence(short: Sequence[str], long: Sequence[str]) -> bool:
    left = iter(long)
    return all(term in left for term in short)
