"""What the shop, the CRM and the mail server know: the catalogue plus the sum of the acts in the ledger.

Nothing is kept beside the ledger, so a balance can never disagree with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from decimal import Decimal

from agentstate.dev.sandbox.catalogue import CUSTOMERS, ORDERS, Order
from agentstate.dev.sandbox.ledger import Call, Json, Ledger, payload_digest

CENTS_MAX = 10**12
ANALYSIS_WORDS = ("rising", "steady", "contested", "well documented", "thinly documented")


class Denied(Exception):
    """The shop's rules say no; nothing has happened."""

    def __init__(self, message: str, status: int = 422) -> None:
        super().__init__(message)
        self.status = status


def euros(cents: int) -> str:
    return f"{cents // 100}.{cents % 100:02d}"


def cents(amount: Json) -> int:
    """ "180.50", "180" or 180.5 as 18050. Raises: Denied."""
    try:
        exact = Decimal(str(amount)) * 100
    except ArithmeticError:
        raise Denied("amount: a number with at most two decimals, such as 180.50.") from None
    if isinstance(amount, bool) or not (exact.is_finite() and 0 < exact <= CENTS_MAX and exact == int(exact)):
        raise Denied("amount: more than 0, with at most two decimals, such as 180.50.")
    return int(exact)


class Shop:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    # Reading

    def order(self, order_id: str) -> Json:
        order = _known_order(order_id)
        refunds = self.refunds(order_id)
        refunded = sum(refund["amount_cents"] for refund in refunds)
        return {
            "order_id": order.order_id,
            "customer_id": order.customer_id,
            "placed_on": order.placed_on,
            "status": order.status,
            "articles": list(order.articles),
            "currency": order.currency,
            "total": euros(order.total_cents),
            "refunded": euros(refunded),
            "balance": euros(order.total_cents - refunded),
            "refunds": refunds,
        }

    def orders(self, customer_id: str) -> list[Json]:
        return [self.order(order.order_id) for order in ORDERS.values() if customer_id in ("", order.customer_id)]

    def customer(self, customer_id: str) -> Json:
        if customer_id not in CUSTOMERS:
            raise Denied(f"There is no customer {customer_id!r}.", 404)
        return {
            **asdict(CUSTOMERS[customer_id]),
            "orders": [order["order_id"] for order in self.orders(customer_id)],
            "notes": self.notes(customer_id),
        }

    def customer_by_email(self, email: str) -> Json:
        for customer in CUSTOMERS.values():
            if customer.email == email.strip().lower():
                return self.customer(customer.customer_id)
        raise Denied("There is no customer with this address.", 404)

    def refunds(self, order_id: str = "") -> list[Json]:
        refunds = [line["result"] for line in self._ledger.acts("refund.create")]
        return [refund for refund in refunds if order_id in ("", refund["order_id"])]

    def notes(self, customer_id: str) -> list[Json]:
        notes = [line["result"] for line in self._ledger.acts("crm.note")]
        return [note for note in notes if note["customer_id"] == customer_id]

    def mails(self) -> list[Json]:
        return [line["result"] for line in self._ledger.acts("mail.send")]

    # Acting: each gives the result that the ledger makes true. Raises: Denied.

    def act(self, call: Call) -> Json:
        known: dict[str, Callable[[Call], Json]] = {
            "refund.create": self._refund,
            "crm.note": self._note,
            "mail.send": self._mail,
            "analysis.create": self._analysis,
        }
        return known.get(call.tool, _anything)(call)

    def _refund(self, call: Call) -> Json:
        order = _known_order(_text(call, "order_id"))
        amount = cents(call.payload.get("amount"))
        left = order.total_cents - sum(refund["amount_cents"] for refund in self.refunds(order.order_id))
        if amount > left:
            raise Denied(f"Order {order.order_id} has {euros(left)} {order.currency} left to refund.")
        return {
            "refund_id": f"rf-{call.number:05d}",
            "order_id": order.order_id,
            "customer_id": order.customer_id,
            "amount": euros(amount),
            "amount_cents": amount,
            "currency": order.currency,
            "reason": str(call.payload.get("reason", "")),
            "balance": euros(left - amount),
            "key": call.key,
        }

    def _note(self, call: Call) -> Json:
        customer_id = _text(call, "customer_id")
        if customer_id not in CUSTOMERS:
            raise Denied(f"There is no customer {customer_id!r}.", 404)
        return {
            "note_id": f"nt-{call.number:05d}",
            "customer_id": customer_id,
            "text": _text(call, "text"),
            "key": call.key,
        }

    def _mail(self, call: Call) -> Json:
        return {"mail_id": call.number, "message_id": call.key, **call.payload}

    def _analysis(self, call: Call) -> Json:
        topic, digest = _text(call, "topic"), payload_digest(call.payload)
        word = ANALYSIS_WORDS[int(digest[:8], 16) % len(ANALYSIS_WORDS)]
        return {
            "analysis_id": f"an-{call.number:05d}",
            "topic": topic,
            "finding": f"The sources on {topic} are {word}.",
            "pages": call.payload.get("pages", 0),
            "price": "12.00",
            "key": call.key,
        }


def _anything(call: Call) -> Json:
    return {"act": call.number, "tool": call.tool, "key": call.key, "payload": call.payload}


def _known_order(order_id: str) -> Order:
    if order_id not in ORDERS:
        raise Denied(f"There is no order {order_id!r}.", 404)
    return ORDERS[order_id]


def _text(call: Call, field: str) -> str:
    found = call.payload.get(field)
    if not isinstance(found, str) or not found.strip():
        raise Denied(f"{field}: a text is missing.")
    return found
