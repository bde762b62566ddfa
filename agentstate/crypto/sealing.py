"""Sealed bytes: AES-256-GCM bound to tenant, table and row, so that a ciphertext moved elsewhere does not open.

Layout: 1 byte version | 12 bytes nonce | ciphertext and 16 bytes tag. Version 1 holds the plaintext, version 2 its zstd
frame; the version is authenticated. Nonces are random, so a key should seal fewer than 2**32 values: keys are
per run and per subject.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from functools import lru_cache
from uuid import UUID

import zstandard
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from agentstate.core.errors import Corrupt, TooLarge
from agentstate.core.limits import KIB, SEALED_BYTES_MAX

_PLAIN, _ZSTD = b"\x01", b"\x02"
_NONCE_BYTES, _TAG_BYTES = 12, 16
_BODY = 1 + _NONCE_BYTES
_COMPRESS_OVER_BYTES = 1 * KIB
_local = threading.local()  # zstd contexts must not be shared between threads


def aad(tenant_id: UUID, table: str, row: UUID | int | str) -> bytes:
    """What a ciphertext is bound to."""
    assert "|" not in table
    return f"{tenant_id}|{table}|{row}".encode()


def seal(key: bytes, plaintext: bytes, *, aad: bytes, compress: bool = True) -> bytes:
    """compress=False: for what is compressed already. Raises: TooLarge over 64 MiB."""
    if len(plaintext) > SEALED_BYTES_MAX:
        raise TooLarge(f"{len(plaintext)} bytes are more than the {SEALED_BYTES_MAX} that can be sealed at once.")
    version, inner = _compress(plaintext) if compress else (_PLAIN, plaintext)
    nonce = os.urandom(_NONCE_BYTES)
    return version + nonce + _cipher(key).encrypt(nonce, inner, version + aad)


def unseal(key: bytes, sealed: bytes, *, aad: bytes) -> bytes:
    """Raises: Corrupt for another key, another row, or any changed byte; it cannot tell which."""
    sealed = bytes(sealed)  # psycopg gives memoryview
    version, nonce, inner = sealed[:1], sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
    if version not in (_PLAIN, _ZSTD) or len(inner) < _TAG_BYTES:
        raise Corrupt("This is not a sealed value.")
    try:
        plain = _cipher(key).decrypt(nonce, inner, version + aad)
    except InvalidTag:
        raise Corrupt("A sealed value does not open: it was changed, moved, or sealed with another key.") from None
    return _decompress(plain) if version == _ZSTD else plain


def unseal_each(each: Iterable[tuple[bytes | None, bytes, bytes]]) -> list[bytes | None]:
    """As unseal(), of many (key, sealed, aad) in one go; None for what has no key or does not open."""
    return [None if key is None else _opened(_cipher(key), sealed, aad) for key, sealed, aad in each]


def _opened(cipher: AESGCM, sealed: bytes, aad: bytes) -> bytes | None:
    version = sealed[:1]
    try:
        plain = cipher.decrypt(sealed[1:_BODY], sealed[_BODY:], version + aad)
        return _decompress(plain) if version == _ZSTD else plain if version == _PLAIN else None
    except (InvalidTag, ValueError, Corrupt):  # ValueError: too short for a nonce
        return None


def _compress(plaintext: bytes) -> tuple[bytes, bytes]:
    if len(plaintext) > _COMPRESS_OVER_BYTES:
        if not hasattr(_local, "compressor"):
            _local.compressor = zstandard.ZstdCompressor(level=3)
        smaller = _local.compressor.compress(plaintext)
        if len(smaller) < len(plaintext):
            return _ZSTD, smaller
    return _PLAIN, plaintext


def _decompress(inner: bytes) -> bytes:
    if not hasattr(_local, "decompressor"):
        _local.decompressor = zstandard.ZstdDecompressor()
    try:
        if zstandard.frame_content_size(inner) > SEALED_BYTES_MAX:
            raise Corrupt("A sealed value claims to be larger than anything that is sealed here.")
        plain: bytes = _local.decompressor.decompress(inner, max_output_size=SEALED_BYTES_MAX)
    except zstandard.ZstdError as error:
        raise Corrupt(f"A sealed value opens but does not decompress: {error}.") from error
    return plain


@lru_cache(maxsize=4_096)
def _cipher(key: bytes) -> AESGCM:
    assert len(key) == 32, "keys are 32 bytes"
    return AESGCM(key)
