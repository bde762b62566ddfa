"""Items: remembered, read, changed in revisions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from agentstate.core import clock
from agentstate.core.ids import parse_id, public_id
from agentstate.http import requests
from agentstate.http.schemas import Problem
from agentstate.http.waiting import offloaded
from agentstate.tenants.actors import Actor
from memory.api import acting
from memory.api.acting import named
from memory.schemas.items import (
    AsOfQuery,
    ItemFullOut,
    ItemIn,
    ItemOut,
    ItemPageOut,
    ItemPatch,
    ItemQuery,
    KeptOut,
    KnownOut,
    KnownPageOut,
    RestoreIn,
    RevisionOut,
    UsesOut,
)
from memory.schemas.parts import BecauseIn
from memory.schemas.subjects import EvictedOut
from memory.selectors import as_of, directory, history, ledger, listing
from memory.selectors.as_of import Known, Moment
from memory.selectors.history import Revision
from memory.selectors.shelf import ItemFilter, ItemRow
from memory.services import editing, items
from memory.services.drafts import UNSET, ItemChanges, NewItem

router = Router()
CONTENT = ("text", "kind", "namespace", "attribute", "fact_kind", "facts", "importance", "pinned")
TIMES = ("valid_from", "valid_to", "expires_at")
REFUSALS = {(404, 409, 413, 422): Problem}


@router.post("/memory/items", response={200: KeptOut, **REFUSALS}, operation_id="remember", openapi_extra=acting.KEYED)
@offloaded
def remember(request: HttpRequest, wanted: ItemIn) -> KeptOut:
    """Keep one statement about a subject. `change` says what became of it: created, merged, duplicate or refused."""
    actor = acting.writer(request)

    def act() -> dict[str, Any]:
        new = NewItem(**{name: getattr(wanted, name) for name in (*CONTENT, *TIMES)})
        kept = items.remember(acting.subject_of(wanted.subject), new, actor=actor, reason=wanted.reason)
        return {
            "item": named("item", kept.item.id if kept.item else None),
            "change": kept.change,
            "refused": kept.refused,
            "evicted": [{"item_id": public_id("item", each.item_id), "bytes": each.bytes} for each in kept.evicted],
            "contradicts": [public_id("item", hint.item_id) for hint in kept.contradicts],
        }

    kept = acting.once(request, actor, wanted, act)
    item = acting.read(actor, lambda: shown(listing.find(kept["item"])[0])) if kept["item"] else None
    return KeptOut(
        change=kept["change"],
        item=item,
        refused=kept["refused"],
        evicted=[EvictedOut(**each) for each in kept["evicted"]],
        contradicts=kept["contradicts"],
    )


@router.get("/memory/items", response={200: ItemPageOut, (404, 422): Problem}, operation_id="list_items")
@offloaded
def list_items(request: HttpRequest, wanted: Query[ItemQuery]) -> ItemPageOut:
    """Of a subject, pinned ones first; of all subjects the newest first."""
    actor = acting.reader(request)
    acting.only(request, wanted)

    def read() -> ItemPageOut:
        subject_id = acting.subject_of(wanted.subject) if wanted.subject else None
        narrow = ItemFilter(kind=wanted.kind, namespace=wanted.namespace, state=wanted.state)
        page = listing.page(subject_id, narrow, after=wanted.cursor, rows_max=wanted.limit)
        return ItemPageOut(items=[shown(row) for row in page.rows], next=page.after)

    return acting.read(actor, read)


@router.get(
    "/memory/subjects/{subject_id}/as-of",
    response={200: KnownPageOut, (404, 422): Problem},
    operation_id="list_items_as_of",
)
@offloaded
def list_as_of(request: HttpRequest, subject_id: str, wanted: Query[AsOfQuery]) -> KnownPageOut:
    """What held of a subject at a moment, by what was known then or is known today.

    Edits, replacements, expiry and restores since then change nothing of the answer.
    """
    actor = acting.reader(request)
    acting.only(request, wanted)

    def read() -> KnownPageOut:
        row, words = directory.find(subject_id)
        moment = Moment(true_at=wanted.as_of, known_at=wanted.as_of if wanted.known == "then" else clock.now())
        narrow = ItemFilter(kind=wanted.kind, namespace=wanted.namespace, state=wanted.state)
        page = as_of.page(row.id, moment, narrow, words, after=wanted.cursor, rows_max=wanted.limit)
        return KnownPageOut(items=[_known(each) for each in page.rows], next=page.after)

    return acting.read(actor, read)


@router.get("/memory/items/{item_id}", response={200: ItemFullOut, 404: Problem}, operation_id="get_item")
@offloaded
def get(request: HttpRequest, response: HttpResponse, item_id: str) -> ItemFullOut:
    """One item with its revisions and where it was used. The ETag is its version."""
    return _full(acting.reader(request), response, item_id)


@router.patch(
    "/memory/items/{item_id}",
    response={200: ItemFullOut, **REFUSALS},
    operation_id="change_item",
    openapi_extra=acting.VERSIONED,
)
@offloaded
def change(request: HttpRequest, response: HttpResponse, item_id: str, wanted: ItemPatch) -> ItemFullOut:
    """A new revision. 409: it has changed since you read it; `theirs` is what stands there now."""
    version = requests.expected_version(request)
    sent = {name: getattr(wanted, name) for name in wanted.model_fields_set - {"reason"}}
    emptied = {name for name in ("text", "importance", "valid_from") if sent.get(name, UNSET) is None}
    changes = ItemChanges(**{name: value for name, value in sent.items() if name not in emptied})

    def act(actor: Actor) -> None:
        editing.edit(
            parse_id("item", item_id), expected_version=version, changes=changes, reason=wanted.reason, actor=actor
        )

    return _changed(request, response, item_id, wanted, act)


@router.post(
    "/memory/items/{item_id}/restore",
    response={200: ItemFullOut, **REFUSALS},
    operation_id="restore_item",
    openapi_extra=acting.BOTH,
)
@offloaded
def restore(request: HttpRequest, response: HttpResponse, item_id: str, wanted: RestoreIn) -> ItemFullOut:
    """The words of a former revision, as a new one. An item that had left recall is active again."""
    version = requests.expected_version(request)

    def act(actor: Actor) -> None:
        editing.restore(
            parse_id("item", item_id),
            version=wanted.version,
            expected_version=version,
            reason=wanted.reason,
            actor=actor,
        )

    return _changed(request, response, item_id, wanted, act)


@router.post(
    "/memory/items/{item_id}/pin",
    response={200: ItemFullOut, **REFUSALS},
    operation_id="pin_item",
    openapi_extra=acting.KEYED,
)
@offloaded
def pin(request: HttpRequest, response: HttpResponse, item_id: str, wanted: BecauseIn) -> ItemFullOut:
    """In every context from now on, and never expired or evicted. `If-Match` may be sent."""
    return _moved(request, response, item_id, wanted, editing.pin)


@router.post(
    "/memory/items/{item_id}/unpin",
    response={200: ItemFullOut, **REFUSALS},
    operation_id="unpin_item",
    openapi_extra=acting.KEYED,
)
@offloaded
def unpin(request: HttpRequest, response: HttpResponse, item_id: str, wanted: BecauseIn) -> ItemFullOut:
    """It may leave again. `If-Match` may be sent."""
    return _moved(request, response, item_id, wanted, editing.unpin)


@router.post(
    "/memory/items/{item_id}/forget",
    response={200: ItemFullOut, **REFUSALS},
    operation_id="forget_item",
    openapi_extra=acting.KEYED,
)
@offloaded
def forget(request: HttpRequest, response: HttpResponse, item_id: str, wanted: BecauseIn) -> ItemFullOut:
    """Out of recall; its revisions stay, and a restore brings it back. `If-Match` may be sent."""
    return _moved(request, response, item_id, wanted, editing.forget)


def shown(row: ItemRow) -> ItemOut:
    return ItemOut(
        item_id=row.public_id,
        subject_id=public_id("subject", row.subject_id),
        superseded_by=named("item", row.superseded_by),
        run_id=named("run", row.source_run_id),
        step_seq=row.source_step_seq,
        message_ids=[public_id("message", each) for each in row.source_message_ids],
        **{name: getattr(row, name) for name in _PLAIN},
    )


_OWN = {"item_id", "subject_id", "superseded_by", "run_id", "step_seq", "message_ids"}
_PLAIN = ItemOut.model_fields.keys() - _OWN


def _moved(
    request: HttpRequest, response: HttpResponse, item_id: str, wanted: BecauseIn, move: Callable[..., Any]
) -> ItemFullOut:
    version = acting.optional_version(request)

    def act(actor: Actor) -> None:
        move(parse_id("item", item_id), expected_version=version, reason=wanted.reason, actor=actor)

    return _changed(request, response, item_id, wanted, act)


def _changed(
    request: HttpRequest, response: HttpResponse, item_id: str, wanted: BecauseIn, act: Callable[[Actor], None]
) -> ItemFullOut:
    actor = acting.writer(request)
    acting.once(request, actor, wanted, lambda: act(actor))
    return _full(actor, response, item_id)


def _full(actor: Actor, response: HttpResponse, item_id: str) -> ItemFullOut:
    def read() -> ItemFullOut:
        row, words = listing.find(item_id)
        revisions = [_revision(each) for each in history.of(row, words)]
        uses = ledger.uses_of(row.id)
        return ItemFullOut(
            **shown(row).model_dump(),
            revisions=revisions,
            uses=UsesOut(
                runs=uses.count, run_ids=[public_id("run", each) for each in uses.run_ids], last_at=uses.last_at
            ),
        )

    found = acting.read(actor, read)
    acting.versioned(response, found.version)
    return found


def _revision(row: Revision) -> RevisionOut:
    plain = {name: getattr(row, name) for name in RevisionOut.model_fields.keys() - {"run_id"}}
    return RevisionOut(run_id=row.run or None, **plain)


def _known(each: Known) -> KnownOut:
    return KnownOut(
        item_id=each.public_id,
        version=each.version,
        kind=each.kind,
        namespace=each.namespace,
        text=each.text,
        facts=each.facts,
        pinned=each.pinned,
        importance=each.importance,
        valid_from=each.valid_from,
        valid_to=each.valid_to,
        known_since=each.since,
        version_now=each.version_now,
        status_now=each.status_now,
    )
