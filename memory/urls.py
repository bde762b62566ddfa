"""Pages of memory, below /t/<tenant>/."""

from django.urls import URLPattern, path

from memory.views import documents, editor, holdings, items, policies, recall, remembering, review, sessions, subjects


def versioned(below: str, kind: str) -> list[URLPattern]:
    """The pages of one kind of document with versions."""
    one, with_kind = f"t/<slug:tenant>/{below}/<str:public>/", {"kind": kind}
    return [
        path(one, documents.document, with_kind, name=kind),
        path(f"{one}preview/", documents.preview, with_kind, name=f"{kind}-preview"),
        path(f"{one}restore/", documents.restore, with_kind, name=f"{kind}-restore"),
    ]


def policy(below: str, of: str) -> list[URLPattern]:
    """The pages of the settings of the tenant, or of an agent that the query names."""
    one, with_of = f"t/<slug:tenant>/memories/settings/{below}/", {"of": of}
    return [
        path(one, policies.policy, with_of, name=f"{of}-policy"),
        path(f"{one}preview/", policies.preview, with_of, name=f"{of}-policy-preview"),
        path(f"{one}restore/", policies.restore, with_of, name=f"{of}-policy-restore"),
    ]


urlpatterns = [
    path("t/<slug:tenant>/memories/", subjects.subjects, name="subjects"),
    path("t/<slug:tenant>/memories/new/", subjects.new, name="subject-new"),
    path("t/<slug:tenant>/memories/review/", review.inbox, name="review"),
    path("t/<slug:tenant>/memories/review/<str:proposal>/", review.proposal, name="proposal"),
    path("t/<slug:tenant>/memories/prompts/", documents.prompt_list, name="prompts"),
    path("t/<slug:tenant>/memories/prompts/new/", documents.prompt_new, name="prompt-new"),
    *versioned("memories/prompts", "prompt"),
    path("t/<slug:tenant>/memories/settings/", policies.settings, name="memory-settings"),
    *policy("tenant", "tenant"),
    *policy("agent", "agent"),
    path("t/<slug:tenant>/memories/<str:subject>/", subjects.subject_page, name="subject"),
    path("t/<slug:tenant>/memories/<str:subject>/settings/", subjects.settings, name="subject-settings"),
    path("t/<slug:tenant>/memories/<str:subject>/print/", holdings.holdings_page, name="subject-print"),
    path("t/<slug:tenant>/memories/<str:subject>/recall/", recall.recall_page, name="recall"),
    path("t/<slug:tenant>/memories/<str:subject>/remember/", remembering.remember, name="item-new"),
    path("t/<slug:tenant>/memories/<str:subject>/<str:item>/", editor.item, name="item"),
    path("t/<slug:tenant>/memories/<str:subject>/<str:item>/preview/", editor.preview, name="item-preview"),
    path("t/<slug:tenant>/memories/<str:subject>/<str:item>/lock/", editor.lock, name="item-lock"),
    path("t/<slug:tenant>/memories/<str:subject>/<str:item>/forget/", editor.forget, name="item-forget"),
    path("t/<slug:tenant>/memories/<str:subject>/<str:item>/restore/", editor.restore, name="item-restore"),
    path("t/<slug:tenant>/memories/<str:subject>/<str:item>/compare/", items.compare, name="item-compare"),
    path("t/<slug:tenant>/sessions/", sessions.sessions, name="sessions"),
    path("t/<slug:tenant>/sessions/<str:session>/", sessions.session_page, name="session"),
    path("t/<slug:tenant>/sessions/<str:session>/undo/", sessions.undo, name="session-undo"),
    path("t/<slug:tenant>/sessions/<str:session>/close/", sessions.close, name="session-close"),
    path("t/<slug:tenant>/sessions/<str:session>/calls/<str:call>/", sessions.call_page, name="session-call"),
    path("t/<slug:tenant>/progress/", documents.progress_list, name="progress-list"),
    *versioned("progress", "progress"),
]
