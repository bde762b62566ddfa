"""What this tier seals, and to which place each ciphertext is bound. The key is that of the row's owner."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

from agentstate.core import canonical
from agentstate.crypto import sealing
from agentstate.tenants import keyring
from agentstate.tenants.scope import current_tenant


def seal_text(key: bytes, table: str, row: UUID | str, text: str) -> bytes:
    """`row` names the row and, where it has several sealed columns, the column: f"{id}:reason"."""
    return sealing.seal(key, text.encode(), aad=sealing.aad(current_tenant(), table, row))


def open_text(key: bytes, table: str, row: UUID | str, sealed: bytes | memoryview) -> str:
    """Raises: Corrupt."""
    return sealing.unseal(key, bytes(sealed), aad=sealing.aad(current_tenant(), table, row)).decode()


def bound_to(table: str) -> bytes:
    """What texts of a table are bound to in this tenant, but for the row: for whoever opens many by open_bound()."""
    return sealing.aad(current_tenant(), table, "")


def open_bound(key: bytes, bound: bytes, row: UUID | str, sealed: bytes | memoryview) -> str:
    """As open_text(). Raises: Corrupt."""
    return sealing.unseal(key, sealed, aad=bound + str(row).encode()).decode()  # type: ignore[arg-type]


def open_each(key: bytes, table: str, rows: Iterable[tuple[UUID | str, bytes | memoryview | None]]) -> list[str | None]:
    """As open_text(), of many (row, sealed); None for what is empty or does not open."""
    bound = bound_to(table)
    each = ((key, bytes(sealed or b""), bound + str(row).encode()) for row, sealed in rows)
    return [None if plain is None else plain.decode() for plain in sealing.unseal_each(each)]


def seal_json(key: bytes, table: str, row: UUID | str, value: Any) -> bytes:
    """Raises: Invalid naming the place."""
    return sealing.seal(key, canonical.dumps(value), aad=sealing.aad(current_tenant(), table, row))


def open_json(key: bytes, table: str, row: UUID | str, sealed: bytes | memoryview) -> Any:
    """Raises: Corrupt."""
    return canonical.loads(sealing.unseal(key, bytes(sealed), aad=sealing.aad(current_tenant(), table, row)))


def digest(*parts: str) -> bytes:
    """HMAC under the tenant's key: finds an equal text without storing it."""
    return keyring.hmac(current_tenant(), "\0".join(parts).encode())
