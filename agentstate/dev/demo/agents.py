"""The module that a worker imports to host the demo (AGENTSTATE_AGENTS=agentstate.dev.demo.agents)."""

from __future__ import annotations

from agentstate.dev.demo.refund_desk import refund_desk
from agentstate.dev.demo.research_notes import research_notes

__all__ = ["refund_desk", "research_notes"]
