"""The demo tenant "acme", a person of each role, what the shop remembers of some customers, and one API key.

Seeding again changes nothing.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict
from uuid import UUID

from django.conf import settings
from django.contrib.auth.hashers import make_password

from agentstate.core.clock import now
from agentstate.core.errors import Conflict, Unauthorised
from agentstate.dev.plan import write_private
from agentstate.tenants import api_keys, members
from agentstate.tenants.actors import Actor, system
from agentstate.tenants.models import Tenant, User
from agentstate.tenants.scope import tenant_scope
from memory.context import building
from memory.context.building import ContextRequest
from memory.services import items, messages, progress, prompts, proposals, sessions, subjects
from memory.services.drafts import NewItem
from memory.services.messages import NewMessage
from memory.services.subjects import AliasIn
from memory.sources import Source

if TYPE_CHECKING:
    from memory.models import Session

TENANT = "acme"
ROLES = ("admin", "operator", "approver", "viewer")  # the first one founds the tenant
KEY_NAME = "demo"
KEY_SCOPES = ("runs.read", "runs.start", "runs.control", "runs.work", "memory.write")


# Customers of the sandbox shop, as its agents know them: (id, name, address, what is remembered).
CUSTOMERS: tuple[tuple[str, str, str, tuple[NewItem, ...]], ...] = (
    (
        "c-1001",
        "Marta Keller",
        "marta.keller@example.com",
        (
            NewItem(
                "Never phone before 10:00.",
                namespace="preferences/contact",
                attribute="contact hours",
                pinned=True,
                importance=0.9,
            ),
            NewItem(
                "Wants answers by e-mail.",
                namespace="preferences/contact",
                fact_kind="contact",
                facts={"channel": "email", "address": "marta.keller@example.com", "preferred": True},
                importance=0.7,
            ),
            NewItem(
                "Returned two of three Arc lamps of order 4467 because of scratched shades.",
                kind="episodic",
                fact_kind="order",
                facts={"number": "4467", "status": "returned", "ordered_on": "2026-10-28", "total": "€270.75"},
            ),
            NewItem(
                "We promised to inspect the next lamps before they are sent.",
                fact_kind="commitment",
                facts={"what": "inspect lamps before sending", "by": "us"},
                importance=0.8,
            ),
        ),
    ),
    (
        "c-1006",
        "Priya Nair",
        "priya.nair@example.org",
        (
            NewItem("Runs a small studio with four standing desks and buys for it.", importance=0.6),
            NewItem("Prefers delivery on weekday mornings.", namespace="preferences/delivery", attribute="delivery"),
        ),
    ),
    ("c-1003", "Sophie Dubois", "sophie.dubois@example.fr", (NewItem("Prefers to be answered in French."),)),
)
TALK: tuple[tuple[str, str, str], ...] = (  # with the first customer: role, importance, text
    (
        "user",
        "routine",
        "Two of the three lamps of order 4467 arrived with scratched shades. I would like to return them.",
    ),
    ("assistant", "routine", "I am sorry about the lamps. Both can go back at no cost; the label is in your mailbox."),
    ("user", "fact", "Thank you. By the way, please do not phone before 10:00, I work nights."),
    ("assistant", "commitment", "Noted, never before 10:00. We will inspect the next lamps before they leave."),
    ("user", "routine", "Did the parcel with the two lamps reach you?"),
    (
        "assistant",
        "decision",
        "It arrived this morning. I have proposed a refund of €180.50; a colleague approves it today.",
    ),
    ("user", "fact", "Good. From next month on I work days, so calling from 8:00 is fine."),
)

PROMPT = """Answer in the customer's language, in at most five sentences.
Never promise a refund before a colleague has approved it.
Name the order by its number."""
PROGRESS = """## Goal

Know why lamps come back.

## Done

- Read the returns of October: 14 lamps, 11 of them with scratched shades.
- Asked the warehouse for pictures of the packaging.

## Next

- Compare with the blankets, which never come back.

## Do not repeat

- The supplier's own numbers leave out what was replaced at once.
"""


class Seeded(TypedDict):
    tenant: str
    api_key: str


def run() -> Seeded:
    """Make what is missing. A token that was handed out and still works means that all of it was made. Idempotent."""
    kept = settings.STATE_DIR / "demo-key"
    token = _kept_token(kept)
    if not token:
        tenant = _people(os.environ["AGENTSTATE_DEMO_PASSWORD"])
        with tenant_scope(tenant.pk):
            _memories(system("seed", tenant_id=tenant.pk))
        token, _ = api_keys.issue(name=KEY_NAME, scopes=KEY_SCOPES, actor=system("seed", tenant_id=tenant.pk))
        write_private(kept, {"AGENTSTATE_KEY": token})
    return Seeded(tenant=TENANT, api_key=token)


def _people(password: str) -> Tenant:
    encoded = make_password(password)  # once: each takes a third of a second
    users = {role: _person(role, encoded) for role in ROLES}
    tenant = Tenant.objects.filter(slug=TENANT).first()
    tenant = tenant or members.found(slug=TENANT, name="Acme", admin=users[ROLES[0]], colour="teal")
    for role, user in users.items():
        try:
            members.add(user, role=role, actor=system("seed", tenant_id=tenant.pk))
        except Conflict:
            continue  # a member already, perhaps in a role that somebody chose
    return tenant


def _person(role: str, encoded: str) -> User:
    email = f"{role}@example.test"
    user, _ = User.objects.update_or_create(email=email, defaults={"password": encoded, "name": f"Demo {role}"})
    return user


def _kept_token(path: Path) -> str:
    if not path.exists():
        return ""
    token = path.read_text().strip().partition("=")[2]
    try:
        api_keys.resolve(token)
    except Unauthorised:  # revoked, or of another database
        return ""
    return token


def _memories(actor: Actor) -> None:
    """What the shop remembers of some customers, made by the services that agents and people use.

    Idempotent, and what somebody has changed since stays as it is.
    """
    first = None
    for external_id, name, email, known in CUSTOMERS:
        subject = subjects.resolve(external_id=external_id, aliases=[AliasIn("email", email)], name=name, actor=actor)
        for place, new in enumerate(known):
            source = Source(key=f"seed:{external_id}:{place}")
            items.remember(subject.id, new, actor=actor, source=source, reason="told to the desk")
        first = first or subject.id
    assert first is not None
    if prompts.in_force("refund-desk") is None:
        prompts.write("refund-desk", PROMPT, reason="agreed with the desk", actor=actor)
    session = sessions.open("ticket-4467", subject_id=first, agent="refund-desk", title="Scratched lamps", actor=actor)
    if session.last_seq == 0:
        _proposal(first, _talk(session, actor), actor)
    if progress.read("notes on returns") is None:
        progress.write("notes on returns", PROGRESS, agent="research-notes", reason="end of a run", actor=actor)


def _talk(session: Session, actor: Actor) -> list[UUID]:
    """Each answer is given its context first, as an agent's is: its page shows what it knew."""
    began_at, said = now() - timedelta(days=2), []
    for place, (role, importance, text) in enumerate(TALK):
        if role == "assistant":
            building.build(ContextRequest(session_id=session.id, question=TALK[place - 1][2]))
        new = NewMessage(
            role,
            text,
            author="Marta Keller" if role == "user" else "refund-desk",
            importance=importance,
            sent_at=began_at + timedelta(hours=3 * place),
            client_id=f"seed-{place}",
        )
        said += [message_id for message_id, _ in messages.append(session.id, [new], actor=actor).messages]
    return said


def _proposal(subject_id: UUID, talk: list[UUID], actor: Actor) -> None:
    """Something to review: the customer's hours changed."""
    hours = items.remember(subject_id, CUSTOMERS[0][3][0], actor=actor, source=Source(key="seed:c-1001:0")).item
    assert hours is not None
    proposals.propose(
        subject_id,
        act="update",
        new=NewItem("May be phoned from 8:00 on.", namespace="preferences/contact", attribute="contact hours"),
        item_id=hours.id,
        method="rules",
        confidence=0.8,
        why="The customer said that calling from 8:00 is fine from next month on.",
        source=Source(message_ids=(talk[-1],)),
        actor=actor,
    )
