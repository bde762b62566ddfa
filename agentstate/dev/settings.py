"""Django's settings for `up`, `stop` and `test`, which start processes and never touch a row."""

from __future__ import annotations

SECRET_KEY = "unused"  # noqa: S105 (nothing is signed here)
INSTALLED_APPS = ["agentstate.dev"]
USE_TZ = True
