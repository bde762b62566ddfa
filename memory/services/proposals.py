"""Proposals: changes of memory that a rule, a model or an agent suggests. Each is decided once, by people or policy.

What a proposal was about may change before it is decided: then it is withdrawn, and says so, instead of overwriting.
Replacing what is known (supersede, update, forget) is never done by a policy.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal
from uuid import UUID

from agentstate.audit import trail
from agentstate.core import likeness
from agentstate.core.clock import now
from agentstate.core.errors import Conflict, Invalid, NotFound
from agentstate.core.ids import public_id
from agentstate.core.limits import NAME_CHARS_MAX
from agentstate.db import locks
from agentstate.tenants import actors
from agentstate.tenants.actors import Actor
from memory import sealing
from memory.models import Item, Proposal, Subject
from memory.models.item import ACTS
from memory.services import drafts, editing, fence, hints, items, revising, rights, subjects, suggesting
from memory.services.drafts import ItemChanges, NewItem
from memory.services.hints import Hint
from memory.services.items import Kept
from memory.services.revising import Held
from memory.sources import Source
from memory.states import ItemStatus, ProposalStatus

ACCEPTED_AT = 0.7  # least confidence with which a policy accepts by itself
BY_POLICY = frozenset({"add", "merge"})  # these lose nothing
NO_SOURCE = Source()


@dataclass(frozen=True, slots=True)
class Proposed:
    """`outcome`: proposed, accepted (by the policy), known (an item or a proposal says it), decided (once before, from
    the same messages), refused (by the fence; `why`).
    """

    outcome: str
    proposal: Proposal | None = None
    kept: Kept | None = None
    why: str = ""


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision and what came of it. Status `withdrawn`: nothing was done, `why` says what had changed."""

    proposal: Proposal
    item: Item | None = None
    kept: Kept | None = None
    why: str = ""
    collateral: list[Hint] = field(default_factory=list)  # items that go on saying something else about the same
    withdrawn: list[UUID] = field(default_factory=list)  # other proposals about the item, now out of date


def propose(
    subject_id: UUID,
    *,
    act: str,
    new: NewItem,
    item_id: UUID | None = None,
    expected_version: int | None = None,
    method: str,
    confidence: float = 0.5,
    why: str = "",
    source: Source = NO_SOURCE,
    accept: Literal["auto", "review"] = "review",
    actor: Actor,
) -> Proposed:
    """Suggest a change. `accept` auto: what loses nothing and is confident enough is done at once.

    Idempotent: once while it is pending, and once for the same messages. Raises: as items.remember(); NotFound for an
    item that is not the subject's. Locks: the subject.
    """
    rights.require_writing(actor)
    if act not in ACTS:
        raise Invalid(f"A proposal's act is one of {', '.join(ACTS)}.", field="act")
    if not method or len(method) > 120:
        raise Invalid("method names who proposes, in at most 120 characters.", field="method")
    confidence = drafts.number_in_unit(confidence, field="confidence")
    checked, content = drafts.checked(new)
    source = drafts.checked_source(source)
    subject = subjects.locked(subject_id)
    key = subjects.key_of(subject)
    if act == "add":
        known = _known(subject, checked, content, source=source, key=key)
        if known is not None:
            return known
    else:
        expected_version = _version_of(subject, item_id, expected_version)
    if _was_decided(subject, act, item_id, checked, source):
        return Proposed("decided", why="it was decided before, from the same messages")
    proposal, is_new = suggesting.suggest(
        subject,
        act=act,
        new=checked,
        key=key,
        actor=actor,
        method=method,
        confidence=confidence,
        item_id=item_id,
        expected_version=expected_version,
        source=source,
        why=why,
    )
    if not is_new:
        return Proposed("known", proposal, why="it is proposed already")
    if accept == "auto" and act in BY_POLICY and confidence >= ACCEPTED_AT:
        decided = _accept(subject, proposal, key=key, actor=actors.system("policy"), reason="accepted by the policy")
        return Proposed("accepted", decided.proposal, decided.kept, decided.why)
    return Proposed("proposed", proposal)


def accept(
    proposal_id: UUID,
    *,
    actor: Actor,
    reason: str = "",
    expected_version: int | None = None,
    new: NewItem | None = None,
) -> Decided:
    """Do what is proposed, with the words of `new` instead when they are given.

    `expected_version`: of the item, as the person saw it. An item that has changed since: the proposal is withdrawn.
    Raises: Conflict with `decided_by` when it is decided already; as items.remember() and editing.edit().
    Locks: the subject, the proposal, the item. Idempotent for the same actor.
    """
    subject, proposal, done = _begun(proposal_id, ProposalStatus.ACCEPTED, actor)
    if done is not None:
        return done
    key = subjects.key_of(subject)
    reason = reason or "accepted a proposal"
    stale = _why_stale(proposal, expected_version)
    if stale:
        _end(proposal, ProposalStatus.WITHDRAWN, actor=actor, reason=stale)
        return Decided(proposal, why=stale)
    return _accept(subject, proposal, key=key, actor=actor, reason=reason, instead=new)


def reject(proposal_id: UUID, *, actor: Actor, reason: str = "") -> Decided:
    """Leave memory as it is. Raises: Conflict with `decided_by`. Locks: the subject, the proposal. Idempotent."""
    _, proposal, done = _begun(proposal_id, ProposalStatus.REJECTED, actor)
    if done is None:
        _end(proposal, ProposalStatus.REJECTED, actor=actor, reason=reason)
    return done or Decided(proposal)


def body_of(proposal: Proposal, key: bytes) -> NewItem:
    """What it proposes. Raises: Corrupt."""
    return drafts.from_json(sealing.open_json(key, suggesting.TABLE, f"{proposal.id}:body", proposal.body))


def _known(subject: Subject, new: NewItem, content: Any, *, source: Source, key: bytes) -> Proposed | None:
    """Why there is nothing to propose."""
    held = revising.active(subject, key)
    said = fence.spoken(subject, source)
    verdict = fence.judge(subject, content.text, held=held, source=source, said=said, key=key)
    if not verdict.text:
        return Proposed("known" if verdict.restated_item else "refused", why=verdict.why)
    words = likeness.words(content.text)
    for each in held:
        if each.item.namespace == new.namespace and _adds_nothing(each, words, content):
            return Proposed("known", why=f"{public_id('item', each.item.id)} says it")
    return None


def _adds_nothing(known: Held, words: likeness.Words, content: Any) -> bool:
    if content.facts is not None and content.facts != known.content.facts:
        return False
    return likeness.is_near(words, known.words) and len(words.terms) <= len(known.words.terms)


def _version_of(subject: Subject, item_id: UUID | None, expected_version: int | None) -> int:
    item = Item.objects.filter(id=item_id, subject_id=subject.id).first() if item_id is not None else None
    if item is None:
        raise NotFound("The item to change is not there.")
    if item.status != ItemStatus.ACTIVE:
        raise Conflict(f"{public_id('item', item.id)} is {item.status}: nothing to change.", status=item.status)
    return item.version if expected_version is None else expected_version


def _was_decided(subject: Subject, act: str, item_id: UUID | None, new: NewItem, source: Source) -> bool:
    """A turn that is read again must not ask again, nor bring back what a person has rejected or forgotten since."""
    if not source.message_ids:
        return False
    digest = suggesting.digest_of(act, item_id, new.text)
    decided = Proposal.objects.filter(subject_id=subject.id, digest=digest).exclude(status=ProposalStatus.PENDING)
    return decided.filter(source_message_ids__overlap=list(source.message_ids)).exists()


def _begun(proposal_id: UUID, to: ProposalStatus, actor: Actor) -> tuple[Subject, Proposal, Decided | None]:
    """The proposal under its locks, or the decision that was made already."""
    rights.require_writing(actor)
    subject_id = Proposal.objects.filter(id=proposal_id).values_list("subject_id", flat=True).first()
    if subject_id is None:
        raise NotFound("There is no such proposal.")
    subject = subjects.locked(subject_id)
    (proposal,) = locks.lock_in_order(Proposal(id=proposal_id))
    if proposal.status == ProposalStatus.PENDING:
        return subject, proposal, None
    if proposal.status == to and proposal.decided_by == actor.name:
        return subject, proposal, Decided(proposal, _item_of(proposal))
    raise Conflict(
        f"This proposal is {proposal.status} already, by {proposal.decided_by}.",
        status=proposal.status,
        decided_by=proposal.decided_by,
        decided_at=proposal.decided_at.isoformat() if proposal.decided_at else None,
    )


def _item_of(proposal: Proposal) -> Item | None:
    return None if proposal.item_id is None else Item.objects.filter(id=proposal.item_id).first()


def _why_stale(proposal: Proposal, expected_version: int | None) -> str:
    """Why it can no longer be done; "" when it can."""
    if proposal.act == "add":
        return ""
    item = _item_of(proposal)
    if item is None or item.status != ItemStatus.ACTIVE:
        return "the item it is about is no longer active"
    wanted = proposal.expected_version if expected_version is None else expected_version
    if item.version != wanted or item.version != proposal.expected_version:
        return f"{public_id('item', item.id)} is at version {item.version} by now, not {wanted}"
    return ""


def _accept(
    subject: Subject, proposal: Proposal, *, key: bytes, actor: Actor, reason: str, instead: NewItem | None = None
) -> Decided:
    new = instead or body_of(proposal, key)
    kept, item = _done(proposal, new, actor=actor, reason=reason)
    if kept is not None and kept.item is None:
        _end(proposal, ProposalStatus.WITHDRAWN, actor=actor, reason=kept.refused)
        return Decided(proposal, kept=kept, why=kept.refused)
    item_id = proposal.item_id or (item.id if item is not None else None)
    _end(proposal, ProposalStatus.ACCEPTED, actor=actor, reason=reason, item_id=item_id)
    return Decided(
        proposal,
        item,
        kept,
        collateral=_collateral(subject, item, key) if proposal.act == "supersede" else [],
        withdrawn=_withdraw_stale(proposal, actor=actor),
    )


def _done(proposal: Proposal, new: NewItem, *, actor: Actor, reason: str) -> tuple[Kept | None, Item | None]:
    """The act itself, under the locks that the caller holds."""
    source = Source(proposal.source_run_id, proposal.source_step_seq, tuple(proposal.source_message_ids))
    version = proposal.expected_version
    if proposal.act in ("add", "supersede"):
        kept = items.remember(proposal.subject_id, new, actor=actor, source=source, reason=reason)
        if proposal.act == "supersede" and kept.item is not None:
            _supersede(proposal, kept.item, actor=actor, reason=reason)
        return kept, kept.item
    assert proposal.item_id is not None and version is not None, "a change is about one version of an item"
    if proposal.act == "forget":
        return None, editing.forget(proposal.item_id, expected_version=version, reason=reason, actor=actor)
    changes = ItemChanges(
        text=new.text,
        facts=drafts.UNSET if new.facts is None else new.facts,
        importance=new.importance,
    )
    return None, editing.edit(proposal.item_id, expected_version=version, changes=changes, reason=reason, actor=actor)


def _supersede(proposal: Proposal, by: Item, *, actor: Actor, reason: str) -> None:
    """The old item ends, unless the new words were merged into that very item."""
    assert proposal.item_id is not None and proposal.expected_version is not None
    if by.id != proposal.item_id:
        old = Item.objects.values_list("status", "version").get(id=proposal.item_id)
        if old[0] == ItemStatus.ACTIVE:  # else it left by the cap in this very write
            editing.supersede(proposal.item_id, by=by, expected_version=old[1], reason=reason, actor=actor)


def _collateral(subject: Subject, item: Item | None, key: bytes) -> list[Hint]:
    if item is None:
        return []
    return hints.against(item, revising.content_of(item, key), revising.active(subject, key))


def _withdraw_stale(proposal: Proposal, *, actor: Actor) -> list[UUID]:
    """Other pending proposals about an item whose version has moved on."""
    others = Proposal.objects.filter(
        subject_id=proposal.subject_id, status=ProposalStatus.PENDING, item_id__isnull=False
    ).exclude(id=proposal.id)
    withdrawn = []
    for other in others.order_by("id"):
        why = _why_stale(other, None)
        if why:
            _end(other, ProposalStatus.WITHDRAWN, actor=actor, reason=why)
            withdrawn.append(other.id)
    return withdrawn


def _end(proposal: Proposal, to: ProposalStatus, *, actor: Actor, reason: str, item_id: UUID | None = None) -> None:
    fields: dict[str, Any] = {"decided_by": actor.name[:NAME_CHARS_MAX], "decided_at": now()}
    if item_id is not None:
        fields["item_id"] = item_id
    trail.transition(proposal, to=to, actor=actor, reason=reason, action=f"proposal.{to}", set=fields)
