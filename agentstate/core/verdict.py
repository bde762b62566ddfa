"""What of a text is new beside what is known, sentence by sentence: the judgement of the feedback fence.

What is known is the caller's to gather; a store of rows and a store in memory judge alike.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from uuid import UUID

from agentstate.core.extract import sentences_of
from agentstate.core.ids import parse_id
from agentstate.core.restating import Clause, restated, says_something


@dataclass(frozen=True, slots=True)
class Refusal:
    """One sentence that is not stored. `source`: public id of what it restates."""

    sentence: str
    source: str

    @property
    def why(self) -> str:
        kind, _, _ = self.source.partition("_")
        return f"it only restates {'an' if kind[0] in 'aeiou' else 'a'} {kind} ({self.source})"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is left to be stored ("" for nothing), and what was refused."""

    text: str
    refusals: tuple[Refusal, ...] = ()

    @property
    def why(self) -> str:
        return "; ".join(dict.fromkeys(refusal.why for refusal in self.refusals))

    @property
    def restated_item(self) -> UUID | None:
        """The item that says all of it already."""
        sources = {refusal.source for refusal in self.refusals}
        source = sources.pop() if len(sources) == 1 else ""
        if self.text or not source.startswith("item_") or "@" in source:
            return None
        return parse_id("item", source)


def judged(text: str, known: Sequence[Clause], names: Collection[str], *, by_person: bool) -> Verdict:
    """`names`: words for whom it is about. `by_person`: all of it was said by the person."""
    kept, refusals = [], []
    for sentence in sentences_of(text):
        source = restated(sentence, known, names=names, by_person=by_person)
        if source:
            refusals.append(Refusal(sentence, source))
        elif says_something(sentence, names=names, by_person=by_person):
            kept.append(sentence)
    if not refusals:
        return Verdict(text)
    return Verdict(" ".join(kept), tuple(refusals))
