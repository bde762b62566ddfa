"""Erase, export and import over the API, and by the commands that operators have."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO
from pathlib import Path
from uuid import UUID

import httpx
import orjson
import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.test import Client

from agentstate.affairs import receipts
from agentstate.dev.servers import DATABASE
from agentstate.dev.testing import superuser_url
from agentstate.tenants.actors import Actor
from agentstate.tenants.models import Tenant, User
from agentstate.tenants.scope import tenant_scope
from memory import keys
from memory.models import Subject
from tests.api.conftest import Caller
from tests.api.problems import refused

NAME = "Adalbert Lind"


@pytest.fixture
def ada(api: Caller) -> str:
    made = api("POST", "/memory/subjects", {"external_id": "ada", "name": NAME}).json()
    subject: str = made["subject_id"]
    api("POST", "/memory/items", {"subject": subject, "text": "Likes tea."})
    return subject


def test_from_the_plan_to_the_receipt(api: Caller, ada: str) -> None:
    plan = api("GET", f"/memory/subjects/{ada}/erasure/plan").json()
    assert plan["rows"]["memory_item"] == 1 and plan["runs"] == [] and "backups" in plan["stays"]
    refused(api("GET", f"/memory/subjects/{ada}/erasure"), 404, "not-found")
    refused(api("POST", f"/memory/subjects/{ada}/erase", {"confirm": "Ben", "reason": "x"}), 422, "invalid", "/confirm")
    refused(api("POST", f"/memory/subjects/{ada}/erase", {"confirm": NAME, "reason": " "}), 422, "invalid", "/reason")
    refused(
        api("POST", f"/memory/subjects/{ada}/erase", {"confirm": NAME, "reason": "a\0b"}), 422, "invalid", "/reason"
    )
    asked = {"confirm": NAME, "reason": "has asked for it"}
    erased = api("POST", f"/memory/subjects/{ada}/erase", asked)
    assert erased.status_code == 200 and erased.json()["status"] == "verified", erased.text
    assert api("POST", f"/memory/subjects/{ada}/erase", asked).json() == erased.json()
    refused(api("GET", f"/memory/subjects/{ada}"), 404, "not-found")
    refused(api("GET", f"/memory/subjects/{ada}/export"), 404, "not-found")
    file = api("GET", f"/memory/subjects/{ada}/erasure/receipt")
    assert "attachment" in file.headers["Content-Disposition"] and receipts.check(file.content)["subject"] == ada


def test_erasures_are_listed_and_one_comes_with_its_receipt(
    api: Caller, ada: str, caller: Callable[..., Caller], charlie: Actor
) -> None:
    ben = api("POST", "/memory/subjects", {"external_id": "ben"}).json()["subject_id"]
    done = [
        api("POST", f"/memory/subjects/{each}/erase", {"confirm": each, "reason": "has asked"}).json()
        for each in (ada, ben)
    ]
    first = api("GET", "/memory/erasures?limit=1").json()
    second = api("GET", f"/memory/erasures?limit=1&cursor={first['next']}").json()
    assert first["erasures"] + second["erasures"] == done[::-1] and second["next"] == ""
    assert api("GET", "/memory/erasures?state=verified").json()["erasures"] == done[::-1]
    assert api("GET", "/memory/erasures?state=open").json() == {"erasures": [], "next": ""}
    whole = api("GET", f"/memory/erasures/{done[0]['erasure_id']}").json()
    assert done[0].items() <= whole.items() and whole["waits"] == [] and whole["requested_by"]
    assert receipts.check(orjson.dumps(whole["receipt"]))["subject"] == ada
    for parameter in ("state=gone", "cursor=x", "status=open", "limit=0"):
        refused(api("GET", f"/memory/erasures?{parameter}"), 422, "invalid", parameter.partition("=")[0])
    refused(api("GET", f"/memory/erasures/{ada}"), 404, "not-found")
    other = caller(charlie)
    assert other("GET", "/memory/erasures").json() == {"erasures": [], "next": ""}
    refused(other("GET", f"/memory/erasures/{done[0]['erasure_id']}"), 404, "not-found")
    refused(other("GET", f"/memory/erasures?cursor={first['next']}"), 422, "invalid", "cursor")


def test_an_export_comes_in_elsewhere(api: Caller, ada: str, caller: Callable[..., Caller], charlie: Actor) -> None:
    file = api("GET", f"/memory/subjects/{ada}/export")
    assert file.headers["Content-Type"] == "application/x-ndjson" and b"Likes tea." in file.content
    other = caller(charlie)
    told = post(other, "/memory/import?dry_run=true", file.content).json()
    assert told["new"]["item"] == 1 and not told["done"]
    done = post(other, "/memory/import", file.content).json()
    assert done["done"] and done["is_new"]
    assert api("GET", f"/memory/subjects/{ada}").status_code == 200
    refused(other("GET", f"/memory/subjects/{ada}"), 404, "not-found")
    problem = refused(post(other, "/memory/import", file.content[:-2]), 422, "invalid", "/5")
    assert "Nothing was imported" in problem["detail"]
    refused(post(other, f"/memory/import?into={ada}", file.content), 404, "not-found")
    refused(post(other, "/memory/import?overwrite=1", file.content), 422, "invalid", "overwrite")


def post(caller: Caller, path: str, content: bytes) -> httpx.Response:
    return caller("POST", path, content=content, headers={"Content-Type": "application/x-ndjson"})


def test_an_admin_exports_by_page_and_nobody_else(
    api: Caller, ada: str, server: str, tenant: Tenant, alice_user: User, olga_user: User, charlie_user: User
) -> None:
    address = f"{server}/t/{tenant.slug}/memories/{ada}/export/"
    file = httpx.get(address, cookies=signed_in(alice_user))
    assert file.status_code == 200 and file.content.splitlines()[-1].startswith(b'{"type":"end"')
    assert b"Likes tea." in file.content and "attachment" in file.headers["Content-Disposition"]
    for nobody, status in ((olga_user, 403), (charlie_user, 404)):
        assert httpx.get(address, cookies=signed_in(nobody)).status_code == status


def signed_in(user: User) -> dict[str, str]:
    client = Client()
    client.force_login(user)
    return {"sessionid": client.cookies["sessionid"].value}


class TestCommands:
    def test_erase_and_replay_after_a_restore(self, api: Caller, ada: str, tenant: Tenant, tmp_path: Path) -> None:
        moved, receipt, saved = (tmp_path / name for name in ("ada.ndjson", "receipt.json", "saved.ndjson"))
        assert "bytes" in said("export_subject", tenant.slug, "ada", str(moved))
        with pytest.raises(CommandError, match="exists"):
            said("export_subject", tenant.slug, "ada", str(moved))
        assert "1  memory_item" in said("erase_subject", tenant.slug, "ada", plan=True)
        receipt.write_text(said("erase_subject", tenant.slug, ada, reason="has asked for it"))
        assert "good" in said("verify_receipt", str(receipt))
        changed = orjson.loads(receipt.read_bytes())
        changed["receipt"]["keys_destroyed"] += 1
        (tmp_path / "changed.json").write_bytes(orjson.dumps(changed))
        with pytest.raises(CommandError, match="1 of 2"):
            said("verify_receipt", str(receipt), str(tmp_path / "changed.json"))
        assert "1 receipts" in said("replay_erasures", str(saved), save=True)
        assert f"{ada}: erased" in said("replay_erasures", str(saved))  # it knows of it: nothing is done twice
        self.restore(tenant, moved, UUID(hex=ada[8:]))
        assert f"{ada}: erased" in said("replay_erasures", str(saved))
        with tenant_scope(tenant.id):
            assert not Subject.objects.exists()
        with pytest.raises(CommandError, match="was changed"):
            said("replay_erasures", str(tmp_path / "changed.json"))

    def restore(self, tenant: Tenant, moved: Path, subject_id: UUID) -> None:
        """The rows of a backup from before: the subject is there, and nothing is known of its erasure."""

        with psycopg.connect(superuser_url(DATABASE)) as connection:
            connection.execute("SET session_replication_role = replica")
            connection.execute("DELETE FROM affairs_erasure")
            connection.execute("DELETE FROM memory_ownerkey")
            connection.execute("DELETE FROM audit_entry")
        with tenant_scope(tenant.id):
            keys.owner_key(subject_id)
            at = "2026-01-01T00:00:00Z"
            Subject.objects.create(id=subject_id, external_id="ada", created_at=at, last_active_at=at)

    def test_what_is_not_there_is_said(self, api: Caller, tenant: Tenant, tmp_path: Path) -> None:
        acts: tuple[Callable[[], str], ...] = (
            lambda: said("erase_subject", "nowhere", "ada", reason="x"),
            lambda: said("erase_subject", tenant.slug, "nobody", reason="x"),
            lambda: said("export_subject", tenant.slug, "nobody"),
            lambda: said("import_subject", tenant.slug, str(tmp_path / "none")),
            lambda: said("verify_receipt", str(tmp_path / "none")),
        )
        for act in acts:
            with pytest.raises(CommandError):
                act()

    def test_import_tells_first(self, api: Caller, ada: str, tenant: Tenant, tmp_path: Path) -> None:
        file = tmp_path / "ada.ndjson"
        said("export_subject", tenant.slug, "ada", str(file))
        assert "Would go into" in said("import_subject", tenant.slug, str(file), dry_run=True)
        assert "item: 0 new, 1 known" in said("import_subject", tenant.slug, str(file))


def said(command: str, *args: str, **options: object) -> str:
    out = StringIO()
    call_command(command, *args, stdout=out, stderr=out, **options)
    return out.getvalue()
