"""The words of a text as Postgres searches them, in the way that a tenant has chosen.

plain: lexemes of the tenant's language. blind: each lexeme as an HMAC under the tenant's key, so that nobody without it
can try words. off: none. A question's words go the same way as those that are stored, so both meet.

What a unit keeps is no text: nine bytes a lexeme, the beginning of its digest and how often it occurs. A search reads
them by the thousand, and numpy compares numbers; a tsvector would be unpacked row by row.

Scripts that put no spaces between words become pairs of neighbouring characters: a word is found inside a sentence
without knowing where it begins.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from agentstate.core.limits import INDEXED_CHARS_MAX, QUESTION_LEXEMES_MAX
from agentstate.db import sql
from agentstate.tenants import keyring
from agentstate.tenants.scope import current_tenant
from memory import policies

# Han, kana, Bopomofo, Hangul; Thai, Lao, Burmese, Khmer: no spaces, or words glued to their endings.
UNSPACED = (
    "\u3005-\u3007\u3040-\u30ff\u3105-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
    "\u1100-\u11ff\uac00-\ud7af\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"
)
RUN = re.compile(f"[{UNSPACED}]+")
HAN = re.compile("[\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
ACCENTED = re.compile("([a-z])[\u0300-\u036f]+")
UNWRITTEN = re.compile("[\u0640\u064b-\u0652\u0591-\u05bd\u05bf-\u05c7\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
BLIND_BYTES = 9  # 72 bits: two lexemes of one tenant do not meet by chance
POSITION_MAX = 16_383  # of a tsvector
POSITIONS_MAX = 256  # of one lexeme there
DIGEST_BYTES, OFTEN_MAX = 8, 255
ENTRY_BYTES = DIGEST_BYTES + 1
# A tsvector as a unit keeps it; null when it holds nothing.
PACKED = f"""(SELECT string_agg(substr(sha256(convert_to(x.lexeme, 'UTF8')), 1, {DIGEST_BYTES})
  || substr(int4send(least(cardinality(x.positions), {OFTEN_MAX})), 4, 1), '') FROM unnest({{terms}}) x)"""
# For each language that a tenant may have chosen: which one is known only when the answer comes. One value, for whoever
# asks for other things in the same statement: "english reorder", in the order of the question.
ASKED = f"""
SELECT array_agg(c.name || ' ' || x.lexeme ORDER BY c.name, x.positions[1], x.lexeme)
FROM unnest('{{{",".join(policies.LANGUAGES)}}}'::text[]) AS c (name),
  unnest(to_tsvector(c.name::regconfig, %(words)s) || %(pairs)s::tsvector) AS x"""
_LEXEMES = """
SELECT t.n, x.lexeme, x.positions FROM unnest(%s::text[], %s::text[]) WITH ORDINALITY AS t (words, pairs, n),
  unnest(to_tsvector(%s::regconfig, t.words) || t.pairs::tsvector) AS x ORDER BY t.n, x.positions[1], x.lexeme"""

Lexemes = list[tuple[str, list[int]]]  # each with its positions, in the order of their first


@dataclass(frozen=True, slots=True)
class Wording:
    """How a tenant's words are kept. `config`: Postgres' text search configuration."""

    mode: policies.FullText
    config: str


@dataclass(frozen=True, slots=True)
class Terms:
    """What an INSERT packs: to_tsvector(config, words) || literal. Both None when full text is off."""

    words: str | None
    literal: str | None


@dataclass(frozen=True, slots=True)
class AskedWords:
    """A question's lexemes: as they stand in the tables (`stored`), and beside them as people read them."""

    stored: list[str]
    readable: list[str]
    is_off: bool = False  # the tenant keeps no words

    @property
    def digests(self) -> list[int]:
        """As they stand in a unit's words."""
        return [digest(lexeme) for lexeme in self.stored]


def wording() -> Wording:
    """One query."""
    return of_policy(policies.for_tenant())


def of_policy(policy: policies.TenantPolicy) -> Wording:
    return Wording(policy.fulltext, policy.language)


def terms(texts: Sequence[str], how: Wording) -> list[Terms]:
    """What to store for each text. blind: one query for all of them."""
    if how.mode == "off":
        return [Terms(None, None) for _ in texts]
    parts = [prepared(text) for text in texts]
    if how.mode == "plain":
        return [Terms(words, literal(pairs)) for words, pairs in parts]
    blinded = _blinding()
    found = lexemes_of(parts, how.config)
    return [Terms("", literal((blinded(lexeme), positions) for lexeme, positions in one)) for one in found]


def asked(question: str, how: Wording) -> AskedWords:
    """The first QUESTION_LEXEMES_MAX lexemes of a question. One query."""
    (found,) = sql.rows(ASKED, asking(question))
    return of_question(found[0], how)


def asking(question: str) -> dict[str, Any]:
    """The arguments of ASKED, whose value of_question() reads."""
    text, pairs = prepared(question)
    return {"words": text, "pairs": literal(pairs)}


def of_question(found: Sequence[str] | None, how: Wording) -> AskedWords:
    if how.mode == "off":
        return AskedWords([], [], is_off=True)
    parts = (each.partition(" ") for each in found or ())
    readable = [lexeme for language, _, lexeme in parts if language == how.config][:QUESTION_LEXEMES_MAX]
    return AskedWords(list(map(_blinding(), readable)) if how.mode == "blind" else readable, readable)


def digest(lexeme: str) -> int:
    """Of a lexeme as it is stored (blind: of what stands for it)."""
    return int.from_bytes(hashlib.sha256(lexeme.encode()).digest()[:DIGEST_BYTES], "little")


def blind(lexeme: str) -> str:
    """What stands for this lexeme in a blind table of this tenant."""
    return _blinding()(lexeme)


def folded(text: str) -> str:
    """One form for what looks the same: NFKC, lower case, Latin letters without accents, no marks that are not read."""
    if text.isascii():
        return text.lower()
    text = UNWRITTEN.sub("", unicodedata.normalize("NFKC", text).lower())
    text = ACCENTED.sub(r"\1", unicodedata.normalize("NFD", text))
    return unicodedata.normalize("NFC", text)


def pairs_of(text: str) -> Lexemes:
    """Pairs of neighbours in unspaced scripts, and each Han character, a word by itself; as far as positions reach."""
    found: dict[str, list[int]] = {}
    position = 0
    for run in RUN.findall(text):
        for at in range(min(len(run), POSITION_MAX - position)):
            position += 1
            grams = [run[at : at + 2]] if at + 1 < len(run) or len(run) == 1 else []
            if HAN.match(run[at]) and len(run) > 1:
                grams.append(run[at])
            for gram in grams:
                found.setdefault(gram, []).append(position)
    return list(found.items())


def literal(lexemes: Iterable[tuple[str, Sequence[int]]]) -> str:
    """A tsvector as text."""
    return " ".join(
        f"{quoted(lexeme)}:{','.join(map(str, positions[:POSITIONS_MAX]))}" for lexeme, positions in lexemes
    )


def quoted(lexeme: str) -> str:
    """As tsvector and tsquery read it: nothing inside is an operator."""
    return "'" + lexeme.replace("\\", "\\\\").replace("'", "''") + "'"


def prepared(text: str) -> tuple[str, Lexemes]:
    """Spaced words for Postgres' parser, and pairs for the rest.

    The parser depends on the locale of the database: in some, every character beyond ASCII is a letter. So marks of
    punctuation beyond ASCII become spaces here.
    """
    text = folded(text[:INDEXED_CHARS_MAX])[:INDEXED_CHARS_MAX]
    if text.isascii():
        return text, []
    pairs = pairs_of(text)
    return "".join(map(_in_words, RUN.sub(" ", text))), pairs


@lru_cache(maxsize=8_192)
def _in_words(character: str) -> str:
    return character if character.isascii() or unicodedata.category(character)[0] in "LMN" else " "


def lexemes_of(parts: Sequence[tuple[str, Lexemes]], config: str) -> list[Lexemes]:
    """Of texts that are prepared(), by Postgres' own stemmer. One query."""
    found: list[Lexemes] = [[] for _ in parts]
    words, pairs = [words for words, _ in parts], [literal(pairs) for _, pairs in parts]
    for n, lexeme, positions in sql.rows(_LEXEMES, [words, pairs, config]):
        found[n - 1].append((lexeme, positions))
    return found


def _blinding() -> Callable[[str], str]:
    """Lexeme -> what stands for it: the same for ever in one tenant, and another in every other."""
    key = keyring.hmac(current_tenant(), b"memory.lexemes")

    def blinded(lexeme: str) -> str:
        digest = hmac.digest(key, lexeme.encode(), hashlib.sha256)
        return urlsafe_b64encode(digest[:BLIND_BYTES]).decode()

    return blinded
