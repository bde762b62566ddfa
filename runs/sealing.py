"""What this tier seals, and to which place each ciphertext is bound. The key is the run's own."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from agentstate.core import canonical
from agentstate.core.errors import TooLarge
from agentstate.core.limits import PAYLOAD_BYTES_MAX
from agentstate.crypto import sealing
from agentstate.tenants import keyring


def canonical_payload(value: Any, *, what: str) -> bytes:
    """Raises: Invalid naming the place, TooLarge over 20 MB."""
    plain = canonical.dumps(value, where=f"/{what}")
    if len(plain) > PAYLOAD_BYTES_MAX:
        raise TooLarge(
            f"The {what} has {len(plain):,} bytes; at most {PAYLOAD_BYTES_MAX:,} are kept. "
            "Store it elsewhere and pass its address.",
            field=f"/{what}",
        )
    return plain


def seal_run(key: bytes, tenant_id: UUID, run_id: UUID, part: str, plain: bytes) -> bytes:
    """part: input, output, error."""
    return sealing.seal(key, plain, aad=_aad(tenant_id, "runs_run", f"{run_id}:{part}"))


def open_run(key: bytes, tenant_id: UUID, run_id: UUID, part: str, sealed: bytes | memoryview | None) -> Any:
    if sealed is None:
        return None
    return canonical.loads(sealing.unseal(key, bytes(sealed), aad=_aad(tenant_id, "runs_run", f"{run_id}:{part}")))


def seal_step(
    key: bytes, tenant_id: UUID, run_id: UUID, generation: int, identity: str, part: str, plain: bytes
) -> bytes:
    """part: input, output, error. Bound to the identity, which is known before the step has a number."""
    return sealing.seal(key, plain, aad=at_step(steps_of(tenant_id, run_id), generation, identity, part))


def open_step(
    key: bytes,
    tenant_id: UUID,
    run_id: UUID,
    generation: int,
    identity: str,
    part: str,
    sealed: bytes | memoryview | None,
) -> bytes | None:
    """The canonical bytes; None where nothing was stored. Raises: Corrupt."""
    if sealed is None:
        return None
    return sealing.unseal(key, bytes(sealed), aad=at_step(steps_of(tenant_id, run_id), generation, identity, part))


def steps_of(tenant_id: UUID, run_id: UUID) -> str:
    """Where the steps of a run are, for at_step: made once by whoever seals many of them."""
    return _aad(tenant_id, "runs_step", f"{run_id}:").decode()


def at_step(steps: str, generation: int, identity: str, part: str) -> bytes:
    """The AAD of one value of one step."""
    return f"{steps}{generation}:{identity}:{part}".encode()


def seal_entry(key: bytes, tenant_id: UUID, run_id: UUID, n: int, plain: bytes) -> bytes:
    """A scratchpad entry; the same bytes stand in Redis and in the trace."""
    return sealing.seal(key, plain, aad=_aad(tenant_id, "runs_entry", f"{run_id}:{n}"))


def open_entry(key: bytes, tenant_id: UUID, run_id: UUID, n: int, sealed: bytes | memoryview) -> Any:
    return canonical.loads(sealing.unseal(key, bytes(sealed), aad=_aad(tenant_id, "runs_entry", f"{run_id}:{n}")))


def seal_approval(key: bytes, tenant_id: UUID, approval_id: UUID, part: str, plain: bytes) -> bytes:
    """part: proposal, decision."""
    return sealing.seal(key, plain, aad=_aad(tenant_id, "runs_approval", f"{approval_id}:{part}"))


def open_approval(key: bytes, tenant_id: UUID, approval_id: UUID, part: str, sealed: bytes | memoryview | None) -> Any:
    if sealed is None:
        return None
    return canonical.loads(
        sealing.unseal(key, bytes(sealed), aad=_aad(tenant_id, "runs_approval", f"{approval_id}:{part}"))
    )


def seal_late(key: bytes, tenant_id: UUID, late_id: UUID, plain: bytes) -> bytes:
    return sealing.seal(key, plain, aad=_aad(tenant_id, "runs_latereply", str(late_id)))


def open_late(key: bytes, tenant_id: UUID, late_id: UUID, sealed: bytes | memoryview) -> Any:
    return canonical.loads(sealing.unseal(key, bytes(sealed), aad=_aad(tenant_id, "runs_latereply", str(late_id))))


def fingerprint(tenant_id: UUID, plain: bytes) -> bytes:
    """HMAC by the tenant's key: equal values look equal inside a tenant, and nobody can guess them from outside."""
    return keyring.hmac(tenant_id, plain)


def _aad(tenant_id: UUID, table: str, row: str) -> bytes:
    return sealing.aad(tenant_id, table, row)
