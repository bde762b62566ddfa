"""Subjects: found or made by their names, read, changed."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from agentstate.core.ids import parse_id, public_id
from agentstate.http.schemas import Problem
from agentstate.http.waiting import offloaded
from agentstate.tenants.actors import Actor
from memory.api import acting, sessions
from memory.schemas.sessions import MessagePageOut, TimeQuery
from memory.schemas.subjects import (
    AliasIn,
    AliasOut,
    EvictedOut,
    SubjectFullOut,
    SubjectIn,
    SubjectOut,
    SubjectPageOut,
    SubjectPatch,
    SubjectQuery,
)
from memory.selectors import directory, listing
from memory.selectors.directory import SubjectRow
from memory.services import subjects

router = Router()


@router.post(
    "/memory/subjects",
    response={200: SubjectFullOut, (409, 422): Problem},
    operation_id="resolve_subject",
    openapi_extra=acting.KEYED,
)
@offloaded
def resolve(request: HttpRequest, wanted: SubjectIn) -> SubjectFullOut:
    """The subject with these names, made when there is none. One that is found learns the names it lacked."""
    actor = acting.writer(request)

    def act() -> str:
        aliases = [subjects.AliasIn(each.kind, each.value) for each in wanted.aliases]
        external_id = wanted.external_id or None
        found = subjects.resolve(external_id=external_id, aliases=aliases, name=wanted.name, actor=actor)
        return public_id("subject", found.id)

    return _full(actor, acting.once(request, actor, wanted, act))


@router.get("/memory/subjects", response={200: SubjectPageOut, 422: Problem}, operation_id="list_subjects")
@offloaded
def list_subjects(request: HttpRequest, wanted: Query[SubjectQuery]) -> SubjectPageOut:
    """The latest active first; or the one that is `named`."""
    actor = acting.reader(request)
    acting.only(request, wanted)

    def read() -> SubjectPageOut:
        if wanted.named:
            found = directory.named(wanted.named)
            return SubjectPageOut(subjects=[_row(directory.get(found)[0])] if found else [], next="")
        page = directory.page(after=wanted.cursor)
        return SubjectPageOut(subjects=[_row(row) for row in page.rows], next=page.after)

    return acting.read(actor, read)


@router.get("/memory/subjects/{subject_id}", response={200: SubjectFullOut, 404: Problem}, operation_id="get_subject")
@offloaded
def get(request: HttpRequest, response: HttpResponse, subject_id: str) -> SubjectFullOut:
    """One subject with its other names; the version of what can be set of it is the ETag."""
    full = _full(acting.reader(request), subject_id)
    acting.versioned(response, full.version)
    return full


@router.patch(
    "/memory/subjects/{subject_id}",
    response={200: SubjectFullOut, (404, 409, 422): Problem},
    operation_id="change_subject",
    openapi_extra=acting.IF_SEEN,
)
@offloaded
def change(request: HttpRequest, response: HttpResponse, subject_id: str, wanted: SubjectPatch) -> SubjectFullOut:
    """Its name and its cap. A smaller cap makes the least of its unpinned items leave recall at once; see `evicted`.

    With If-Match: 409 when somebody changed it since, with what stands by now.
    """
    actor = acting.writer(request)
    seen = acting.optional_version(request)

    def act() -> list[dict[str, Any]]:
        found, version = parse_id("subject", subject_id), seen
        given: dict[str, Any] = {"actor": actor, "reason": wanted.reason}
        if "name" in wanted.model_fields_set:
            named = subjects.rename(found, name=wanted.name or "", expected_version=version, **given)
            version = named.audit_seq if seen is not None and named.audit_seq == seen + 1 else seen
        if "cap_bytes" not in wanted.model_fields_set:
            return []
        evicted = subjects.set_cap(found, cap_bytes=wanted.cap_bytes, expected_version=version, **given)
        return [{"item_id": public_id("item", each.item_id), "bytes": each.bytes} for each in evicted]

    evicted = acting.once(request, actor, wanted, act)
    full = _full(actor, subject_id)
    full.evicted = [EvictedOut(**each) for each in evicted]
    acting.versioned(response, full.version)
    return full


@router.post(
    "/memory/subjects/{subject_id}/aliases",
    response={200: SubjectFullOut, (404, 409, 422): Problem},
    operation_id="add_alias",
    openapi_extra=acting.KEYED,
)
@offloaded
def add_alias(request: HttpRequest, subject_id: str, wanted: AliasIn) -> SubjectFullOut:
    """Another name of it. 409: the name belongs to another subject."""
    actor = acting.writer(request)

    def act() -> None:
        subjects.add_alias(parse_id("subject", subject_id), subjects.AliasIn(wanted.kind, wanted.value), actor=actor)

    acting.once(request, actor, wanted, act)
    return _full(actor, subject_id)


@router.delete(
    "/memory/subjects/{subject_id}/aliases/{alias_id}",
    response={200: SubjectFullOut, 404: Problem},
    operation_id="remove_alias",
)
@offloaded
def remove_alias(request: HttpRequest, subject_id: str, alias_id: str) -> SubjectFullOut:
    """Harmless when it is gone."""
    actor = acting.writer(request)

    def act() -> None:
        subjects.remove_alias(parse_id("subject", subject_id), parse_id("alias", alias_id), actor=actor)

    acting.once(request, actor, None, act)
    return _full(actor, subject_id)


@router.get(
    "/memory/subjects/{subject_id}/messages",
    response={200: MessagePageOut, (404, 422): Problem},
    operation_id="list_subject_messages",
)
@offloaded
def list_messages(request: HttpRequest, subject_id: str, wanted: Query[TimeQuery]) -> MessagePageOut:
    """What was said in a span of time, in all sessions of the subject, the oldest first."""
    actor = acting.reader(request)
    acting.only(request, wanted)

    def read() -> MessagePageOut:
        found = parse_id("subject", subject_id)
        directory.get(found)
        page = listing.spoken(
            found,
            since=wanted.since,
            until=wanted.until,
            with_undone=wanted.with_undone,
            after=wanted.cursor,
            rows_max=wanted.limit,
        )
        return MessagePageOut(messages=[sessions.message(row) for row in page.rows], next=page.after)

    return acting.read(actor, read)


def _full(actor: Actor, subject_id: str) -> SubjectFullOut:
    def read() -> SubjectFullOut:
        row, words = directory.find(subject_id)
        aliases = [
            AliasOut(alias_id=public_id("alias", alias.id), kind=alias.kind, value=alias.value)
            for alias in directory.aliases_of(row.id, words)
        ]
        return SubjectFullOut(**_row(row).model_dump(), aliases=aliases)

    return acting.read(actor, read)


def _row(row: SubjectRow) -> SubjectOut:
    return SubjectOut(
        subject_id=row.public_id,
        external_id=row.external_id,
        name=row.name,
        status=row.status,
        items=row.items,
        item_bytes=row.item_bytes,
        pinned_bytes=row.pinned_bytes,
        cap_bytes=row.cap_bytes,
        own_cap_bytes=row.own_cap_bytes,
        sessions=row.sessions,
        messages=row.messages,
        version=row.version,
        created_at=row.created_at,
        last_active_at=row.last_active_at,
    )
