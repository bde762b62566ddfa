"""One step: what went in, what came out, every attempt, the facts of its effect, what it changed in the state."""

from __future__ import annotations

import dataclasses

from django.http import HttpResponse
from django.views.decorators.http import require_GET

from agentstate.core.errors import Corrupt
from agentstate.http.pages import TenantRequest, tenant_page, twin
from runs.selectors import approvals, records, remembered, steps, story
from runs.views.showing import show


@require_GET
@tenant_page("runs.read")
def step_page(request: TenantRequest, run: str, seq: int) -> HttpResponse:
    found = story.find(run)
    step = steps.detail(found.id, seq)
    row = step.row
    given = remembered.of_step(found.id, seq, name=row.name, at=row.started_at) if row.kind == "memory" else None
    if request.GET.get("format") == "json":
        injected = given.plain() if given else []
        return twin(dataclasses.asdict(step) | {"run": found.public_id, "injected": injected})
    questions = approvals.of_run(found.id, step_seq=seq) if step.asked else []
    decided = next((item for item in reversed(questions) if item.kind != "settle" and not item.pending), None)
    context: dict[str, object] = {
        "section": "runs",
        "run": found,
        "step": step,
        "row": step.row,
        "questions": questions,
        "decided": decided,
        "edited_args": decided.decision.get("args") if decided and decided.status == "edited" else None,
        "open_question": next((item for item in questions if item.pending), None),
        "raw": request.GET.get("raw") == "1",
        "given": given,
    }
    context.update(_state_change(found.id, step))
    return show(request, "runs/step.html", context)


def _state_change(run_id: object, step: steps.StepDetail) -> dict[str, object]:
    """The state before and after the frame that recorded this step's end."""
    if step.end_frame is None:
        return {}
    try:
        around = records.states_around(run_id, step.end_frame)  # type: ignore[arg-type]
    except Corrupt as problem:
        return {"state_problem": problem.message}
    return {"around": around, "frame": step.end_frame} if around else {"frame": step.end_frame, "compacted": True}
