"""Keys and their wrapping: a run's or subject's key is wrapped by its tenant's, that by the master key of settings."""

from __future__ import annotations

import os

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from agentstate.core.errors import Corrupt
from agentstate.crypto import sealing

KEY_BYTES = 32


def new_key() -> bytes:
    return os.urandom(KEY_BYTES)


def wrap(kek: bytes, key: bytes, *, aad: bytes) -> bytes:
    """`key` sealed under the key-encrypting key `kek`."""
    assert len(key) == KEY_BYTES
    return sealing.seal(kek, key, aad=aad)


def unwrap(kek: bytes, wrapped: bytes, *, aad: bytes) -> bytes:
    """Raises: Corrupt."""
    key = sealing.unseal(kek, wrapped, aad=aad)
    if len(key) != KEY_BYTES:
        raise Corrupt("A wrapped key opens but is not 32 bytes long.")
    return key


def master_key() -> bytes:
    """The current master key: wraps everything new."""
    return master_keys()[0]


def master_keys() -> list[bytes]:
    """Current first; behind it, during a rotation, the former ones. Raises: ImproperlyConfigured."""
    keys = [_from_hex(part) for part in str(settings.MASTER_KEY).split(",") if part.strip()]
    if not keys:
        raise ImproperlyConfigured(
            "AGENTSTATE_MASTER_KEY is not set. Make one with `openssl rand -hex 32`, and keep it."
        )
    return keys


def unwrap_by_master(wrapped: bytes, *, aad: bytes) -> tuple[bytes, bool]:
    """The key, and whether it is wrapped by the current master. Raises: Corrupt when no known master opens it."""
    for position, kek in enumerate(master_keys()):
        try:
            return unwrap(kek, wrapped, aad=aad), position == 0
        except Corrupt:
            continue
    raise Corrupt(
        "No master key opens this tenant's key. Put the former one behind the new: AGENTSTATE_MASTER_KEY=new,old."
    )


def _from_hex(text: str) -> bytes:
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise ImproperlyConfigured("AGENTSTATE_MASTER_KEY must be 64 hex digits (or two such keys: new,old).")
    return key
