"""Whether a context will recall at all, read before its transaction: a model whose answer nobody needs is not asked."""

from __future__ import annotations

from uuid import UUID

import orjson

from agentstate.db import sql
from agentstate.llm import embedding
from agentstate.tenants.scope import scope_of
from memory import policies
from memory.policies import ANY_AGENT, PREFIX
from memory.recall import questions
from memory.recall.questions import Asked

# `of`: a statement of one column, the agent. Index: tenants_tenantsetting_key.
_STORED = f"""
SELECT a.agent, (SELECT jsonb_object_agg(t.key, t.value)::text FROM tenants_tenantsetting t
  WHERE t.key IN ('{PREFIX}{ANY_AGENT}', '{PREFIX}' || a.agent))
FROM ({{of}}) a (agent)"""
_OF_SESSION = """
SELECT coalesce(nullif(%(agent)s, ''), agent) FROM memory_session WHERE {which} = %(session)s"""


def of_session(*, agent: str, session: UUID | str) -> sql.Query:
    """The agent whose policy counts: the named one, else the session's. `session`: its id or its key."""
    which = "id" if isinstance(session, UUID) else "key"
    return _OF_SESSION.format(which=which), {"agent": agent, "session": session}


def asked(question: str, *, tenant_id: UUID, of: sql.Query) -> Asked:
    """The question of a context, in the space of the model only if the policy of the agent that `of` finds may recall.

    Needs no scope, as questions.asked(). Raises: Invalid.
    """
    if embedding.embedder() is not None and not _may_recall(tenant_id, of):
        return questions.plain(question, why_less="the policy did not recall when it was asked")
    return questions.asked(question, tenant_id=tenant_id)


def _may_recall(tenant_id: UUID, of: sql.Query) -> bool:
    """One round trip. Without such an agent, session or run there will be no context."""
    statement, args = of
    _, found = sql.together(scope_of(tenant_id), (_STORED.format(of=statement), args))
    if not found:
        return False
    agent, stored = found[0]
    return policies.of_stored(agent, orjson.loads(stored) if stored else {}).retrieval not in policies.UNASKED
