"""Pages that belong to no tier. The pages of runs are in runs.urls."""

from django.urls import path

from agentstate.web.views import erase, export, login, now, preferences

urlpatterns = [
    path("", login.choose_tenant, name="home"),
    path("login/", login.sign_in, name="login"),
    path("logout/", login.sign_out, name="logout"),
    path("preferences/", preferences.preferences, name="preferences"),
    path("t/<slug:tenant>/", now.now, name="now"),
    path("t/<slug:tenant>/health/", now.health, name="health"),
    path("t/<slug:tenant>/memories/erasures/", erase.listed, name="erasures"),
    path("t/<slug:tenant>/memories/<str:subject>/erase/", erase.erase, name="subject-erase"),
    path("t/<slug:tenant>/memories/<str:subject>/export/", export.export, name="subject-export"),
    path("t/<slug:tenant>/memories/<str:subject>/erase/receipt/", erase.receipt, name="subject-receipt"),
]
