"""Audit entries of members, keys and settings. Audit stands above tenants, so the call goes up at run time."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Audited


def record(
    subject: Audited, *, action: str, actor: Actor, reason: str = "", detail: Mapping[str, Any] | None = None
) -> None:
    """An entry in the transaction of the act. Raises: ImportError without agentstate.audit, so nothing goes unseen."""
    trail = import_module("agentstate.audit.trail")
    trail.record(subject, action=action, actor=actor, reason=reason, detail=detail)
