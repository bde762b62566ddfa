"""Whether a sentence only tells again what is known: by its words, without a model, and rather "no" than a fact lost.

Every word of it that says something stands in clauses of what is known, and it goes through each of them from one end
to the other, or far into it; parts that are nothing but telling ("according to my notes,") and the person aside. A
number, a name, a "not" or somebody's mother that is not known makes it news, and so does leaving one out. So "lives in
Basel" does not restate "her sister lives in Basel". What is told in quite other words is not recognised.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

from agentstate.core import telling, wording
from agentstate.core.extract import sentences_of
from agentstate.core.likeness import DIGIT, guards, singular, stem, tokens_of
from agentstate.core.wording import FILLERS, FRAMING, HEDGES, NEGATIONS, NUMERALS, OTHERS, PREPOSITIONS, REPORTED

COVERED_MIN = 0.5  # share of a clause's words that a restatement goes through from its beginning, or with both its ends
LOOSELY_MIN = 0.75  # the same when it leaves words out in between and does not reach the end

CLAUSE = re.compile(r"[,;:()\[\]•|–—]\s|\s[-*•]\s|[.!?…。！？，、；：]\s*|\band\b|\bbut\b|\bund\b|\baber\b|\n")
# A comma between digits holds a number together, a point or colon between others an address or a time.
PART = re.compile(
    r"(,(?=\s)|[;()\[\]{}<>|•–—\"“”„«»*`\n]+|:(?!\S)|\s[-–]+\s|[.!?…](?=\s|$)|[。！？，、；：]"
    r"|=+>?|\b(?:dass|que|che|namely|because|since|given|while|who|whether)\b"
    r"|\bthat\b(?! (?:in|into|to|for)\b)"
    r"|(?:(?<=\bsays)|(?<=\bsaid)|(?<=\bstates)|(?<=\bshows)|(?<=\bindicates)|(?<=\btells me)|(?<=\btells us))\s+(?=\w)"
    r"|\b(?:look|sound|seem|feel)(?:s|ed)? (?:like|as if)\b)",
    re.IGNORECASE,
)
HYPHEN = re.compile(r"(?<=[^\W\d_])[-_](?=[^\W_])")
LISTED = re.compile(r"^\s*(?:[\[(<][^\])>]{1,40}[\])>]|[#*]?\d{1,2}[.)\]:])\s")
PASSIVE = re.compile(r"\b(?:was|were)(?= (?:\w+ )?\w+ed\b)", re.IGNORECASE)
WISH = re.compile(r"(?:\bwould|['’]d) (?:really )?like\b", re.IGNORECASE)
LETTER = re.compile(r"[^\W\d_]")
# "Right, because you ...": the words that tie a restatement to what is said next.
LEAD = re.compile(
    r"^\W*(?:(?:right|yes|ok|okay|well|so|and|but|hello|hi|dear)\b\W*)*"
    r"(?:since|because|given(?: that)?|as|although|now that|considering(?: that)?|seeing (?:that|as))\b",
    re.IGNORECASE,
)
INTRODUCING = (" that ", ": ", ":**")
INTRODUCTION_MAX = 8  # words
TAG = re.compile(r"</?[a-z][^<>]{0,40}>", re.IGNORECASE)
DROPPED = FILLERS | FRAMING | PREPOSITIONS | frozenset(("can", "should", "go", "goes", "going", "but", "any"))
PAST = ("was", "were", "had")
TOWARD = re.compile(r"\bto(?= [A-Z0-9])")  # "to London", unlike "to be called"
FRAME = re.compile(
    r"\b(as|like|what) (you|i|we|they)( \w+){0,3} (before|earlier|previously|last time)\b|, as (always|usual|ever)\b"
    r"|\b(last time|from (what|all)|by the way|not forget)\b"
    r"|\b(from|in|during|since) (our|your|the|an?|my) (previous|earlier|last|former|past|prior|first)"
    r" (conversation|chat|session|message|call|talk|discussion|interaction|exchange)s?\b",
    re.IGNORECASE,
)
TOLD = (frozenset(map(stem, telling.WORDS)) | telling.WORDS | FILLERS | FRAMING | PREPOSITIONS | HEDGES) - NEGATIONS
TELLS = frozenset(map(stem, telling.TELLS - telling.VAGUE))
SAYING = frozenset(map(stem, telling.SAYING))
ACTING = frozenset(map(stem, telling.VERBS)) - SAYING
NOUNS = frozenset(map(stem, telling.NOUNS))
LABELS = frozenset(map(stem, telling.LABELS))
PROMISED = frozenset(map(stem, telling.PROMISED))
RECORDS = frozenset(map(stem, telling.RECORDS))
KEPT = frozenset(map(stem, telling.KEPT))
ACTORS = frozenset(("you", "she", "he", "they", "user", "customer", "client", "caller"))
OURS = frozenset(("i", "we", "me", "us", "my", "our", "let", "let's", "here", "this", "it"))
TOWARDS = PREPOSITIONS | frozenset(
    ("of", "from", "the", "tell", "told", "remind", "meet", "thank", "see", "hear", "help")
)
# A verb that a retelling leaves out: "a translator for the court" for "works as a translator for the court".
LIGHT = frozenset(map(stem, ("work", "live", "get", "make", "take", "speak", "want", "prefer", "like", "need", "pay")))
ENDINGS = wording.ENDINGS
ROOT_CHARS_MIN = 4
PERSON = frozenset(("you", "your", "she", "he", "they", "her", "his", "their", "user", "customer", "client", "caller"))
# What begins with one of these may bind a statement to a place, a time or a condition.
PLACING = PREPOSITIONS - {"to"} | {
    "after",
    "when",
    "while",
    "if",
    "where",
    "during",
    "without",
    "of",
    "as",
    "under",
    "near",
}
BEGIN_TERMS = 2
IDLE_MAX = 3  # words
PUNCTUATION = ".,:;!?\"'"
TERMS_MIN = 2  # of a clause that has as many


@dataclass(frozen=True, slots=True)
class Clause:
    """A part of something known, through which a restatement goes."""

    terms: tuple[str, ...]
    guard: frozenset[str]
    roots: frozenset[str]  # how its terms begin: a quick "none of them"
    source: str  # whose words these are


def clauses(text: str, *, source: str, names: Collection[str] = ()) -> list[Clause]:
    """What of a known text can be restated. `names`: words for whom it is about, in lower case."""
    found = []
    for sentence in sentences_of(text):
        for part in CLAUSE.split(sentence):
            terms = _said(part, names)
            if terms:
                found.append(Clause(terms, frozenset(filter(guards, terms)), _roots(terms), source))
    return found


def restated(sentence: str, known: Iterable[Clause], *, names: Collection[str] = (), by_person: bool = False) -> str:
    """The source of which this sentence only says again what it says; "" when it says something of its own.

    `by_person`: the sentence is the person's, so "I" is who it is about, not who tells it again.
    """
    clauses_known = list(known)
    known_terms = frozenset(term for clause in clauses_known for term in clause.terms)
    for reading in _readings(sentence, names, by_person, known_terms):
        source = _restated(_said(reading, names), clauses_known, is_ours=not by_person and _is_ours(reading))
        if source:
            return source
    return ""


def says_something(sentence: str, *, names: Collection[str] = (), by_person: bool = False) -> bool:
    """More than telling or the number of a list: "Understood." alone is nothing to remember, nor is our question."""
    if not by_person and sentence.rstrip().endswith("?"):
        return False
    said = " ".join(_untold(sentence, names, by_person))
    return any(LETTER.search(term) for term in _said(said, names))


def _readings(sentence: str, names: Collection[str], by_person: bool, known: Collection[str]) -> Iterator[str]:
    """The sentence, and what is left of it without the words that only introduce: "since ...", "note well that ..."."""
    yield sentence
    plain = LEAD.sub(" ", sentence, count=1)
    yield " , ".join(_untold(plain, names, by_person, known))
    for mark in INTRODUCING:
        head, found, tail = plain.partition(mark)
        if found and _introduces(head, names):
            yield " , ".join(_untold(tail, names, by_person, known))


def _untold(text: str, names: Collection[str], by_person: bool, known: Collection[str] | None = None) -> list[str]:
    """The parts of a sentence that are more than telling. `known`: with it, an introduction may have idle words."""
    left: list[str] = []
    for part in PART.split(TAG.sub(" ", LISTED.sub(" ", text)))[::2]:
        if part.strip() and not _only_tells(part, names, is_behind=bool(left), by_person=by_person, known=known):
            left.append(part)
    return left


def _only_tells(
    part: str, names: Collection[str], *, is_behind: bool, by_person: bool, known: Collection[str] | None
) -> bool:
    """`is_behind`: what stands behind a statement may be another one, so its verbs must be of saying, or ours."""
    spoken = telling.GREETING.sub(" ", telling.ASSERTING.sub(" ", FRAME.sub(" ", part)))
    terms = [term if term in TOLD else term.partition("'")[0] for term in tokens_of(HYPHEN.sub(" ", spoken))]
    plain = [term for term in terms if term not in names and not _counts(term)]
    stems, ours = set(map(stem, plain)), not by_person and any(map(_is_us, plain))
    news = [term for term in plain if not _is_told(term) and (is_behind or stem(term) not in LABELS)]
    if news and (known is None or not _are_idle(news, part, known) or (is_behind and not _we_go_on(part, stems))):
        return False
    if len(plain) < len([term for term in terms if term not in names]) and not stems & TELLS:
        return False
    if _has_person_acting(terms, names, by_person) or (is_behind and stems & ACTING and not ours):
        return bool(stems & SAYING) or (ours and not is_behind)
    return not news or ours or bool(stems & (SAYING | RECORDS)) or terms[0] not in PLACING


def _counts(term: str) -> bool:
    return bool(DIGIT.search(term)) or (term in NUMERALS and term not in telling.MANNER)


def _we_go_on(part: str, stems: set[str]) -> bool:
    """ "So I will pick this one": what we do next, unless it is something that we promise."""
    return telling.GOING_ON.match(part) is not None and not stems & PROMISED


def _are_idle(words: Sequence[str], part: str, known: Collection[str]) -> bool:
    """A few words of an introduction that stand in no list: no name, nothing known, nothing that guards."""
    named = {word.strip(PUNCTUATION).casefold() for word in part.split() if word[0].isupper()}
    return len(words) <= IDLE_MAX and not any(
        word in named or stem(word) in known or guards(word) or singular(word) in OTHERS for word in words
    )


def _has_person_acting(terms: Sequence[str], names: Collection[str], by_person: bool) -> bool:
    """Whether the person is the one who does something, beyond being told, known or asked."""
    actors = ACTORS | {"i", "we"} if by_person else ACTORS
    before = ["", *terms]
    return any(
        (term in actors or term in names) and before[place] not in TOWARDS and _is_verb(terms, place + 1)
        for place, term in enumerate(terms)
    )


def _is_verb(terms: Sequence[str], place: int) -> bool:
    """As far as words tell: "user fact" is no act of a user."""
    return place < len(terms) and stem(terms[place]) not in NOUNS and not DIGIT.search(terms[place])


def _is_ours(reading: str) -> bool:
    """Whether it begins with us, our notes, or an "it" that stands for nothing: "it sounds like", "I was told"."""
    begin = tokens_of(reading)[:BEGIN_TERMS]
    return any(_is_us(term) or stem(term) in RECORDS for term in begin)


def _is_us(term: str) -> bool:
    return term.partition("'")[0] in OURS


def _is_told(term: str) -> bool:
    return term in TOLD or (not guards(term) and stem(term) in TOLD)


def _introduces(head: str, names: Collection[str]) -> bool:
    """A few plain words before "that" or a colon: no name, no number, no "not", nobody else's mother.

    What the person feels about it ("she regrets that") is news.
    """
    spoken = head.split()
    own = [word for word in spoken[1:] if word[0].isupper() and word.casefold() not in names and word != "I"]
    terms = [term for term in tokens_of(head) if term not in HEDGES]
    is_plain = not any(guards(term) or singular(term) in OTHERS for term in terms)
    if len(spoken) > INTRODUCTION_MAX or own or not is_plain or not terms:
        return False
    return all(_is_told(term) or term in names for term in terms) or (
        _is_told(terms[0]) and not any(term in PERSON or term in names for term in terms)
    )


def _restated(said: Sequence[str], known: Sequence[Clause], *, is_ours: bool) -> str:
    if not said:
        return ""
    roots = {term[:ROOT_CHARS_MIN]: term for term in said}
    every = frozenset(said)
    covering = [clause for clause in known if _goes_through(every, roots, clause)]
    told = {term for clause in covering for term in clause.terms}
    if not told:
        return ""
    stands = [term in told or _is_of_one_root(term, told) for term in said]
    if not any(stands):
        return ""
    first, last = stands.index(True), len(stands) - 1 - stands[::-1].index(True)
    before, behind = said[:first], said[last + 1 :]
    idle = [term for term in before if not _is_told(term) and not _counts(term)]
    if not all(stands[first : last + 1]) or (before and not is_ours) or not _are_idle(idle, "", told):
        return ""
    if not set(behind) <= KEPT:
        return ""
    return max(covering, key=lambda clause: len(set(said) & set(clause.terms))).source


def _goes_through(said: frozenset[str], roots: dict[str, str], clause: Clause) -> bool:
    """From the clause's beginning far into it, or with both its ends; nothing that guards is left out."""
    if clause.roots.isdisjoint(roots) or not clause.guard <= said:
        return False
    stands = [term in said or _alike(term, roots.get(term[:ROOT_CHARS_MIN], "")) for term in clause.terms]
    while len(stands) > 1 and not stands[0] and clause.terms[len(clause.terms) - len(stands)] in LIGHT:
        stands = stands[1:]
    if not stands[0]:
        return False
    run = next((place for place, is_there in enumerate(stands) if not is_there), len(stands))
    found, is_straight = sum(stands), sum(stands) == run or stands[-1]
    share = COVERED_MIN if is_straight else LOOSELY_MIN
    return found >= max(share * len(stands), min(TERMS_MIN, len(stands)))


def _roots(terms: Iterable[str]) -> frozenset[str]:
    return frozenset(term[:ROOT_CHARS_MIN] for term in terms)


def _is_of_one_root(term: str, told: Collection[str]) -> bool:
    return any(_alike(term, other) for other in told)


def _alike(one: str, other: str) -> bool:
    """Two forms of one word: allergy and allergic, translator and translate."""
    if one == other:
        return True
    if not (one.isalpha() and other.isalpha()) or guards(one) or guards(other):
        return False
    shared = next((at for at, (mine, theirs) in enumerate(zip(one, other, strict=False)) if mine != theirs), None)
    shared = min(len(one), len(other)) if shared is None else shared
    return shared >= ROOT_CHARS_MIN and one[shared:] in ENDINGS and other[shared:] in ENDINGS


def _said(text: str, names: Collection[str]) -> tuple[str, ...]:
    """The roots of what a sentence says, in their order, each once."""
    plain = PASSIVE.sub(" ", WISH.sub(" want", FRAME.sub(" ", TAG.sub(" ", text))))
    tokens = [token.partition("'")[0] or token for token in tokens_of(TOWARD.sub("toward", plain))]
    is_reported = any(token in REPORTED for token in tokens)
    left = [token for token in tokens if token not in DROPPED and token not in names]
    if is_reported:
        left = [token for token in left if token not in PAST]
    return tuple(dict.fromkeys(map(_root, left)))


def _root(term: str) -> str:
    """Payment and pay, no and not."""
    if term.endswith("ment") and len(term) >= ROOT_CHARS_MIN + 3:
        return stem(term.removesuffix("ment"))
    return "not" if term == "no" else stem(term)
