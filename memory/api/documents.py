"""Progress documents and prompts: read, and written as new versions."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from agentstate.core.errors import Invalid, NotFound
from agentstate.core.ids import public_id
from agentstate.http import requests
from agentstate.http.schemas import Problem
from agentstate.http.waiting import offloaded
from memory.api import acting
from memory.api.acting import named
from memory.schemas.documents import (
    ProgressIn,
    ProgressOut,
    ProgressPageOut,
    ProgressQuery,
    PromptIn,
    PromptListOut,
    PromptOut,
    PromptQuery,
)
from memory.selectors import progress as progress_reads
from memory.selectors import prompts as prompt_reads
from memory.selectors.progress import OpenedProgress
from memory.selectors.prompts import OpenedPrompt
from memory.services import progress, prompts

router = Router()
REFUSALS = {(404, 409, 413, 422): Problem}


@router.get("/memory/progress", response={200: ProgressPageOut, (404, 422): Problem}, operation_id="list_progress")
@offloaded
def list_progress(request: HttpRequest, response: HttpResponse, wanted: Query[ProgressQuery]) -> ProgressPageOut:
    """The documents, newest first; or the one of this `key`, with its version as ETag."""
    actor = acting.reader(request)
    acting.only(request, wanted)
    if not wanted.key:
        page = acting.read(actor, lambda: progress_reads.latest(after=wanted.cursor, rows_max=wanted.limit))
        return ProgressPageOut(documents=[_document(row) for row in page.rows], next=page.after)
    found = acting.read(actor, lambda: progress_reads.read(wanted.key))
    if found is None:
        raise NotFound("Nothing has written a progress document of this key yet.")
    acting.versioned(response, found.version)
    return ProgressPageOut(documents=[_document(found)], next="")


@router.put(
    "/memory/progress",
    response={200: ProgressOut, **REFUSALS},
    operation_id="write_progress",
    openapi_extra=acting.VERSIONED,
)
@offloaded
def write_progress(request: HttpRequest, response: HttpResponse, wanted: ProgressIn) -> ProgressOut:
    """A new version; `If-Match: "0"` for a document that is not there yet. 409 says which version stands."""
    actor = acting.writer(request)
    version = requests.expected_version(request)
    if bool(wanted.body) == bool(wanted.sections):
        raise Invalid("Send either the whole body or its sections.", field="/body")

    def act() -> list[Any]:
        written = progress.write(
            wanted.key,
            wanted.body or wanted.sections,
            expected_version=version,
            agent=wanted.agent,
            reason=wanted.reason,
            actor=actor,
        )
        return [written.progress.version, written.folded]

    number, folded = acting.once(request, actor, wanted, act)
    acting.versioned(response, number)
    found = acting.read(actor, lambda: progress_reads.read(wanted.key))
    assert found is not None, "it was written just now"
    return _document(found, folded=folded)


@router.get("/memory/prompts", response={200: PromptListOut, (404, 422): Problem}, operation_id="list_prompts")
@offloaded
def list_prompts(request: HttpRequest, response: HttpResponse, wanted: Query[PromptQuery]) -> PromptListOut:
    """What is in force, of all agents; of one `agent` and `name` with its version as ETag."""
    actor = acting.reader(request)
    acting.only(request, wanted)
    if not wanted.agent:
        return PromptListOut(prompts=[_prompt(row) for row in acting.read(actor, prompt_reads.every)])
    name = wanted.name or prompt_reads.MAIN
    found = acting.read(actor, lambda: prompt_reads.in_force(wanted.agent, name))
    if found is None:
        raise NotFound("This agent has no prompt of that name.")
    acting.versioned(response, found.version)
    return PromptListOut(prompts=[_prompt(found)])


@router.put(
    "/memory/prompts",
    response={200: PromptOut, **REFUSALS},
    operation_id="write_prompt",
    openapi_extra=acting.VERSIONED,
)
@offloaded
def write_prompt(request: HttpRequest, response: HttpResponse, wanted: PromptIn) -> PromptOut:
    """A new version, in force at once; `If-Match: "0"` for one that is not there yet."""
    actor = acting.writer(request)
    version = requests.expected_version(request)

    def act() -> None:
        prompts.write(
            wanted.agent,
            wanted.text,
            name=wanted.name,
            expected_version=version,
            reason=wanted.reason,
            actor=actor,
        )

    acting.once(request, actor, wanted, act)
    found = acting.read(actor, lambda: prompt_reads.in_force(wanted.agent, wanted.name))
    assert found is not None, "it was written just now"
    acting.versioned(response, found.version)
    return _prompt(found)


def _document(row: OpenedProgress, *, folded: int = 0) -> ProgressOut:
    own = {"progress_id", "subject_id", "sections", "run_id", "folded"}
    return ProgressOut(
        progress_id=row.public_id,
        subject_id=named("subject", row.subject_id),
        sections=row.sections.as_dict(),
        run_id=named("run", row.run_id),
        folded=folded,
        **{name: getattr(row, name) for name in ProgressOut.model_fields.keys() - own},
    )


def _prompt(row: OpenedPrompt) -> PromptOut:
    plain = {name: getattr(row, name) for name in PromptOut.model_fields.keys() - {"prompt_id"}}
    return PromptOut(prompt_id=public_id("prompt", row.prompt_id), **plain)
