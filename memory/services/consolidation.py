"""Consolidation: what left recall at the cap is merged into what is known, told shorter, or dropped, oldest first.

Of each subject and namespace there is at most one item that tells many shortly ("consolidated"). It never takes more
than CONSOLIDATED_SHARE of the cap, nor anything from what is pinned or newer than SETTLED. The sources' revisions stay:
each can be restored. The same items give the same result; a second round finds nothing to do.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from agentstate.core import likeness
from agentstate.core.clock import now
from agentstate.core.errors import Conflict, Corrupt, NotFound
from agentstate.core.extract import extract
from agentstate.core.ids import new_id
from agentstate.core.limits import ITEM_BYTES_MAX
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from memory import policies
from memory.models import Item, ItemRevision, Subject
from memory.services import cap, drafts, revising, subjects
from memory.services.revising import Content, Held
from memory.services.upkeep import Progressed
from memory.states import ItemStatus

BATCH_SUBJECTS = 20
BATCH_ITEMS = 200  # of one subject; the next round takes more
CONSOLIDATED_SHARE = 8  # one part in so many of the cap
BYTES_MIN = 60  # less room than this tells nothing
SETTLED = timedelta(days=7)
CHANGE = "consolidated"


def consolidate_due(cursor: str) -> Progressed:
    """One batch of subjects with items over the cap. `cursor`: the last subject's id.

    Locks: the subjects of the batch, in the order of their ids.
    """
    after = UUID(cursor) if cursor else UUID(int=0)
    # Index: memory_item_of_subject.
    found = Item.objects.filter(status=ItemStatus.OVER_CAP, subject_id__gt=after).order_by("subject_id")
    batch = list(found.values_list("subject_id", flat=True).distinct()[:BATCH_SUBJECTS])
    done = sum(map(consolidate, batch))
    return Progressed(str(batch[-1]) if batch else "", done, is_over=len(batch) < BATCH_SUBJECTS)


def consolidate(subject_id: UUID) -> int:
    """Deal with what is over the cap of one subject; how many items. Idempotent. Locks: the subject."""
    try:
        subject = subjects.locked(subject_id)
        key = subjects.key_of(subject)
    except (NotFound, Conflict, Corrupt):  # it is being erased, or was
        return 0
    over = Item.objects.filter(subject_id=subject.id, status=ItemStatus.OVER_CAP).order_by("id")[:BATCH_ITEMS]
    left = revising.opened(over, key)
    round_ = _Round(subject, key)
    left = [each for each in left if not round_.expire(each)]
    left = [each for each in left if not round_.merge(each)]
    by_namespace: dict[str, list[Held]] = defaultdict(list)
    for each in left:
        by_namespace[each.item.namespace].append(each)
    for namespace in sorted(by_namespace):
        round_.tell_shorter(namespace, by_namespace[namespace])
    cap.enforce(subject, key=key, actor=round_.actor)
    revising.save_counts(subject)
    return round_.done


class _Round:
    """The work on one subject whose row is locked."""

    def __init__(self, subject: Subject, key: bytes) -> None:
        self.subject, self.key, self.at = subject, key, now()
        self.cap_bytes = cap.of(subject)
        self.active = revising.active(subject, key)
        self.done = 0

    @property
    def actor(self) -> Actor:
        return actors.system("consolidation")

    def expire(self, each: Held) -> bool:
        if each.item.expires_at is None or each.item.expires_at > self.at:
            return False
        self._end(each, ItemStatus.EXPIRED, change="expired")
        return True

    def merge(self, each: Held) -> bool:
        """It is said by an active item already."""
        for other in self.active:
            is_same = bytes(other.item.digest) == bytes(each.item.digest)
            if other.item.namespace == each.item.namespace and (is_same or _says(other, each)):
                self._end(each, ItemStatus.FORGOTTEN, change=CHANGE, superseded_by=other.item.id)
                return True
        return False

    def tell_shorter(self, namespace: str, left: Sequence[Held]) -> None:
        """All of these become part of the namespace's consolidated item; without room they are dropped."""
        standing = self._standing(namespace)
        settled = [] if standing is not None else self._settled(namespace)
        sources = [*([standing] if standing is not None else []), *settled, *left]
        room = self._room(standing, settled, left)
        text = _shorter([each.content.text for each in sources], bytes_max=room) if room >= BYTES_MIN else ""
        if not text:
            for each in left:
                self._end(each, ItemStatus.FORGOTTEN, change="forgotten")
            return
        said = self._saying(namespace, text, beside=sources)
        ended = list(left) if said is not None or standing is not None else [*settled, *left]
        target = said or standing
        target_id = new_id() if target is None else target.item.id
        for each in ended:  # first: an active item with the very words of the telling would stand in its way
            self._end(each, ItemStatus.FORGOTTEN, change=CHANGE, superseded_by=target_id)
        if target is None:
            self._make(target_id, namespace, text, sources)
        elif said is None:
            self._revise(target, text, left)

    def _saying(self, namespace: str, text: str, *, beside: Sequence[Held]) -> Held | None:
        """Another active item that says exactly this."""
        digest, own = revising.digest_of(namespace, text), {each.item.id for each in beside}
        others = [each for each in self.active if each.item.namespace == namespace and each.item.id not in own]
        return next((each for each in others if bytes(each.item.digest) == digest), None)

    def _standing(self, namespace: str) -> Held | None:
        """The namespace's consolidated item. Nobody has edited or pinned it since, or it would be theirs."""
        mine = [each for each in self.active if each.item.namespace == namespace and not each.item.pinned]
        wanted = {each.item.id: each for each in mine}
        found = ItemRevision.objects.filter(item_id__in=wanted, change=CHANGE).order_by("item_id", "-version")
        for revision in found:
            if wanted[revision.item_id].item.version == revision.version:
                return wanted[revision.item_id]
        return None

    def _settled(self, namespace: str) -> list[Held]:
        """Active ones that give their room: of the least worth, until a shorter telling of all has its share."""
        share = self.cap_bytes // CONSOLIDATED_SHARE
        free = self.cap_bytes - self.subject.item_bytes
        given: list[Held] = []
        for each in sorted(self.active, key=self._worth):
            if free >= share:
                break
            is_mine = each.item.namespace == namespace and not each.item.pinned and each.content.facts is None
            if is_mine and each.item.updated_at < self.at - SETTLED:
                given.append(each)
                free += each.item.bytes
        return given

    def _worth(self, each: Held) -> tuple[float, UUID]:
        return cap.worth(each.item.importance, each.item.updated_at, at=self.at), each.item.id

    def _room(self, standing: Held | None, settled: Sequence[Held], left: Sequence[Held]) -> int:
        """Bytes that the shorter telling may take: at most half of what it tells, and never more than there is."""
        freed = sum(each.item.bytes for each in settled) + (standing.item.bytes if standing is not None else 0)
        free = self.cap_bytes - self.subject.item_bytes + freed
        told = freed + sum(each.content.bytes for each in left)
        half = told // 2 if standing is None else max(standing.item.bytes, told // 2)
        return max(0, min(free, half, self.cap_bytes // CONSOLIDATED_SHARE, ITEM_BYTES_MAX))

    def _make(self, item_id: UUID, namespace: str, text: str, sources: Sequence[Held]) -> None:
        item = Item(
            id=item_id,
            subject=self.subject,
            kind=sources[-1].item.kind,
            namespace=namespace,
            importance=max(each.item.importance for each in sources),
            valid_from=min(each.item.valid_from for each in sources),
            known_from=min(each.item.known_from for each in sources),
            expires_at=drafts.expiry(policies.for_tenant()),
            created_at=self.at,
            updated_at=self.at,
        )
        revising.begin(
            self.subject,
            item,
            Content(text),
            key=self.key,
            actor=self.actor,
            change=CHANGE,
            merged_ids=[each.item.id for each in sources],
        )
        self.active.append(Held(item, Content(text)))

    def _revise(self, standing: Held, text: str, left: Sequence[Held]) -> None:
        content = replace(standing.content, text=text)
        revising.revise(
            self.subject,
            standing.item,
            content,
            key=self.key,
            actor=self.actor,
            change=CHANGE,
            fields={"expires_at": drafts.expiry(policies.for_tenant())},
            merged_ids=[each.item.id for each in left],
        )

    def _end(self, each: Held, to: ItemStatus, *, change: str, superseded_by: UUID | None = None) -> None:
        revising.move(
            self.subject,
            each.item,
            to=to,
            key=self.key,
            actor=self.actor,
            change=change,
            content=each.content,
            valid_to=each.item.valid_to,
            superseded_by=superseded_by,
        )
        self.active = [other for other in self.active if other.item.id != each.item.id]
        self.done += 1


def _says(known: Held, other: Held) -> bool:
    """Whether the known item says all that the other one says."""
    said, words = known.words, other.words
    return likeness.is_near(said, words) and len(words.terms) <= len(said.terms)


def _shorter(told: Sequence[str], *, bytes_max: int) -> str:
    """The sentences that say most in so many bytes, in their order; the same texts give the same ones."""
    chosen = extract(told, tokens_max=bytes_max, count=lambda text: len(text.encode()))
    return "\n".join(sentence for _, sentence in chosen)
