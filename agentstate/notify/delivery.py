"""Who is told what: a topic is turned into notices to single addresses, and those are sent."""

from __future__ import annotations

import time

import structlog
from django.conf import settings

from agentstate.core.errors import DomainError
from agentstate.notify import mail, outbox
from agentstate.notify.models import Outbox
from agentstate.tenants.actors import ROLE_VERBS
from agentstate.tenants.models import Membership, Tenant
from agentstate.tenants.scope import tenant_scope

log = structlog.get_logger(__name__)
APPROVAL, MAIL = "approval.mail", "mail"
ROWS_MAX = 100
WORK_S_MAX = 20.0  # then the next message goes on: a slow mail server must not hold a worker's child for ever
TEXT = """A run in {tenant} waits for a decision.

{link}

The link shows what is asked, on a phone too. It decides nothing by itself: sign in to read and decide.
"""


def deliver() -> int:
    """Send what is due; how many notices were tried. Bounded in time and number. Idempotent.

    Raises: ImproperlyConfigured before anything is claimed, when EMAIL_URL is none.
    """
    mail.server()
    end = time.monotonic() + WORK_S_MAX
    tried = 0
    while time.monotonic() < end and tried < ROWS_MAX:
        found = outbox.due(rows_max=10)
        claimed = [notice for notice in (outbox.claim(*row) for row in found) if notice]
        if not claimed:
            break
        for notice in claimed:
            _deliver(notice)
        tried += len(claimed)
    outbox.prune()
    return tried


def _deliver(notice: Outbox) -> None:
    act = {APPROVAL: _fan_out, MAIL: _send}.get(notice.topic)
    if act is None:
        outbox.drop(notice, "no such topic")
        log.error("notify.unknown_topic", topic=notice.topic)
        return
    try:
        act(notice)
    except (OSError, DomainError) as error:  # smtplib's errors are OSErrors; one bad notice stops no other
        name = type(error).__name__
        over = outbox.failed(notice, name)
        log.warning("notify.failed", notice=str(notice.id), attempts=notice.attempts, over=over, error=name)


def _fan_out(notice: Outbox) -> None:
    """One notice to each member who may decide, in the transaction that ends this one: nobody is told twice by it."""
    if mail.server() is None:
        outbox.drop(notice, "EMAIL_URL is not set")
        return
    body = outbox.read(notice)
    with tenant_scope(notice.tenant_id):
        tenant = Tenant.objects.get(id=notice.tenant_id)
        for member in deciders():
            outbox.put(
                MAIL, f"{notice.topic}:{notice.key}:{member.user_id}"[:200], _letter(tenant, member, body["path"])
            )
        outbox.sent(notice)


def deciders() -> list[Membership]:
    """Members of the scope's tenant who may decide approvals."""
    roles = [role for role, verbs in ROLE_VERBS.items() if "approvals.decide" in verbs]
    members = Membership.objects.filter(role__in=roles, removed_at=None, user__is_active=True)
    return list(members.select_related("user").order_by("id"))


def _letter(tenant: Tenant, member: Membership, path: str) -> dict[str, str]:
    assert path.startswith("/"), "a path of ours, not an address of somebody else"
    link = f"{settings.PUBLIC_URL.rstrip('/')}{path}"
    subject = f"Approval needed in {tenant.name}".replace("\n", " ")
    return {"to": member.user.email, "subject": subject, "text": TEXT.format(tenant=tenant.name, link=link)}


def _send(notice: Outbox) -> None:
    server = mail.server()
    if server is None:
        outbox.drop(notice, "EMAIL_URL is not set")
        return
    mail.send(server, **outbox.read(notice), message_id=notice.id.hex)
    outbox.sent(notice)
