"""Memory of every kind as an agent, people and upkeep leave it, and what a fault could make of each row."""

from __future__ import annotations

import time
from dataclasses import dataclass
from uuid import UUID

import agentstate as st
from agentstate.affairs import erasing
from agentstate.core.ids import parse_id
from agentstate.sdk.testing import drive_once
from agentstate.tenants.actors import Actor
from agentstate.tenants.scope import tenant_scope
from memory.models import Item, Proposal, Session, Subject
from memory.recall import embedding
from memory.services import editing, items, messages, policies, prompts, proposals, sessions, subjects, summaries
from memory.services.drafts import NewItem
from memory.services.messages import NewMessage
from runs.engine.store import LocalStore
from tests.memory.recall_world import WordEmbedder

SEGMENT = 4  # messages that are told shorter at once


@st.agent("keeper")
def keeper(subject: str) -> str:
    """Every verb of st.memory that writes or is entered into the ledger."""
    session = st.memory.session(subject, name="Ada Lind")
    for number in range(SEGMENT + 2):
        session.say("user" if number % 2 == 0 else "assistant", f"Line {number} about the lamp.")
    st.memory.remember("Ada ordered a green lamp.", namespace="orders", pinned=True)
    st.memory.remember("Ada lives in Oslo.")
    st.memory.propose("Ada prefers letters to calls.")
    st.memory.progress.write({"goal": "Deliver the lamp."})
    st.memory.progress.read()
    session.undo(1, reason="said too early")
    st.memory.recall("Which lamp did Ada order?")
    return st.memory.context("Where does Ada live?").text


@dataclass
class Memories:
    """Ids of what a planted fault happens to."""

    subject: UUID
    neighbour: UUID  # another subject, with little
    erased: UUID
    session: UUID
    item: UUID
    run: UUID


def remembered(actor: Actor) -> Memories:
    """Committed, in transactions of its own."""
    store = LocalStore(actor, lease_s=60)
    store.register(keeper.spec())
    tenant_id = store.tenant_id
    with tenant_scope(tenant_id):
        prompts.write("keeper", "Be brief.", actor=actor, reason="as agreed")
        policies.set_for_agent("keeper", {"summarise_at_messages": SEGMENT}, actor=actor, reason="short sessions")
    run_id = store.admit("keeper", {"subject": "ada"}).run_id
    driven = drive_once(keeper, run_id, store=store)
    assert driven is not None and driven.status == "succeeded", driven
    with tenant_scope(tenant_id):
        subject = Subject.objects.get(external_id="ada")
        session = Session.objects.get(subject=subject)
        items.remember(subject.id, NewItem("Ada has a dog."), actor=actor, reason="she said so")
        forgotten = Item.objects.exclude(pinned=True).filter(subject=subject).order_by("id")[0]
        editing.forget(forgotten.id, reason="not true", actor=actor)
        neighbour = _met("ben", actor)
        erased = _met("cleo", actor)
    _accept(tenant_id, actor)
    assert summaries.summarise_due(tenant_id, until_s=time.monotonic() + 20) > 0
    with tenant_scope(tenant_id):
        while not (batch := embedding.embed_batch("", embedder=WordEmbedder())).is_over and batch.done:
            pass
        item = Item.objects.get(subject=subject, pinned=True)
    assert erasing.erase(erased, actor=actor, reason="asked for it", confirm="cleo").receipt
    return Memories(subject.id, neighbour, erased, session.id, item.id, parse_id("run", run_id))


def _met(external_id: str, actor: Actor) -> UUID:
    subject = subjects.resolve(external_id=external_id, actor=actor)
    session = sessions.open(f"mail-{external_id}", subject_id=subject.id, agent="keeper", actor=actor)
    messages.append(session.id, [NewMessage("user", f"I am {external_id}.")], actor=actor)
    items.remember(subject.id, NewItem(f"{external_id} wrote once."), actor=actor, reason="it did")
    subject_id: UUID = subject.id
    return subject_id


def _accept(tenant_id: UUID, actor: Actor) -> None:
    with tenant_scope(tenant_id):
        asked = Proposal.objects.get(status="pending")
        proposals.accept(asked.id, actor=actor)


UNIT = "UPDATE memory_unit SET in_recall = NOT in_recall WHERE id = "
A_MESSAGE = "(SELECT id FROM memory_message WHERE session_id = %(session)s AND seq = 1)"
COPY = "INSERT INTO {table} SELECT (jsonb_populate_record(t, '{change}')).* FROM {table} t WHERE {where}"
NEW = "00000000-0000-7000-8000-000000000001"
RUNNING = "session_id = %(session)s AND level = 'session' AND NOT stale"

# (rule, SQL with the ids of Memories)
PLANTED = [
    ("subject_counts", "UPDATE memory_subject SET item_bytes = item_bytes + 1 WHERE id = %(subject)s"),
    ("subject_counts", "UPDATE memory_subject SET pinned_bytes = 0 WHERE id = %(subject)s"),
    ("subject_counts", "UPDATE memory_subject SET item_count = 0 WHERE id = %(subject)s"),
    ("subject_counts", "UPDATE memory_subject SET session_count = 2 WHERE id = %(subject)s"),
    ("subject_counts", "UPDATE memory_subject SET message_count = 99 WHERE id = %(subject)s"),
    ("subject_counts", "UPDATE memory_item SET status = 'forgotten' WHERE id = %(item)s"),
    ("under_the_cap", "UPDATE memory_subject SET cap_bytes = 10 WHERE id = %(subject)s"),
    ("under_the_cap", "UPDATE memory_subject SET item_bytes = 8193 WHERE id = %(subject)s"),
    ("under_the_cap", "UPDATE memory_subject SET item_count = 301 WHERE id = %(subject)s"),
    ("session_is_whole", "DELETE FROM memory_message WHERE session_id = %(session)s AND seq = 2"),
    ("session_is_whole", "DELETE FROM memory_message WHERE session_id = %(session)s AND seq = 6"),
    ("session_is_whole", "UPDATE memory_message SET seq = 9 WHERE session_id = %(session)s AND seq = 6"),
    ("session_is_whole", "UPDATE memory_message SET undone_in = NULL WHERE session_id = %(session)s AND seq = 6"),
    ("session_is_whole", "UPDATE memory_message SET undone_in = 7 WHERE session_id = %(session)s AND seq = 6"),
    ("session_is_whole", "UPDATE memory_session SET message_count = 6 WHERE id = %(session)s"),
    ("session_is_whole", "UPDATE memory_session SET turns = 0 WHERE id = %(session)s"),
    ("session_is_whole", "UPDATE memory_session SET tokens = tokens - 1 WHERE id = %(session)s"),
    ("session_is_whole", "UPDATE memory_session SET summarised_seq = 7 WHERE id = %(session)s"),
    ("session_is_whole", "UPDATE memory_session SET extracted_seq = 7 WHERE id = %(session)s"),
    ("versions_are_whole", "DELETE FROM memory_itemrevision WHERE item_id = %(item)s"),
    ("versions_are_whole", "UPDATE memory_item SET version = version + 1 WHERE id = %(item)s"),
    ("versions_are_whole", "UPDATE memory_progress SET version = 3"),
    ("versions_are_whole", "DELETE FROM memory_promptversion"),
    ("item_as_last_revised", "UPDATE memory_item SET importance = 0.9 WHERE id = %(item)s"),
    ("item_as_last_revised", "UPDATE memory_item SET pinned = false WHERE id = %(item)s"),
    ("item_as_last_revised", "UPDATE memory_itemrevision SET status = 'forgotten' WHERE item_id = %(item)s"),
    ("found_as_it_stands", f"{UNIT} {A_MESSAGE}"),
    ("found_as_it_stands", f"{UNIT} %(item)s"),
    ("found_as_it_stands", f"DELETE FROM memory_unit WHERE id = {A_MESSAGE}"),
    ("found_as_it_stands", "DELETE FROM memory_unit WHERE id = %(item)s"),
    ("found_as_it_stands", f"UPDATE memory_unit SET seq = 99 WHERE id = {A_MESSAGE}"),
    ("found_as_it_stands", f"DELETE FROM memory_message WHERE id = {A_MESSAGE}"),
    ("found_as_it_stands", "UPDATE memory_unit SET kind = 'message' WHERE id = %(item)s"),
    ("tokens_of_one_model", "UPDATE memory_unittokens SET model = 'other@1' WHERE unit_id = %(item)s"),
    ("tokens_of_one_model", "UPDATE memory_unit SET model = '', vector = NULL WHERE id = %(item)s"),
    (
        "one_summary_in_force",
        COPY.format(table="memory_summary", change=f'{{"id": "{NEW}"}}', where=RUNNING),
    ),
    (
        "one_summary_in_force",
        f"""INSERT INTO memory_summary SELECT (jsonb_populate_record(y, jsonb_build_object('id', gen_random_uuid(),
          'session_id', null, 'level', 'subject'))).* FROM memory_summary y, generate_series(1, 2) WHERE {RUNNING}""",
    ),
    ("one_summary_in_force", f"UPDATE memory_summary SET to_seq = 6 WHERE {RUNNING}"),
    ("one_summary_in_force", "UPDATE memory_session SET summarised_seq = 0 WHERE id = %(session)s"),
    ("one_summary_in_force", f"UPDATE memory_message SET undone_in = 3 WHERE id = {A_MESSAGE}"),
    ("one_summary_in_force", f"UPDATE memory_summary SET source_ids = ARRAY['{NEW}'::uuid] WHERE {RUNNING}"),
    ("one_summary_in_force", f"UPDATE memory_summary SET source_ids = ARRAY[id] WHERE {RUNNING}"),
    ("same_subject", f"UPDATE memory_message SET subject_id = %(neighbour)s WHERE id = {A_MESSAGE}"),
    ("same_subject", f"UPDATE memory_summary SET subject_id = %(neighbour)s WHERE {RUNNING}"),
    ("same_subject", f"UPDATE memory_unit SET subject_id = %(neighbour)s WHERE id = {A_MESSAGE}"),
    ("same_subject", "UPDATE memory_itemrevision SET subject_id = %(neighbour)s WHERE item_id = %(item)s"),
    ("same_subject", "UPDATE memory_unittokens SET subject_id = %(neighbour)s WHERE unit_id = %(item)s"),
    ("same_subject", "UPDATE memory_proposal SET subject_id = %(neighbour)s WHERE subject_id = %(subject)s"),
    ("erased_is_gone", "UPDATE memory_itemrevision SET subject_id = %(erased)s WHERE item_id = %(item)s"),
    ("erased_is_gone", "UPDATE memory_unittokens SET subject_id = %(erased)s WHERE unit_id = %(item)s"),
    ("erased_is_gone", f"UPDATE memory_message SET subject_id = %(erased)s WHERE id = {A_MESSAGE}"),
    ("erased_is_gone", "UPDATE memory_ownerkey SET destroyed_at = NULL, wrapped = 'x' WHERE owner_id = %(erased)s"),
    ("erased_is_gone", "UPDATE memory_ownerkey SET destroyed_at = now(), wrapped = '' WHERE owner_id = %(subject)s"),
    ("erased_is_gone", "DELETE FROM memory_ownerkey WHERE owner_id = %(subject)s"),
    ("given_from_a_version", "UPDATE memory_injection SET version = 9 WHERE source = 'item'"),
    ("given_from_a_version", "UPDATE memory_injection SET version = 9 WHERE source = 'progress'"),
    ("given_from_a_version", "UPDATE memory_injection SET version = 9 WHERE source = 'prompt'"),
    ("given_from_a_version", "UPDATE memory_injection SET subject_id = %(neighbour)s WHERE source = 'message'"),
    ("given_from_a_version", "UPDATE memory_injection SET position = 1"),
    ("given_from_a_version", f"UPDATE memory_injection SET run_id = '{NEW}'"),
    ("remembered_once", "DELETE FROM memory_receipt WHERE at = (SELECT max(at) FROM memory_receipt)"),
    (
        "remembered_once",
        COPY.format(
            table="memory_message",
            change=f'{{"id": "{NEW}", "seq": 7, "client_id": null}}',
            where=f"id = {A_MESSAGE}",
        ),
    ),
    (
        "remembered_once",
        COPY.format(table="memory_item", change=f'{{"id": "{NEW}", "status": "forgotten"}}', where="id = %(item)s"),
    ),
    ("proposal_decided_once", "UPDATE memory_proposal SET decided_at = NULL WHERE subject_id = %(subject)s"),
    ("proposal_decided_once", f"UPDATE memory_proposal SET item_id = '{NEW}' WHERE subject_id = %(subject)s"),
]
