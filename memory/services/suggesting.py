"""Writing a proposal down. Deciding it stands in proposals; both need the subject's row locked."""

from __future__ import annotations

from uuid import UUID

from agentstate.audit import trail
from agentstate.core.clock import now
from agentstate.core.ids import new_id
from agentstate.tenants.actors import Actor
from memory import sealing, texts
from memory.models import Proposal, Subject
from memory.services.drafts import NewItem
from memory.sources import Source
from memory.states import ProposalStatus

TABLE = "memory_proposal"
RULES = "rules"


def suggest(
    subject: Subject,
    *,
    act: str,
    new: NewItem,
    key: bytes,
    actor: Actor,
    method: str = RULES,
    confidence: float = 0.5,
    item_id: UUID | None = None,
    expected_version: int | None = None,
    source: Source,
    why: str = "",
) -> tuple[Proposal, bool]:
    """The pending proposal of this act, item and text, and whether it is new: it is made once while pending."""
    digest = digest_of(act, item_id, new.text)
    known = Proposal.objects.filter(subject_id=subject.id, digest=digest, status=ProposalStatus.PENDING).first()
    if known is not None:
        return known, False
    proposal = Proposal(
        id=new_id(),
        subject=subject,
        act=act,
        item_id=item_id,
        expected_version=expected_version,
        digest=digest,
        method=method,
        confidence=confidence,
        source_run_id=source.run_id,
        source_step_seq=source.step_seq,
        source_message_ids=list(source.message_ids),
        created_at=now(),
    )
    proposal.body = sealing.seal_json(key, TABLE, f"{proposal.id}:body", new.as_json())
    proposal.why = sealing.seal_text(key, TABLE, f"{proposal.id}:why", why) if why else b""
    proposal.save(force_insert=True)
    detail = {"act": act, "subject": subject.id, "item": item_id, "method": method}
    return trail.record(proposal, action="proposal.made", actor=actor, detail=detail), True


def digest_of(act: str, item_id: UUID | None, text: str) -> bytes:
    return sealing.digest("proposal", act, "" if item_id is None else item_id.hex, texts.normalised(text))
