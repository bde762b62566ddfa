"""What the shop starts with: customers and their orders. Amounts are in cents, so that no sum is ever rounded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Customer:
    customer_id: str
    name: str
    email: str
    language: str  # ISO 639-1
    since: str
    tier: str = "standard"


@dataclass(frozen=True, slots=True)
class Order:
    order_id: str
    customer_id: str
    total_cents: int
    placed_on: str
    status: str  # delivered, shipped, returned
    articles: tuple[str, ...]
    currency: str = "EUR"


CUSTOMERS = {
    customer.customer_id: customer
    for customer in (
        Customer("c-1001", "Marta Keller", "marta.keller@example.com", "en", "2021-03-14", "gold"),
        Customer("c-1002", "Tom Baker", "tom.baker@example.net", "en", "2024-08-02"),
        Customer("c-1003", "Sophie Dubois", "sophie.dubois@example.fr", "fr", "2022-11-20"),
        Customer("c-1004", "Jonas Weber", "jonas.weber@example.de", "de", "2023-05-09"),
        Customer("c-1005", "Lucía Fernández", "lucia.fernandez@example.es", "es", "2025-01-17"),
        Customer("c-1006", "Priya Nair", "priya.nair@example.org", "en", "2020-06-30", "gold"),
        Customer("c-1007", "Oliver Grant", "oliver.grant@example.co.uk", "en", "2025-09-05"),
        Customer("c-1008", "Hana Sato", "hana.sato@example.jp", "en", "2024-02-11"),
        Customer("c-1009", "Pieter de Vries", "pieter.devries@example.nl", "nl", "2023-12-01"),
    )
}

ORDERS = {
    order.order_id: order
    for order in (
        Order("4467", "c-1001", 27_075, "2026-10-28", "returned", ("3 × desk lamp Arc, €90.25 each",)),
        Order("4471", "c-1002", 4_990, "2026-11-02", "delivered", ("kettle Norr, €49.90",)),
        Order("4480", "c-1003", 12_900, "2026-11-05", "delivered", ("coffee grinder Mola, €129.00",)),
        Order("4485", "c-1004", 8_450, "2026-11-06", "delivered", ("2 × wool blanket Fjell, €42.25 each",)),
        Order("4490", "c-1005", 5_999, "2026-11-08", "shipped", ("wall clock Tempo, €59.99",)),
        Order("4493", "c-1006", 124_900, "2026-11-09", "delivered", ("standing desk Alto, €1,249.00",)),
        Order("4498", "c-1007", 1_995, "2026-11-11", "delivered", ("cable box, €19.95",)),
        Order("4502", "c-1008", 34_000, "2026-11-12", "delivered", ("bookshelf Ladder, €340.00",)),
        Order("4507", "c-1009", 7_600, "2026-11-13", "delivered", ("4 × plate Klei, €19.00 each",)),
        Order("4391", "c-1001", 6_400, "2026-09-15", "delivered", ("notebook stand, €64.00",)),
        Order("4511", "c-1006", 3_850, "2026-11-15", "delivered", ("desk mat, €38.50",)),
    )
}
