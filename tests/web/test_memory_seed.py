"""A fresh demo tenant shows memory in every state a page has, and seeding it again changes nothing."""

from __future__ import annotations

from uuid import UUID

import pytest
from django.test import Client

from agentstate.dev import seed
from agentstate.tenants import actors
from agentstate.tenants.models import Tenant
from agentstate.tenants.scope import tenant_scope
from memory.models import Injection, Item, Message, PromptVersion, Proposal, Session, Subject
from tests.web.forms import form, text

pytestmark = pytest.mark.django_db

COUNTED = (Subject, Item, Session, Message, Proposal, PromptVersion, Injection)


def seeded(tenant: Tenant) -> list[int]:
    with tenant_scope(tenant.id):
        seed._memories(actors.system("seed", tenant_id=tenant.id))
        return [model.objects.count() for model in COUNTED]


def test_the_demo_tenant_shows_subjects_sessions_and_a_proposal_once(
    tenant: Tenant, alice_client: Client, base: str
) -> None:
    first = seeded(tenant)
    assert all(first) and seeded(tenant) == first
    listed = text(alice_client.get(f"{base}/memories/"))
    assert "Marta Keller" in listed and "Sophie Dubois" in listed
    with tenant_scope(tenant.id):
        session = f"session_{Session.objects.get().id.hex}"
    assert text(alice_client.get(f"{base}/sessions/{session}/")).count("Knew ") == 3
    assert "May be phoned from 8:00" in text(alice_client.get(f"{base}/memories/review/"))
    assert "notes on returns" in text(alice_client.get(f"{base}/progress/"))


def test_seeding_again_leaves_what_people_have_changed(tenant: Tenant, alice_client: Client, base: str) -> None:
    seeded(tenant)
    with tenant_scope(tenant.id):
        item = Item.objects.get(pinned=True)
    address = f"{base}/memories/subject_{item.subject_id.hex}/item_{UUID(str(item.id)).hex}/"
    sent = {
        **form(text(alice_client.get(address)), having="text"),
        "text": "Phone at any time",
        "reason": "she said so",
    }
    assert alice_client.post(address, sent).status_code == 303
    before = text(alice_client.get(f"{address}?format=json"))
    seeded(tenant)
    assert text(alice_client.get(f"{address}?format=json")) == before
