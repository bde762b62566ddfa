"""Pages of memory, below /t/<tenant>/."""

from django.urls import path

from memory.views import holdings, items, sessions, subjects

urlpatterns = [
    path("t/<slug:tenant>/memories/", subjects.subjects, name="subjects"),
    path("t/<slug:tenant>/memories/new/", subjects.new, name="subject-new"),
    path("t/<slug:tenant>/memories/<str:subject>/", subjects.subject_page, name="subject"),
    path("t/<slug:tenant>/memories/<str:subject>/settings/", subjects.settings, name="subject-settings"),
    path("t/<slug:tenant>/memories/<str:subject>/print/", holdings.holdings_page, name="subject-print"),
    path("t/<slug:tenant>/memories/<str:subject>/<str:item>/", items.item_page, name="item"),
    path("t/<slug:tenant>/memories/<str:subject>/<str:item>/compare/", items.compare, name="item-compare"),
    path("t/<slug:tenant>/sessions/", sessions.sessions, name="sessions"),
    path("t/<slug:tenant>/sessions/<str:session>/", sessions.session_page, name="session"),
    path("t/<slug:tenant>/sessions/<str:session>/undo/", sessions.undo, name="session-undo"),
    path("t/<slug:tenant>/sessions/<str:session>/close/", sessions.close, name="session-close"),
    path("t/<slug:tenant>/sessions/<str:session>/calls/<str:call>/", sessions.call_page, name="session-call"),
]
