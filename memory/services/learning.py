"""Extraction behind the conversation: what was said since the last time is read once, then proposed.

How far a session is read is a column of its row, so a lost message of the broker costs nothing and a killed round goes
on. Reading the same messages twice proposes nothing twice.
"""

from __future__ import annotations

import time
from uuid import UUID

import structlog
from django.db.models import F

from agentstate.core.errors import DomainError
from agentstate.core.failpoints import hit, register
from agentstate.llm.chat import ModelUnavailable
from agentstate.tenants.scope import tenant_scope
from memory import policies
from memory.models import Session
from memory.selectors import messages as reads
from memory.services import extraction, recording, upkeep
from memory.services.upkeep import Progressed

log = structlog.get_logger(__name__)
register("memory.extract.proposed", "what messages say proposed / how far their session is read")

NAME = "extract"
READ_MESSAGES = 50  # at once
LOOKED_MAX = 100


def learn_due(tenant_id: UUID, *, until_s: float) -> int:
    """Read what this tenant's sessions have said since, one stretch of each; how many. Until the monotonic moment.

    A model that is down ends the round: the next one tries again. Two at once are harmless.
    """
    with tenant_scope(tenant_id):
        # Index: memory_session_unread.
        unread = Session.objects.filter(last_seq__gt=F("extracted_seq")).order_by("id")
        sessions = list(unread.values_list("id", flat=True)[:LOOKED_MAX])
    done, failed = 0, ""
    for session_id in sessions:
        if time.monotonic() >= until_s:
            break
        try:
            done += learn(tenant_id, session_id)
        except ModelUnavailable as error:
            failed = upkeep.place_of(error)
            break
        except DomainError as error:  # one that cannot be read must not keep the others
            log.warning("memory.extract_refused", session=str(session_id), error=error.code)
    if sessions:
        with tenant_scope(tenant_id, durable=True):
            upkeep.step(NAME, lambda _: Progressed("", done, not failed, failed))
    return done


def learn(tenant_id: UUID, session_id: UUID) -> int:
    """The next stretch of one session; how many messages were read. Transactions of its own, a model between them.

    Raises: ModelUnavailable, and whatever extraction refuses: the stretch is then left for the next time, except what
    cannot be read at all, which is passed over.
    """
    with tenant_scope(tenant_id):
        session = Session.objects.filter(id=session_id).first()
        if session is None:
            return 0
        said = reads.following(session_id, session.extracted_seq, rows_max=READ_MESSAGES)
        off = policies.for_agent(session.agent).extraction == "off"
    to_seq = said[-1].seq if len(said) == READ_MESSAGES else session.last_seq
    try:
        if said and not off:
            extraction.after_turn(tenant_id, session_id, [message.id for message in said])
    except ModelUnavailable:
        raise
    except DomainError:
        _read_to(tenant_id, session_id, to_seq)
        raise
    hit("memory.extract.proposed")
    _read_to(tenant_id, session_id, to_seq)
    return len(said)


def _read_to(tenant_id: UUID, session_id: UUID, seq: int) -> None:
    with tenant_scope(tenant_id, durable=True):
        session = recording.locked(session_id)
        if session.extracted_seq < seq:
            session.extracted_seq = seq
            session.save(update_fields=["extracted_seq"])
