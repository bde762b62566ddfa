"""`refund-desk`: reads a customer's message, looks things up, proposes a refund to a person, pays it, writes it down.

What is decided is decided here, in plain code; the models only read and write text. So a message that talks a model
into something can at most become a question to a person about the sender's own order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any, Literal

import agentstate as st
from agentstate.dev.demo import models, tools
from agentstate.dev.demo.shapes import Letter, Reading
from agentstate.dev.sandbox.mailbox import MESSAGES

Json = Any  # what json.loads gives

HIGH_RISK_FROM = Decimal(100)
CONTEXT_TOKENS = 1_500
KNOWN_LINES_MAX = 5
MESSAGE_CHOICES = [
    {"const": message.message_id, "title": f"{message.name}: {message.subject}"} for message in MESSAGES.values()
]
INPUT = {
    "type": "object",
    "title": "Answer a customer's message",
    "properties": {
        "message_id": {
            "type": "string",
            "title": "Message",
            "description": "Which message of the shop's mailbox to work on.",
            "oneOf": MESSAGE_CHOICES,
            "default": "msg-01",
        }
    },
    "required": ["message_id"],
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Decision:
    """What the shop's policy says; `reason` is for the customer and for who approves."""

    kind: Literal["refund", "decline", "answer"]
    amount: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Known:
    """The customer's session, and what is remembered about them; nothing of a stranger."""

    session: st.memory.Session | None = None
    lines: tuple[str, ...] = ()

    def with_more(self, lines: Iterable[str]) -> Known:
        return replace(self, lines=tuple(dict.fromkeys([*self.lines, *lines])))


@st.agent("refund-desk", version="1", input_schema=INPUT)
def refund_desk(message_id: str) -> dict[str, Any]:
    """Answers a customer's message; a refund is paid only after a person has approved it."""
    message = tools.read_message(message_id)
    customer = tools.read_customer(message["sender"])
    known = _recollect(message, customer) if customer else Known()
    reading = models.read_message(message["subject"], message["body"], "\n".join(known.lines))
    st.note(f"{message['name']} <{message['sender']}>: {reading.summary}", kind="reasoning")
    if reading.kind in ("spam", "injection"):
        return _set_aside(reading)
    known = known.with_more(_remember(reading.preferences, kind="preference") if known.session else ())
    order = tools.read_order(reading.order or "none")
    decision = decide(reading, order=order, customer=customer)
    st.note(f"Policy: {decision.kind}. {decision.reason}", kind="reasoning", important=True)
    if decision.kind == "refund":
        outcome = _refund(decision, reading=reading, order=order, customer=customer)
    else:
        outcome = {"outcome": "declined" if decision.kind == "decline" else "answered", "reason": decision.reason}
    return _answer(outcome, message=message, reading=reading, known=known)


def _recollect(message: Json, customer: Json) -> Known:
    """What earlier letters have taught us about this customer, read before this one is; known by their address."""
    session = st.memory.session(aliases={"email": message["sender"]}, name=customer["name"], title=message["subject"])
    asked = f"{message['subject']}\n{message['body']}"
    context = session.context(asked, budget_tokens=CONTEXT_TOKENS)
    session.say("user", message["body"], author=message["name"])
    lines = [block.text for block in context.blocks if block.source == "item"]
    return Known(session, tuple(lines[:KNOWN_LINES_MAX]))


def _remember(texts: Sequence[str], *, kind: Literal["preference", "refund"]) -> list[str]:
    """Keep these statements about the customer, each once; preferences go into every letter."""
    for text in texts:
        st.memory.remember(
            text,
            namespace=f"{kind}s",
            kind="semantic" if kind == "preference" else "episodic",
            pinned=kind == "preference",
            importance=0.8 if kind == "preference" else 0.6,
        )
    return list(texts)


def decide(reading: Reading, *, order: Json | None, customer: Json | None) -> Decision:
    """The shop's policy. Pure: the same facts give the same decision in every replay."""
    if reading.kind != "refund":
        return Decision("answer", reason="You will hear from us within two days.")
    if customer is None or order is None or order["customer_id"] != customer["customer_id"]:
        return Decision("answer", reason="We could not find this order under your address; please send us its number.")
    balance = Decimal(order["balance"])
    if balance <= 0:
        return Decision("decline", reason="It has been refunded in full already.")
    if order["status"] == "shipped":
        return Decision("answer", reason="The parcel is still on its way.")
    return _proposal(Decimal(reading.amount or order["balance"]), balance=balance, order=order)


def _proposal(asked: Decimal, *, balance: Decimal, order: Json) -> Decision:
    amount = min(asked, balance)
    reason = (
        f"Order {order['order_id']} ({order['status']}): {order['total']} paid, {order['refunded']} refunded before."
    )
    if asked > balance:
        reason += f" The customer asks for {asked:.2f}, which is more than is left."
    return Decision("refund", amount=f"{amount:.2f}", reason=reason)


def _refund(decision: Decision, *, reading: Reading, order: Json, customer: Json) -> dict[str, Any]:
    """Propose it, and pay what a person approved, which may be another amount."""
    evidence = (tools.read_message, tools.read_order, tools.read_customer)
    proposal = _risky(decision.amount).because(f"{reading.summary} {decision.reason}", evidence=evidence)
    try:
        refund = proposal(order["order_id"], decision.amount, order["currency"], reading.summary)
    except st.Rejected as no:
        return {"outcome": "declined", "reason": no.reason}
    except st.NotApproved:  # nobody decided, and that is not a no
        return {"outcome": "answered", "reason": "A colleague is looking at your order."}
    except st.Answered as answer:
        return {"outcome": "answered", "reason": answer.message}
    except st.Refused as no:
        st.note(f"The shop refused the refund: {no}", kind="result", important=True)
        return {"outcome": "answered", "reason": "A colleague is looking at your order."}
    if not refund:  # a person settled it: it happened, but what the shop answered is lost
        refund = _newest_refund(order["order_id"])
    done = f"Refunded {refund['amount']} EUR for order {order['order_id']}."
    tools.write_crm_note(customer["customer_id"], done)
    _remember([f"{done[:-1]}: {', '.join(order['articles'])}."], kind="refund")
    return {"outcome": "refunded", "amount": refund["amount"], "refund_id": refund["refund_id"]}


def _newest_refund(order_id: str) -> dict[str, Any]:
    order = tools.read_order(order_id)
    return dict(order["refunds"][-1]) if order and order["refunds"] else {"amount": "", "refund_id": ""}


def _risky(amount: str) -> Any:
    """The tool as it is put to the person: a large sum asks for more care than a small one."""
    assert tools.create_refund.tool is not None
    spec = replace(tools.create_refund.tool, risk="high" if Decimal(amount) >= HIGH_RISK_FROM else "low")
    return replace(tools.create_refund, tool=spec)


def _answer(outcome: dict[str, Any], *, message: Json, reading: Reading, known: Known) -> dict[str, Any]:
    facts = {
        "name": message["name"],
        "subject": message["subject"],
        "language": reading.language,
        "order": reading.order,
        "known": list(known.lines),
        **outcome,
    }
    letter: Letter = models.write_letter(facts)
    mail = tools.send_mail(message["sender"], letter.subject, letter.text)
    if known.session:
        known.session.say("assistant", letter.text, importance="commitment", outcome=outcome["outcome"])
    return {**outcome, "order": reading.order, "mail": mail["message_id"] if mail else ""}


def _set_aside(reading: Reading) -> dict[str, Any]:
    st.note("Nobody is answered and nothing is changed.", kind="result", important=True)
    return {"outcome": "set aside", "reason": reading.summary}
