"""Which frames of a stretch may go: pure decisions, so that plan() and run() cannot differ.

A segment is a keyframe and the changes behind it. Nothing outside a segment builds on anything inside, so segments are
thinned one by one, in bounded memory and short transactions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

# Kinds of frames that people and undo come back to.
KINDS_KEPT = frozenset({"approval", "effect", "pause", "fork", "generation"})
ROW_BYTES = 256  # what a frame costs beside its body: columns, headers, index


@dataclass(frozen=True, slots=True)
class Stub:
    """What the decision needs to know of a frame."""

    n: int
    generation: int
    step_seq: int | None
    kind: str
    is_keyframe: bool
    body_bytes: int


@dataclass(slots=True)
class Thinning:
    """`delete` frames go; `rekey` frames lose their base and become keyframes (about the size of the one that goes)."""

    delete: list[int] = field(default_factory=list)
    rekey: list[int] = field(default_factory=list)
    freed_bytes: int = 0
    added_bytes: int = 0  # estimated

    def add(self, other: Thinning) -> None:
        self.delete += other.delete
        self.rekey += other.rekey
        self.freed_bytes += other.freed_bytes
        self.added_bytes += other.added_bytes


def segments(stubs: Sequence[Stub]) -> Iterator[list[Stub]]:
    """Cut at keyframes. A stretch without one in front is a segment too (its keyframe is lost)."""
    segment: list[Stub] = []
    for stub in stubs:
        if stub.is_keyframe and segment:
            yield segment
            segment = []
        segment.append(stub)
    if segment:
        yield segment


def thin(segment: Sequence[Stub], is_kept: Callable[[Stub], bool]) -> Thinning:
    """Decide on one segment.

    A gap in front goes always. A gap between two kept frames goes only if that frees more than the keyframe behind it
    costs; else its frames stay as bridges.
    """
    thinning, gap = Thinning(), list[Stub]()
    keyframe_bytes = segment[0].body_bytes
    for stub in segment:
        if not is_kept(stub):
            gap.append(stub)
            continue
        if gap:
            _close(thinning, gap, stub, keyframe_bytes)
            gap = []
    _drop(thinning, gap)
    return thinning


def _close(thinning: Thinning, gap: list[Stub], behind: Stub, keyframe_bytes: int) -> None:
    in_front = gap[0].is_keyframe
    gap_bytes = sum(stub.body_bytes + ROW_BYTES for stub in gap)
    if not in_front and gap_bytes + behind.body_bytes <= keyframe_bytes:
        return
    _drop(thinning, gap)
    thinning.rekey.append(behind.n)
    thinning.freed_bytes += behind.body_bytes
    thinning.added_bytes += keyframe_bytes


def _drop(thinning: Thinning, gap: list[Stub]) -> None:
    thinning.delete += [stub.n for stub in gap]
    thinning.freed_bytes += sum(stub.body_bytes for stub in gap)
