"""The quick HMAC is the HMAC of the standard library, whatever is hashed and by how many threads."""

from __future__ import annotations

import hmac
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given
from hypothesis import strategies as st

from agentstate.crypto.hashing import Hasher


@given(st.binary(max_size=100), st.lists(st.binary(max_size=300), max_size=5))
def test_it_is_the_hmac_of_the_standard_library(key: bytes, messages: list[bytes]) -> None:
    hasher = Hasher(key)
    assert [hasher(message) for message in messages] == [hmac.digest(key, message, "sha256") for message in messages]


def test_threads_share_one_without_mixing_their_values() -> None:
    hasher = Hasher(b"k" * 32)
    messages = [bytes([n]) * 5_000 for n in range(64)]  # over 2 KB without the interpreter's lock
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(hasher, messages * 4))
    assert found == [hmac.digest(b"k" * 32, message, "sha256") for message in messages * 4]
