"""Items, their revisions, and what was proposed about them."""

from __future__ import annotations

from collections.abc import Sequence

from agentstate.core import tokens
from agentstate.core.limits import FACTS_BYTES_MAX
from memory import facts as fact_kinds
from memory import sealing, transfer
from memory.models import Item, ItemRevision, Proposal
from memory.models.item import CHANGES
from memory.recall import units
from memory.services import drafts, revising, suggesting
from memory.services.imports.desk import Desk
from memory.services.imports.lines import Numbered, bad
from memory.states import ItemStatus


def take_item(desk: Desk, batch: Sequence[Numbered]) -> None:
    here = desk.here(Item, batch)
    for each in batch:
        line: transfer.ItemLine = each.line
        if line.id in desk.seen:
            raise bad(each.number, "this item came before")
        desk.seen.add(line.id)
        desk.counted("item", line.id not in here)
        desk.link(line.run)
        if line.id in here:
            desk.skipped.add(line.id)
        else:
            desk.items[line.id] = (_item(desk, line, each.number), each.number)


def take_revision(desk: Desk, batch: Sequence[Numbered]) -> None:
    rows = []
    for each in batch:
        line: transfer.RevisionLine = each.line
        if line.item in desk.skipped:
            desk.report.known["revision"] += 1
            continue
        if line.item not in desk.items:
            raise bad(each.number, "its item did not come before it")
        if line.change not in CHANGES:
            raise bad(each.number, f"change is one of {', '.join(CHANGES)}")
        item, _ = desk.items[line.item]
        if line.version > item.version:
            raise bad(each.number, f"its item is at version {item.version} and cannot have a version {line.version}")
        desk.versions[line.item] += 1
        rows.append(_revision(desk, line, item, each.number))
        desk.counted("revision", True)
        desk.link(line.run)
        if line.version == item.version:
            _begin(desk, each, item)
    ItemRevision.objects.bulk_create(rows)


def take_proposal(desk: Desk, batch: Sequence[Numbered]) -> None:
    here, rows = desk.here(Proposal, batch), []
    for each in batch:
        line: transfer.ProposalLine = each.line
        new = drafts.from_json(line.body)  # what cannot be an item's content is refused here
        desk.counted("proposal", line.id not in here)
        desk.link(line.run)
        if line.id in here:
            continue
        item_id = desk.row_id(line.item) if line.item else None
        row = Proposal(
            id=desk.row_id(line.id),
            subject=desk.subject,
            item_id=item_id,
            digest=suggesting.digest_of(line.act, item_id, new.text),
            source_message_ids=desk.row_ids(line.sources),
            **line.model_dump(
                include={
                    *("act", "status", "expected_version", "method", "confidence"),
                    *("decided_by", "created_at", "decided_at"),
                }
            ),
        )
        row.body = sealing.seal_json(desk.key, "memory_proposal", f"{row.id}:body", line.body)
        row.why = desk.sealed(line.why, "memory_proposal", f"{row.id}:why")
        rows.append(row)
    Proposal.objects.bulk_create(rows)


def _item(desk: Desk, line: transfer.ItemLine, number: int) -> Item:
    if line.pinned and line.expires_at is not None:
        raise bad(number, "what is pinned does not expire")
    if line.valid_to is not None and line.valid_to < line.valid_from:
        raise bad(number, "it ends before it begins")
    attribute = bytes.fromhex(line.attribute_hmac) if line.attribute_hmac and desk.same_tenant else None
    return Item(
        id=desk.row_id(line.id),
        subject=desk.subject,
        attribute=attribute,
        superseded_by=desk.row_id(line.superseded_by) if line.superseded_by else None,
        source_message_ids=desk.row_ids(line.sources),
        bytes=0,
        tokens=0,
        **line.model_dump(
            include={
                *("kind", "namespace", "fact_kind", "schema_version", "status", "pinned", "importance", "version"),
                *("origin", "valid_from", "valid_to", "known_from", "known_to", "expires_at"),
                *("created_at", "updated_at"),
            }
        ),
    )


def _begin(desk: Desk, each: Numbered, item: Item) -> None:
    """With its newest words an item can stand."""
    line: transfer.RevisionLine = each.line
    doc = line.facts
    item.bytes = len(line.text.encode()) + fact_kinds.size_of(doc)
    item.tokens, item.digest = tokens.count(line.text), revising.digest_of(item.namespace, line.text)
    same = Item.objects.filter(subject=desk.subject, namespace=item.namespace, digest=item.digest)
    if item.status == ItemStatus.ACTIVE and same.filter(status=ItemStatus.ACTIVE).exists():
        desk.conflict(each, "an active item here says the same already: forget one of the two.")
        item.status = ItemStatus.FORGOTTEN
    item.save(force_insert=True)
    units.index_item(item, line.text)


def _revision(desk: Desk, line: transfer.RevisionLine, item: Item, number: int) -> ItemRevision:
    if fact_kinds.size_of(line.facts) > FACTS_BYTES_MAX:
        raise bad(number, f"facts take more than {FACTS_BYTES_MAX:,} bytes")
    place = f"{item.id}:{line.version}"
    stored = None
    if line.facts is not None:
        stored = sealing.seal_json(desk.key, "memory_itemrevision", f"{place}:facts", line.facts)
    return ItemRevision(
        item=item,
        subject_id=desk.subject.id,
        text=sealing.seal_text(desk.key, "memory_itemrevision", f"{place}:text", line.text),
        facts=stored,
        reason=desk.sealed(line.reason, "memory_itemrevision", f"{place}:reason"),
        tokens=tokens.count(line.text),
        merged_ids=desk.row_ids(line.merged),
        **desk.by(line.by),
        **line.model_dump(
            include={
                *("version", "change", "status", "pinned", "importance", "valid_from", "valid_to"),
                *("schema_version", "restored_from", "created_at"),
            }
        ),
    )
