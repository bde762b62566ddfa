"""The pages of an erasure in a real browser: readable by everybody, at every width, and without JavaScript."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from axe_core_python.sync_playwright import Axe

from agentstate.affairs import erasing, receipts
from agentstate.core.ids import public_id
from agentstate.tenants.actors import Actor
from tests.affairs.erasable import Person, Town
from tests.e2e import browser as browsing
from tests.e2e.test_look import LOOKS, OPEN_ALL, SHOTS, look

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from agentstate.tenants.models import Tenant, User


def shown(page: Page, name: str) -> None:
    page.evaluate(Axe().axe_script)
    page.evaluate(OPEN_ALL)
    for theme, width in LOOKS if SHOTS else LOOKS[:4]:
        look(page, f"{name}-{theme}-{width}", page.url, theme=theme, width=width)


def test_an_erasure_is_readable_at_every_stage(
    committed_db: None, tenant: Tenant, alice: Actor, alice_user: User, tmp_path: Path
) -> None:
    town = Town(alice)
    ada = town.settle("ada", "Adalbert")
    with browsing.chromium() as chromium, browsing.web_server(tmp_path / "web.log") as address:
        context = chromium.new_context(reduced_motion="reduce")
        browsing.sign_in(context, alice_user, address)
        page = context.new_page()
        complaints = browsing.watch(page)
        page.goto(f"{address}{path_of(tenant, ada)}", wait_until="load")
        shown(page, "erase-plan")
        confirm(page, "Somebody else")
        assert "Type the name" in page.get_by_role("alert").inner_text()
        complaints.clear()  # the browser notes the 422
        shown(page, "erase-refused")
        confirm(page, "Adalbert Lind")
        assert "It waits for" in page.locator("main").inner_text()
        shown(page, "erase-stopping")
        town.lose_worker(ada.runs["driven"])
        erasing.go_on_with_all(for_s=30)
        page.get_by_role("link", name="Refresh").click()
        shown(page, "erase-done")
        assert not complaints, complaints


def test_it_is_done_without_javascript_and_the_receipt_verifies(
    committed_db: None, tenant: Tenant, alice: Actor, alice_user: User, tmp_path: Path
) -> None:
    ada = Town(alice).meet("ada", "Adalbert")
    with browsing.chromium() as chromium, browsing.web_server(tmp_path / "web.log") as address:
        context = chromium.new_context(java_script_enabled=False, base_url=address)
        browsing.sign_in(context, alice_user, address)
        page = context.new_page()
        page.goto(path_of(tenant, ada))
        confirm(page, "Adalbert Lind")
        with page.expect_download() as receiving:
            page.get_by_role("link", name="The signed receipt").click()
        assert receipts.check(Path(receiving.value.path()).read_bytes())["subject"] == public_id(
            "subject", ada.subject.id
        )


def path_of(tenant: Tenant, person: Person) -> str:
    return f"/t/{tenant.slug}/memories/{public_id('subject', person.subject.id)}/erase/"


def confirm(page: Page, name: str) -> None:
    page.get_by_label("Reason").fill("has asked for it")
    page.get_by_label("to confirm").fill(name)
    page.get_by_role("button", name="Erase for good").click()
    page.wait_for_load_state("load")
