"""Receipts of erasures: canonical JSON with an Ed25519 signature that anybody with the public key can check.

The tenant's signing key is derived from its key ring, so it is nowhere stored and the same for ever.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from agentstate.core import canonical
from agentstate.core.errors import Invalid
from agentstate.tenants import keyring

FORMAT = "agentstate.erasure"
VERSION = 1
ALGORITHM = "Ed25519"
PURPOSE = b"affairs.erasure.receipt\0" + bytes([VERSION])


def sign(tenant_id: UUID, receipt: dict[str, Any]) -> bytes:
    return _key(tenant_id).sign(canonical.dumps(receipt))


def public_key(tenant_id: UUID) -> bytes:
    """What a third party needs to check receipts of this tenant."""
    return _key(tenant_id).public_key().public_bytes_raw()


def document(tenant_id: UUID, receipt: dict[str, Any], signature: bytes) -> dict[str, Any]:
    """The file that is handed over."""
    return {
        "receipt": receipt,
        "signature": {"algorithm": ALGORITHM, "public_key": public_key(tenant_id).hex(), "value": signature.hex()},
    }


def check(raw: bytes) -> dict[str, Any]:
    """The receipt in this file, if its signature is good and its key is that of the tenant it names.

    Raises: Invalid saying what is wrong with it.
    """
    found = canonical.parse(raw)
    try:
        receipt, signed = found["receipt"], found["signature"]
        tenant_id = UUID(receipt["tenant_id"])
        named, value = bytes.fromhex(signed["public_key"]), bytes.fromhex(signed["value"])
        if (receipt["format"], receipt["version"], signed["algorithm"]) != (FORMAT, VERSION, ALGORITHM):
            raise Invalid(f"This is no receipt of the format {FORMAT} {VERSION}.")
    except (KeyError, TypeError, ValueError):
        raise Invalid("This is no receipt of an erasure.") from None
    if named != public_key(tenant_id):
        raise Invalid("It was not signed with the key of the tenant that it names.")
    try:
        Ed25519PublicKey.from_public_bytes(named).verify(value, canonical.dumps(receipt))
    except InvalidSignature:
        raise Invalid("Its signature does not fit: the receipt was changed.") from None
    checked: dict[str, Any] = receipt
    return checked


def _key(tenant_id: UUID) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(keyring.hmac(tenant_id, PURPOSE))
