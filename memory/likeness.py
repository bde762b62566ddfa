"""Whether two statements say the same: by their words, without a model, and rather "no" than a fact lost.

Near: the shorter one's words all stand in the longer one, in the same order, and are at least NEAR_MIN of it; a word
exchanged for another is never near, nor are statements whose numbers, dates, negations or qualifiers differ.
Restated: every word of a sentence that says something stands in clauses which that sentence goes through from their
beginning, framing ("as you told me earlier") and person aside. So "lives in Basel" does not restate "her sister lives
in Basel". What is told in quite other words is not recognised.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from agentstate.core.extract import UNSPACED, sentences_of
from memory.wording import FILLERS, FRAMING, HEDGES, NEGATIONS, NUMERALS, OTHERS, PREPOSITIONS, QUALIFIERS, REPORTED

NEAR_MIN = 0.8  # share of the longer statement's words
COVERED_MIN = 0.6  # share of a clause's words that a restatement goes through from its beginning
LOOSELY_MIN = 0.75  # the same when it leaves a word out in between

TOKEN = re.compile(r"[^\W_]+(?:[@.,:/+_'’-]+[^\W_]+)*")
CLAUSE = re.compile(r"[,;:()\[\]•|–—]\s|\s[-*•]\s|[.!?…。！？，、；：]\s*|\band\b|\bbut\b|\bund\b|\baber\b|\n")
LETTER = re.compile(r"[^\W\d_]")
# "Since you ...", "Right, because you ...": the words that tie a restatement to what is said next.
LEAD = re.compile(
    r"^\W*(?:(?:right|yes|ok|okay|well|so|and|but|hello|hi|dear)\b\W*)*"
    r"(?:since|because|given(?: that)?|as|although|now that|considering(?: that)?|seeing that)\b",
    re.IGNORECASE,
)
WILL = re.compile(r",\s*(?:and |so |then )?(?:I|we)(?: can| will| could|['’]ll|['’]d)\b.*$", re.IGNORECASE)
INTRODUCING = (" that ", ": ", ":**")
INTRODUCTION_MAX = 8  # words
TAG = re.compile(r"</?[a-z][^<>]{0,40}>", re.IGNORECASE)
DIGIT = re.compile(r"\d")
DROPPED = FILLERS | FRAMING | PREPOSITIONS
PAST = ("was", "were", "had")
DOES = ("do", "does", "doe", "did")  # comes with a "not" ("doe": without its s)
TOWARD = re.compile(r"\bto(?= [A-Z0-9])")  # "to London", unlike "to be called"
FRAME = re.compile(
    r"\b(as|like|what) (you|i|we|they)( \w+){0,3} (before|earlier|previously|last time)\b|, as (always|usual|ever)\b"
    r"|\b(last time|from (what|all)|by the way|not forget)\b"
    r"|\b(from|in|during|since) (our|your|the|an?|my) (previous|earlier|last|former|past|prior|first)"
    r" (conversation|chat|session|message|call|talk|discussion|interaction|exchange)s?\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Words:
    """A statement as it is compared. `terms` in their order, fillers left out."""

    terms: tuple[str, ...]
    guard: tuple[str, ...]  # numbers, dates, negations, qualifiers; sorted, each as often as it stands there


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of something known, by whose beginning a restatement is recognised."""

    terms: tuple[str, ...]
    guard: frozenset[str]
    source: str  # whose words these are


def words(text: str) -> Words:
    terms = tuple(term for term in _tokens(text) if term not in FILLERS)
    return Words(tuple(map(_singular, terms)), tuple(sorted(term for term in terms if _guards(term))))


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
    plain = [tuple(term for term in each.terms if not _guards(term) and term not in DOES) for each in (one, other)]
    short, long = sorted(plain, key=len)
    return len(short) > 1 and len(short) >= NEAR_MIN * len(long) and _is_subsequence(short, long)


def clauses(text: str, *, source: str, names: Collection[str] = ()) -> list[Clause]:
    """What of a known text can be restated. `names`: words for whom it is about, in lower case."""
    found = []
    for sentence in sentences_of(text):
        for part in CLAUSE.split(sentence):
            terms = _said(part, names)
            if terms:
                found.append(Clause(terms, frozenset(filter(_guards, terms)), source))
    return found


def restated(sentence: str, known: Iterable[Clause], *, names: Collection[str] = ()) -> str:
    """The source of which this sentence only says again what it says; "" when it says something of its own."""
    clauses_known = list(known)
    for reading in _readings(sentence, names):
        source = _restated(frozenset(_said(reading, names)), clauses_known)
        if source:
            return source
    return ""


def says_something(sentence: str, *, names: Collection[str] = ()) -> bool:
    """More than framing or the number of a list: "Understood." alone is nothing to remember."""
    return any(LETTER.search(term) for term in _said(sentence, names))


def _readings(sentence: str, names: Collection[str]) -> Iterator[str]:
    """The sentence, and what is left of it without the words that only introduce: "since ...", "note well that ..."."""
    yield sentence
    plain = WILL.sub("", LEAD.sub(" ", sentence, count=1))
    if plain != sentence:
        yield plain
    for mark in INTRODUCING:
        head, found, tail = plain.partition(mark)
        if found and _introduces(head, names):
            yield tail


def _introduces(head: str, names: Collection[str]) -> bool:
    """A few plain words before "that" or a colon: no name, no number, no "not", and nobody else's mother."""
    spoken = head.split()
    own = [word for word in spoken[1:] if word[0].isupper() and word.casefold() not in names and word != "I"]
    terms = [term for term in _tokens(head) if term not in HEDGES]
    return (
        len(spoken) <= INTRODUCTION_MAX
        and not own
        and not any(_guards(term) or _singular(term) in OTHERS for term in terms)
    )


def _restated(said: Collection[str], known: Sequence[Clause]) -> str:
    if not said:
        return ""
    covering = [clause for clause in known if _goes_through(said, clause)]
    told = {term for clause in covering for term in clause.terms}
    if not set(said) <= told:
        return ""
    return max(covering, key=lambda clause: len(set(said) & set(clause.terms))).source


def _goes_through(said: Collection[str], clause: Clause) -> bool:
    """From the clause's beginning far into it; nothing that guards is left out."""
    if clause.terms[0] not in said or not clause.guard <= set(said):
        return False
    run = next((place for place, term in enumerate(clause.terms) if term not in said), len(clause.terms))
    found = sum(term in said for term in clause.terms)
    return found >= (COVERED_MIN if found == run else LOOSELY_MIN) * len(clause.terms)


def _said(text: str, names: Collection[str]) -> tuple[str, ...]:
    """The stems of what a sentence says, in their order, each once."""
    tokens = _tokens(TOWARD.sub("toward", FRAME.sub(" ", TAG.sub(" ", text))))
    is_reported = any(token in REPORTED for token in tokens)
    left = [token for token in tokens if token not in DROPPED and token not in names]
    if is_reported:
        left = [token for token in left if token not in PAST]
    return tuple(dict.fromkeys(map(_stem, left)))


def _tokens(text: str) -> list[str]:
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


def _guards(term: str) -> bool:
    return bool(DIGIT.search(term)) or "@" in term or term in NEGATIONS or term in QUALIFIERS or term in NUMERALS


def _singular(term: str) -> str:
    return term[:-1] if len(term) > 3 and term.endswith("s") and not term.endswith("ss") and term.isalpha() else term


def _stem(term: str) -> str:
    if not (term.isascii() and term.isalpha()) or len(term) < 4 or _guards(term):
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
