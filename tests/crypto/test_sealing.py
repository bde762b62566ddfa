from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from uuid import UUID

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from agentstate.core.errors import Corrupt, TooLarge
from agentstate.core.limits import SEALED_BYTES_MAX
from agentstate.crypto import sealing

KEY = bytes(range(32))
TENANT = UUID(int=1)
AAD = sealing.aad(TENANT, "runs_step", UUID(int=2))
SMALL, LARGE = b"the canary sings", b"the canary sings again and again. " * 200


@given(st.binary(max_size=5_000), st.booleans())
def test_what_is_sealed_opens_to_the_same(plain: bytes, compress: bool) -> None:
    assert sealing.unseal(KEY, sealing.seal(KEY, plain, aad=AAD, compress=compress), aad=AAD) == plain


@pytest.mark.parametrize("plain", [SMALL, LARGE])
def test_the_plaintext_cannot_be_seen(plain: bytes) -> None:
    assert b"canary" not in sealing.seal(KEY, plain, aad=AAD)


def test_the_same_plaintext_never_seals_to_the_same_bytes() -> None:
    assert len({sealing.seal(KEY, SMALL, aad=AAD) for _ in range(100)}) == 100


@pytest.mark.parametrize("plain", [b"", SMALL, LARGE])
def test_any_changed_byte_is_noticed(plain: bytes) -> None:
    sealed = sealing.seal(KEY, plain, aad=AAD)
    # version, nonce, ciphertext, tag: one bit of every byte of each
    for place in range(len(sealed)):
        broken = bytearray(sealed)
        broken[place] ^= 1 << (place % 8)
        with pytest.raises(Corrupt):
            sealing.unseal(KEY, bytes(broken), aad=AAD)


def test_the_two_versions_cannot_be_swapped() -> None:
    for plain, other in ((SMALL, b"\x02"), (LARGE, b"\x01")):
        sealed = sealing.seal(KEY, plain, aad=AAD)
        with pytest.raises(Corrupt):
            sealing.unseal(KEY, other + sealed[1:], aad=AAD)


@pytest.mark.parametrize("length", range(30))
def test_a_cut_value_is_noticed(length: int) -> None:
    with pytest.raises(Corrupt):
        sealing.unseal(KEY, sealing.seal(KEY, SMALL, aad=AAD)[:length], aad=AAD)


def test_of_many_those_open_that_open_alone() -> None:
    small, large = (sealing.seal(KEY, plain, aad=AAD) for plain in (SMALL, LARGE))
    values = [small, large, small + b"\0", b"\x02" + small[1:], b"\x01" + large[1:], b"\x03" + small[1:]]
    values += [small[:length] for length in range(30)]
    values += [small[:place] + bytes([small[place] ^ 1]) + small[place + 1 :] for place in range(len(small))]
    alone: list[bytes | None] = []
    for value in values:
        try:
            alone.append(sealing.unseal(KEY, value, aad=AAD))
        except Corrupt:
            alone.append(None)
    assert alone[:2] == [SMALL, LARGE] and not any(alone[2:])
    assert sealing.unseal_each((KEY, value, AAD) for value in values) == alone
    others = [(None, small, AAD), (bytes(32), small, AAD), (KEY, small, AAD + b"1"), (KEY, small, AAD)]
    assert sealing.unseal_each(others) == [None, None, None, SMALL]


def test_appended_bytes_are_noticed() -> None:
    with pytest.raises(Corrupt):
        sealing.unseal(KEY, sealing.seal(KEY, SMALL, aad=AAD) + b"\0", aad=AAD)


@pytest.mark.parametrize(
    "other",
    [
        sealing.aad(UUID(int=9), "runs_step", UUID(int=2)),
        sealing.aad(TENANT, "runs_run", UUID(int=2)),
        sealing.aad(TENANT, "runs_step", UUID(int=3)),
        b"",
    ],
)
def test_a_value_moved_to_another_row_table_or_tenant_does_not_open(other: bytes) -> None:
    with pytest.raises(Corrupt):
        sealing.unseal(KEY, sealing.seal(KEY, SMALL, aad=AAD), aad=other)


def test_another_key_does_not_open_it() -> None:
    with pytest.raises(Corrupt):
        sealing.unseal(bytes(32), sealing.seal(KEY, SMALL, aad=AAD), aad=AAD)


def test_no_two_places_share_what_they_are_bound_to() -> None:
    assert sealing.aad(TENANT, "a", "b|c") != sealing.aad(TENANT, "a_b", "c")
    with pytest.raises(AssertionError):
        sealing.aad(TENANT, "a|b", "c")


def test_repetitive_text_is_compressed_and_noise_is_not() -> None:
    assert len(sealing.seal(KEY, LARGE, aad=AAD)) < len(LARGE) / 10
    noise = os.urandom(50_000)
    assert len(sealing.seal(KEY, noise, aad=AAD)) == len(noise) + 29
    assert len(sealing.seal(KEY, LARGE, aad=AAD, compress=False)) == len(LARGE) + 29


def test_a_memoryview_of_the_database_opens_too() -> None:
    assert sealing.unseal(KEY, memoryview(sealing.seal(KEY, SMALL, aad=AAD)), aad=AAD) == SMALL  # type: ignore[arg-type]


def test_more_than_the_cap_is_refused_on_both_ways() -> None:
    with pytest.raises(TooLarge):
        sealing.seal(KEY, bytes(SEALED_BYTES_MAX + 1), aad=AAD)
    bomb = zstandard.ZstdCompressor().compress(bytes(SEALED_BYTES_MAX + 1))
    with pytest.raises(Corrupt, match="larger"):
        sealing.unseal(KEY, forged(b"\x02", bomb), aad=AAD)


@pytest.mark.parametrize("inner", [b"", b"not a frame", zstandard.ZstdCompressor().compress(LARGE)[:-4]])
def test_a_frame_that_does_not_decompress_is_corrupt(inner: bytes) -> None:
    with pytest.raises(Corrupt):
        sealing.unseal(KEY, forged(b"\x02", inner), aad=AAD)


def test_a_frame_of_unknown_length_cannot_ask_for_more_than_the_cap() -> None:
    stream = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    bomb = b"".join(stream.compress(bytes(1 << 20)) for _ in range(80)) + stream.flush()
    with pytest.raises(Corrupt):
        sealing.unseal(KEY, forged(b"\x02", bomb), aad=AAD)


def test_threads_seal_side_by_side() -> None:
    def there_and_back(n: int) -> bool:
        plain = LARGE + str(n).encode() * 500
        return sealing.unseal(KEY, sealing.seal(KEY, plain, aad=AAD), aad=AAD) == plain

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(there_and_back, range(400)))


def forged(version: bytes, inner: bytes) -> bytes:
    """Sealed with the right key, as a bug of ours or a stolen key would."""
    nonce = bytes(12)
    return version + nonce + AESGCM(KEY).encrypt(nonce, inner, version + AAD)
