"""Pages of runs, below /t/<tenant>/."""

from django.urls import path

from runs.views import approval, control, inbox, live, plan, run, runs, settle, start, step

urlpatterns = [
    path("t/<slug:tenant>/runs/", runs.run_list, name="runs"),
    path("t/<slug:tenant>/runs/<str:run>/", run.run_page, name="run"),
    path("t/<slug:tenant>/runs/<str:run>/state/", run.state_page, name="run-state"),
    path("t/<slug:tenant>/runs/<str:run>/scratchpad/", run.scratchpad_page, name="run-scratchpad"),
    path("t/<slug:tenant>/runs/<str:run>/scratchpad/<int:n>/", run.entry_page, name="run-entry"),
    path("t/<slug:tenant>/runs/<str:run>/audit/", run.audit_page, name="run-audit"),
    path("t/<slug:tenant>/runs/<str:run>/live/", live.stream, name="run-live"),
    path("t/<slug:tenant>/runs/<str:run>/resume/", plan.resume, name="run-resume"),
    path("t/<slug:tenant>/runs/<str:run>/<str:act>/", control.act, name="run-act"),
    path("t/<slug:tenant>/runs/<str:run>/steps/<int:seq>/", step.step_page, name="step"),
    path("t/<slug:tenant>/runs/<str:run>/steps/<int:seq>/settle/", settle.settle, name="settle"),
    path("t/<slug:tenant>/approvals/", inbox.inbox, name="approvals"),
    path("t/<slug:tenant>/approvals/<str:approval>/", approval.approval, name="approval"),
    path("t/<slug:tenant>/agents/", start.agents, name="start"),
    path("t/<slug:tenant>/agents/<path:agent>/", start.start, name="start-agent"),
]
