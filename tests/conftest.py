"""The people of the tests, and fixtures of pytest-django that must be ours: those of a -p plugin lose to it."""

from __future__ import annotations

from agentstate.dev.testing import django_db_setup

__all__ = ["django_db_setup"]
