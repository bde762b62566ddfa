"""The sentences of some texts that say most in few tokens: an extract, without a model and in any language.

Greedy coverage (Lin and Bilmes, 2011): each sentence is worth the rarity of the terms that no sentence taken before has
said, more when it holds a number or a word of decision or failure, divided by what it costs. Worth only falls as
sentences are taken, so a heap with stale entries finds the same order as comparing all of them each time.

The same texts give the same extract. It is never longer than allowed when its sentences are joined by line breaks.
"""

from __future__ import annotations

import heapq
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from math import log

SENTENCE_CHARS_MAX = 400  # a longer one (a line of JSON, a log line) is cut, or it could never be taken
NUMBER_WEIGHT = 1.5  # of a term that holds a digit
CUE_WEIGHT = 1.6  # of a sentence that holds a cue
TOKENS_PER_BREAK = 1

# A stop ends a sentence before white space; those of Chinese, Japanese and Hindi need none.
END = re.compile(r"(?<=[.!?…؟])\s+|(?<=[。！？।॥])\s*|\s*\n\s*")
CUT = re.compile(r"[\s,;}\]、，；]")
WORD = re.compile(r"[^\W_]+")
# Scripts that are written without spaces: two neighbouring characters stand for a word.
UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")
DIGIT = re.compile(r"\d")
CUES = re.compile(
    r"\b(error|fail(ed|s|ure)?|cannot|could not|must|never|always|not|because|therefore|so that|decided?|decision"
    r"|agreed|approved?|rejected|refused|confirmed|found|result|total|goal|next|blocked|deadline|todo|important|warning"
    r"|changed|fehler|fehlgeschlagen|nicht|muss|weil|beschlossen|ergebnis|ziel|wichtig|erreur|échec|parce|décidé|résultat"
    r"|fallo|porque|decidido|resultado|ошибка|потому|решено|важно)\b"
    r"|错误|失败|必须|因为|决定|结果|重要|エラー|失敗|決定|結果|重要|오류|실패|결정|결과",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Sentence:
    source: int
    text: str
    terms: tuple[str, ...]  # sorted: a sum of floats depends on the order
    cost: int  # tokens, its line break counted in


def extract(
    texts: Sequence[str], *, tokens_max: int, count: Callable[[str], int], keep: Collection[int] = ()
) -> list[tuple[int, str]]:
    """(index of the text, sentence), in the order of the texts.

    `count`: tokens of a text. `keep`: texts taken whole and before all others; one that does not fit is left out.
    """
    kept, left = _kept(texts, tokens_max=tokens_max, count=count, keep=keep)
    sentences = [
        _Sentence(source, piece, terms_of(piece), count(piece) + TOKENS_PER_BREAK)
        for source, text in enumerate(texts)
        if source not in keep
        for piece in sentences_of(text)
    ]
    said = {term for _, text in kept for term in terms_of(text)}
    taken = _taken(sentences, tokens_max=left, said=said)
    chosen = [*kept, *((sentences[place].source, sentences[place].text) for place in sorted(taken))]
    return sorted(chosen, key=lambda each: each[0])  # stable: sentences of one text keep their order


def sentences_of(text: str) -> Iterator[str]:
    """Without the white space around them; none is longer than SENTENCE_CHARS_MAX characters."""
    for part in END.split(text):
        rest = part.strip()
        while len(rest) > SENTENCE_CHARS_MAX:
            at = _cut(rest)
            yield rest[:at].rstrip()
            rest = rest[at:].lstrip()
        if rest:
            yield rest


def _cut(text: str) -> int:
    """The last place between words in the second half of what a sentence may have."""
    places = [found.end() for found in CUT.finditer(text, SENTENCE_CHARS_MAX // 2, SENTENCE_CHARS_MAX)]
    return places[-1] if places else SENTENCE_CHARS_MAX


def terms_of(text: str) -> tuple[str, ...]:
    """Words in lower case, each once, sorted; neighbouring pairs of characters where a script has no spaces."""
    folded = text.casefold()
    terms: set[str] = set()
    for run in UNSPACED.findall(folded):
        terms.update(run[at : at + 2] for at in range(max(1, len(run) - 1)))
    terms.update(WORD.findall(UNSPACED.sub(" ", folded)))
    return tuple(sorted(terms))


def _kept(
    texts: Sequence[str], *, tokens_max: int, count: Callable[[str], int], keep: Collection[int]
) -> tuple[list[tuple[int, str]], int]:
    """The texts to keep that fit, and the tokens left for all others."""
    kept, left = [], tokens_max
    for source in sorted(keep):
        cost = count(texts[source]) + TOKENS_PER_BREAK
        if cost <= left:
            kept.append((source, texts[source]))
            left -= cost
    return kept, left


def _taken(sentences: Sequence[_Sentence], *, tokens_max: int, said: set[str]) -> list[int]:
    weights = _weights(sentences)
    emphasis = [CUE_WEIGHT if CUES.search(sentence.text) else 1.0 for sentence in sentences]

    def worth(place: int) -> float:
        sentence = sentences[place]
        new = sum(weights[term] for term in sentence.terms if term not in said)
        return emphasis[place] * new / sentence.cost

    heap = [(-worth(place), place) for place in range(len(sentences))]
    heapq.heapify(heap)
    taken, left = [], tokens_max
    while heap and left > TOKENS_PER_BREAK:
        _, place = heapq.heappop(heap)
        now = worth(place)
        if now <= 0 or sentences[place].cost > left:
            continue
        if heap and (-now, place) > heap[0]:  # it has fallen behind since it was weighed
            heapq.heappush(heap, (-now, place))
            continue
        taken.append(place)
        said.update(sentences[place].terms)
        left -= sentences[place].cost
    return taken


def _weights(sentences: Sequence[_Sentence]) -> dict[str, float]:
    """Term -> its rarity: the logarithm of how few sentences say it."""
    saying = Counter(term for sentence in sentences for term in sentence.terms)
    total = len(sentences)
    return {
        term: log(1 + total / number) * (NUMBER_WEIGHT if DIGIT.search(term) else 1.0)
        for term, number in saying.items()
    }
