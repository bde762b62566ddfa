"""The demo's tools, one of each effect class, at work on the sandbox.

| tool | class | because the other side |
|---|---|---|
| mailbox.read, orders.read, customers.read, pages.read | pure | is only asked |
| crm.note, analysis.create | keyed | remembers the idempotency key for a day |
| mail.send | probed | can be asked for a Message-ID |
| refund.create | destructive | cannot be asked and does not remember: money moves each time |
"""

from __future__ import annotations

import time
from email.message import EmailMessage
from email.utils import formatdate
from typing import Annotated, Any
from urllib.parse import quote

import agentstate as st
from agentstate.dev.demo import other_side

Json = Any  # what json.loads gives

FROM = "Refund desk <desk@shop.example>"
MAIL_DOMAIN = "shop.example"
LOOKUP_URL = f"{other_side.url()}/lookup/{{key}}"
AMOUNT = {"title": "Amount", "format": "decimal", "pattern": r"^[0-9]{1,7}(\.[0-9]{1,2})?$", "examples": ["180.50"]}

Amount = Annotated[str, AMOUNT]
Order = Annotated[str, {"title": "Order"}]
Currency = Annotated[str, {"title": "Currency", "enum": ["EUR"]}]
Reason = Annotated[str, {"title": "Reason", "maxLength": 500}]


@st.tool(name="mailbox.read", effect="pure", retries=3, timeout=15)
def read_message(message_id: str) -> dict[str, Any]:
    """One message of the shop's mailbox."""
    found: dict[str, Any] = other_side.read(f"/mailbox/{quote(message_id, safe='')}")
    return found


@st.tool(name="orders.read", effect="pure", retries=3, timeout=15)
def read_order(order: str) -> dict[str, Any] | None:
    """An order with its balance and refunds; nothing when there is none."""
    return other_side.find(f"/orders/{quote(order, safe='')}")


@st.tool(name="customers.read", effect="pure", retries=3, timeout=15)
def read_customer(email: str) -> dict[str, Any] | None:
    """The customer with this address; nothing when there is none."""
    return other_side.find("/customers", email=email)


@st.tool(
    name="refund.create",
    effect="destructive",
    approve="always",
    locked=("order", "currency"),
    title="Refund €{amount} to the customer of order {order}?",
    timeout=30,
    retries=3,  # only when nothing was sent
    use_within="30m",
    lookup_url=LOOKUP_URL,
    note="Moves money. The shop neither remembers keys nor can be asked by key; look the refund up in its ledger.",
)
def create_refund(
    order: Order, amount: Amount, currency: Currency = "EUR", reason: Reason = "", *, idempotency_key: str = ""
) -> dict[str, Any]:
    payload = {"order_id": order, "amount": amount, "currency": currency, "reason": reason}
    made: dict[str, Any] = other_side.act("/refunds", payload, key=idempotency_key)
    return made


@st.tool(
    name="crm.note",
    effect="keyed",
    window="24h",
    timeout=15,
    retries=3,
    lookup_url=LOOKUP_URL,
    note="The CRM remembers an idempotency key for a day, so a lost reply is answered by calling again.",
)
def write_crm_note(customer_id: str, text: str, *, idempotency_key: str = "") -> dict[str, Any]:
    path = f"/customers/{quote(customer_id, safe='')}/notes"
    made: dict[str, Any] = other_side.act(path, {"text": text}, key=idempotency_key)
    return made


def probe_mail(key: str) -> st.Happened | st.NotHappened | st.Unknown:
    """The mail server finds a mail by its Message-ID, and that is made of the key."""
    return other_side.ask_by_key(f"/mail/by-message-id/{message_id_of(key)}")


@st.tool(
    name="mail.send",
    effect="probed",
    probe=probe_mail,
    settles_within=20,
    timeout=20,
    retries=3,
    lookup_url=f"{other_side.url()}/lookup/{{key}}@{MAIL_DOMAIN}",
    note="After a lost reply the mail server is asked for the Message-ID; it says at once when it has the mail.",
)
def send_mail(to: str, subject: str, text: str, *, idempotency_key: str = "") -> dict[str, Any]:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"], mail["Date"] = FROM, to, _one_line(subject), formatdate()
    mail["Message-ID"] = f"<{message_id_of(idempotency_key)}>"
    mail.set_content(text)
    other_side.send_mail(mail)
    return {"message_id": message_id_of(idempotency_key), "to": to}


@st.tool(name="pages.read", effect="pure", retries=3, timeout=60)
def read_page(topic: str, number: int, seconds: float) -> dict[str, Any]:
    """One page about a topic; reading it takes `seconds`."""
    page: dict[str, Any] = other_side.read(f"/pages/{quote(topic, safe='')}/{number}")
    time.sleep(seconds)
    return page


@st.tool(
    name="analysis.create",
    effect="keyed",
    window="24h",
    timeout=60,
    retries=3,
    lookup_url=LOOKUP_URL,
    note="Costs 12.00 each time, but the laboratory answers a repeated key with the first result.",
)
def order_analysis(topic: str, pages: int, points: list[str], *, idempotency_key: str = "") -> dict[str, Any]:
    made: dict[str, Any] = other_side.act(
        "/analyses", {"topic": topic, "pages": pages, "points": points}, key=idempotency_key
    )
    return made


def message_id_of(key: str) -> str:
    return f"{key}@{MAIL_DOMAIN}"


def _one_line(subject: str) -> str:
    """A line break in a subject would begin another header."""
    return " ".join(subject.split())
