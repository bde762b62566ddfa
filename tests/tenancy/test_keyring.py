"""Keys of tenants: apart from each other, found again after every rotation, never lost by a rollback."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from agentstate.core.errors import Corrupt
from agentstate.core.ids import new_id
from agentstate.crypto import keys
from agentstate.tenants import keyring
from agentstate.tenants.models import KeyRing, Tenant
from agentstate.tenants.scope import tenant_scope

pytestmark = pytest.mark.django_db
AAD = b"runs_run|1"
OLD, NEW = "aa" * 32, "bb" * 32


@pytest.fixture(autouse=True)
def _cold_cache() -> Iterator[None]:
    keyring.forget()
    yield
    keyring.forget()


@pytest.fixture
def acme() -> Tenant:
    return Tenant.objects.create(slug="acme", name="Acme")


@pytest.fixture
def globex() -> Tenant:
    return Tenant.objects.create(slug="globex", name="Globex")


def test_an_hmac_is_the_same_for_ever_and_different_in_every_tenant(acme: Tenant, globex: Tenant) -> None:
    first = keyring.hmac(acme.pk, b"m")
    keyring.rotate(acme.pk)
    keyring.forget()
    assert keyring.hmac(acme.pk, b"m") == first
    assert len({first, keyring.hmac(acme.pk, b"n"), keyring.hmac(globex.pk, b"m"), hashlib.sha256(b"m").digest()}) == 4
    assert len(first) == 32


def test_a_wrapped_key_opens_in_its_tenant_and_place_only(acme: Tenant, globex: Tenant) -> None:
    key = keys.new_key()
    wrapped = keyring.wrap_key(acme.pk, key, aad=AAD)
    assert keyring.unwrap_key(acme.pk, wrapped, aad=AAD) == key
    assert keyring.unwrap_key(acme.pk, memoryview(wrapped), aad=AAD) == key  # type: ignore[arg-type]
    keyring.ensure(globex.pk)
    for tenant_id, aad in ((globex.pk, AAD), (acme.pk, b"elsewhere")):
        with pytest.raises(Corrupt):
            keyring.unwrap_key(tenant_id, wrapped, aad=aad)


@pytest.mark.parametrize("broken", [b"", b"\0\0\0\1", b"\0\0\0\x09" + bytes(60), b"\xff" * 64])
def test_bytes_that_are_no_wrapped_key_are_corrupt(acme: Tenant, broken: bytes) -> None:
    with pytest.raises(Corrupt):
        keyring.unwrap_key(acme.pk, broken, aad=AAD)


def test_after_a_rotation_old_keys_open_and_new_ones_use_the_new_version(acme: Tenant) -> None:
    key = keys.new_key()
    before = keyring.wrap_key(acme.pk, key, aad=AAD)
    assert keyring.rotate(acme.pk) == 2
    after = keyring.rewrap_key(acme.pk, before, aad=AAD)
    assert (keyring.version_of(before), keyring.version_of(after)) == (1, 2)
    assert keyring.newest_version(acme.pk) == 2
    assert keyring.unwrap_key(acme.pk, before, aad=AAD) == keyring.unwrap_key(acme.pk, after, aad=AAD) == key
    with pytest.raises(Corrupt):  # the version is part of what must be right
        keyring.unwrap_key(acme.pk, before[:4] + after[4:], aad=AAD)


def test_a_rotation_by_another_process_is_noticed_when_its_version_turns_up(committed_db: None) -> None:
    acme = Tenant.objects.create(slug="acme", name="Acme")
    keyring.wrap_key(acme.pk, keys.new_key(), aad=AAD)  # warms our cache
    program = (
        "import django, sys; django.setup(); from uuid import UUID; from agentstate.tenants import keyring; "
        f"t = UUID('{acme.pk}'); keyring.rotate(t); sys.stdout.write(keyring.wrap_key(t, bytes(32), aad=b'x').hex())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert keyring.unwrap_key(acme.pk, bytes.fromhex(done.stdout), aad=b"x") == bytes(32)


def test_rotating_the_master_key_loses_nothing(acme: Tenant, globex: Tenant, settings: Any) -> None:
    settings.MASTER_KEY = OLD
    key, rings = keys.new_key(), {}
    for tenant in (acme, globex):
        keyring.rotate(tenant.pk)
        rings[tenant.pk] = keyring.wrap_key(tenant.pk, key, aad=AAD), keyring.hmac(tenant.pk, b"m")

    settings.MASTER_KEY = f"{NEW},{OLD}"
    keyring.forget()
    assert keyring.rewrap_by_master(acme.pk) == 3  # two versions that wrap, and the hmac
    assert keyring.rewrap_by_master(acme.pk) == 0
    assert keyring.rewrap_by_master(globex.pk) == 3

    settings.MASTER_KEY = NEW
    keyring.forget()
    for tenant_id, (wrapped, mac) in rings.items():
        assert keyring.unwrap_key(tenant_id, wrapped, aad=AAD) == key
        assert keyring.hmac(tenant_id, b"m") == mac


def test_without_the_right_master_key_nothing_opens_and_nothing_is_replaced(acme: Tenant, settings: Any) -> None:
    settings.MASTER_KEY = OLD
    keyring.ensure(acme.pk)
    settings.MASTER_KEY = NEW
    with pytest.raises(Corrupt, match="master"):
        keyring.hmac(acme.pk, b"m")
    with pytest.raises(Corrupt, match="master"):
        keyring.wrap_key(acme.pk, bytes(32), aad=AAD)
    with tenant_scope(acme.pk):
        assert KeyRing.objects.count() == 2


def test_a_ring_moved_to_another_tenant_does_not_open(acme: Tenant, globex: Tenant) -> None:
    keyring.ensure(acme.pk)
    with tenant_scope(acme.pk):
        stolen = list(KeyRing.objects.values("purpose", "version", "wrapped"))
    with tenant_scope(globex.pk):
        KeyRing.objects.bulk_create([KeyRing(**row) for row in stolen])
    with pytest.raises(Corrupt):
        keyring.hmac(globex.pk, b"m")


def test_ensuring_twice_keeps_the_keys(acme: Tenant) -> None:
    keyring.ensure(acme.pk)
    mac = keyring.hmac(acme.pk, b"m")
    keyring.ensure(acme.pk)
    keyring.forget()
    assert keyring.hmac(acme.pk, b"m") == mac


def test_the_hmac_key_can_never_get_a_second_version(acme: Tenant) -> None:
    with pytest.raises(IntegrityError, match="tenants_keyring_purpose"), tenant_scope(acme.pk):
        KeyRing.objects.create(purpose="hmac", version=2, wrapped=b"x")


def test_a_key_that_was_rolled_back_is_not_remembered(committed_db: None) -> None:
    acme = Tenant.objects.create(slug="acme", name="Acme")
    lost = rolled_back_hmac(acme.pk)
    kept = keyring.hmac(acme.pk, b"m")
    assert kept != lost
    keyring.forget()
    assert keyring.hmac(acme.pk, b"m") == kept


def rolled_back_hmac(tenant_id: UUID) -> bytes:
    with transaction.atomic():
        mac = keyring.hmac(tenant_id, b"m")
        assert keyring.hmac(tenant_id, b"m") == mac  # within the transaction it is one key
        transaction.set_rollback(True)
    return mac


def test_a_rotation_that_was_rolled_back_is_not_used(committed_db: None) -> None:
    acme = Tenant.objects.create(slug="acme", name="Acme")
    keyring.ensure(acme.pk)
    with transaction.atomic():
        assert keyring.rotate(acme.pk) == 2
        assert keyring.version_of(keyring.wrap_key(acme.pk, bytes(32), aad=AAD)) == 2
        transaction.set_rollback(True)
    wrapped = keyring.wrap_key(acme.pk, bytes(32), aad=AAD)
    keyring.forget()
    assert keyring.unwrap_key(acme.pk, wrapped, aad=AAD) == bytes(32)
    assert keyring.version_of(wrapped) == 1


def test_a_warm_ring_asks_the_database_nothing(committed_db: None) -> None:
    acme = Tenant.objects.create(slug="acme", name="Acme")
    wrapped = keyring.wrap_key(acme.pk, bytes(32), aad=AAD)
    keyring.hmac(acme.pk, b"m")
    with CaptureQueriesContext(connection) as asked:
        for _ in range(10):
            keyring.hmac(acme.pk, b"m")
            keyring.unwrap_key(acme.pk, wrapped, aad=AAD)
            keyring.wrap_key(acme.pk, bytes(32), aad=AAD)
    assert len(asked) == 0


def test_the_cache_is_bounded(committed_db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "KEYS_CACHED_MAX", 3)
    for n in range(5):
        keyring.hmac(Tenant.objects.create(id=new_id(), slug=f"t{n}", name="T").pk, b"m")
    assert len(keyring._cache) == 3


def test_no_key_lies_in_the_database_in_the_clear(acme: Tenant) -> None:
    keyring.ensure(acme.pk)
    with tenant_scope(acme.pk):
        rows = list(KeyRing.objects.all())
    stored = b"".join(bytes(row.wrapped) for row in rows)
    assert {row.purpose for row in rows} == set(KeyRing.Purpose)
    assert not any(keyring._open(row) in stored for row in rows)
