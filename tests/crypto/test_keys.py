from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from agentstate.core.errors import Corrupt
from agentstate.crypto import keys, sealing

OLD, NEW = "aa" * 32, "bb" * 32


def test_a_wrapped_key_opens_in_its_place_only() -> None:
    kek, key = keys.new_key(), keys.new_key()
    wrapped = keys.wrap(kek, key, aad=b"here")
    assert key not in wrapped
    assert keys.unwrap(kek, wrapped, aad=b"here") == key
    for other_kek, aad in ((keys.new_key(), b"here"), (kek, b"there")):
        with pytest.raises(Corrupt):
            keys.unwrap(other_kek, wrapped, aad=aad)


def test_keys_are_32_random_bytes() -> None:
    assert len({keys.new_key() for _ in range(50)}) == 50
    assert len(keys.new_key()) == 32
    with pytest.raises(AssertionError):
        keys.wrap(keys.new_key(), b"short", aad=b"")


def test_a_wrapped_thing_that_is_no_key_is_corrupt() -> None:
    kek = keys.new_key()
    with pytest.raises(Corrupt):
        keys.unwrap(kek, sealing.seal(kek, b"short", aad=b""), aad=b"")


def test_during_a_rotation_the_new_master_wraps_and_both_open(settings: Any) -> None:
    settings.MASTER_KEY = OLD
    key = keys.new_key()
    wrapped = keys.wrap(keys.master_key(), key, aad=b"x")
    assert keys.unwrap_by_master(wrapped, aad=b"x") == (key, True)

    settings.MASTER_KEY = f"{NEW}, {OLD}"
    assert keys.master_key() == bytes.fromhex(NEW)
    assert keys.unwrap_by_master(wrapped, aad=b"x") == (key, False)

    settings.MASTER_KEY = NEW
    with pytest.raises(Corrupt, match="new,old"):
        keys.unwrap_by_master(wrapped, aad=b"x")


@pytest.mark.parametrize("bad", ["", " , ", "zz" * 32, "aa" * 31, f"{NEW},short"])
def test_a_missing_or_malformed_master_key_says_what_to_do(settings: Any, bad: str) -> None:
    settings.MASTER_KEY = bad
    with pytest.raises(ImproperlyConfigured, match="AGENTSTATE_MASTER_KEY"):
        keys.master_key()
