"""Every page in a real browser: no violation of axe, no sideways scroll, no complaint of the console or the policy."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from axe_core_python.sync_playwright import Axe

from agentstate.tenants.actors import Actor
from tests.e2e import browser as browsing
from tests.web.test_every_page import every_page
from tests.web.world import World

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from agentstate.tenants.models import Tenant, User

# Contrast hangs on the theme, layout on the width: the first four cover both; with pictures, all six are looked at.
LOOKS = (("light", 1360), ("dark", 390), ("light", 320), ("dark", 1360), ("light", 390), ("dark", 320))
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
ELEMENTS_MAX = 3000
# This axe is older than ::details-content and takes what is folded away for visible; open, it is judged as it is seen.
OPEN_ALL = "() => document.querySelectorAll('main details:not(.menu)').forEach(part => { part.open = true })"
SHOTS = os.environ.get("AGENTSTATE_SCREENSHOTS", "")  # a folder: keep a picture of each page there


def test_pages_are_readable_by_everybody_at_every_width(
    committed_db: None, tenant: Tenant, alice: Actor, tmp_path: Path, alice_user: User
) -> None:
    pages = one_of_each(World(alice), f"/t/{tenant.slug}")
    with browsing.chromium() as chromium, browsing.web_server(tmp_path / "web.log") as address:
        context = chromium.new_context(reduced_motion="reduce")
        browsing.sign_in(context, alice_user, address)
        page = context.new_page()
        complaints = browsing.watch(page)
        for name, path in pages:
            page.goto(f"{address}{path}", wait_until="load")
            page.evaluate(Axe().axe_script)
            page.evaluate(OPEN_ALL)
            for theme, width in LOOKS if SHOTS else LOOKS[:4]:
                look(page, f"{name}-{theme}-{width}", path, theme=theme, width=width)
            assert not complaints, f"{path}: {complaints}"


def test_everything_but_live_rows_works_without_javascript(
    committed_db: None, tenant: Tenant, alice: Actor, bob_user: User, tmp_path: Path
) -> None:
    world = World(alice)
    for number in range(60):
        world.admit(str(number))
    failed = world.failed()
    world.asking(risk="low")
    with browsing.chromium() as chromium, browsing.web_server(tmp_path / "web.log") as address:
        context = chromium.new_context(java_script_enabled=False, base_url=address)
        browsing.sign_in(context, bob_user, address)
        page = context.new_page()
        page.goto(f"/t/{tenant.slug}/runs/")
        page.get_by_role("link", name="Older").click()
        page.get_by_role("link", name="Newer").click()
        page.get_by_label("State", exact=True).select_option("failed")
        page.get_by_role("button", name="Filter").click()
        assert page.locator("tbody tr").count() == 1
        page.locator("a.go").click()
        assert failed in page.url
        page.get_by_role("link", name="Audit", exact=True).click()
        page.get_by_role("link", name=re.compile("^Approvals")).click()
        page.get_by_role("link", name="Review").click()
        page.get_by_label("Amount").fill("99.50")
        page.get_by_role("button", name="Approve", exact=True).click()
        assert page.locator("#edit-preview ins").inner_text() == "99.5"
        page.get_by_role("button", name="Approve with these edits").click()
        page.get_by_text("Approved with your edits").wait_for()


def test_keys_follow_links_and_can_be_turned_off(
    committed_db: None, tenant: Tenant, alice: Actor, alice_user: User, tmp_path: Path
) -> None:
    run = World(alice).failed()
    with browsing.chromium() as chromium, browsing.web_server(tmp_path / "web.log") as address:
        context = chromium.new_context(base_url=address)
        browsing.sign_in(context, alice_user, address)
        page = context.new_page()
        page.goto(f"/t/{tenant.slug}/")
        page.keyboard.type("gr")
        page.wait_for_url("**/runs/")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        page.wait_for_url(f"**/runs/{run}/")
        page.keyboard.press("/")
        page.keyboard.type("gn")  # typed into the field: no key
        assert page.locator("#top-q").input_value() == "gn"
        page.goto("/preferences/")
        page.get_by_label("off", exact=True).check()
        page.get_by_role("button", name="Save").click()
        page.goto(f"/t/{tenant.slug}/runs/")
        page.keyboard.type("gn")
        assert page.url.endswith("/runs/")


def one_of_each(world: World, base: str) -> list[tuple[str, str]]:
    """Each template once, in the state that shows most of it."""
    wanted = dict(every_page(world, base)[::-1]) | {"preferences": "/preferences/"}
    return list(wanted.items())


def look(page: Page, name: str, path: str, *, theme: Any, width: int) -> None:
    where = f"{path} ({theme}, {width} px)"
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(color_scheme=theme)
    if SHOTS:
        page.screenshot(path=f"{SHOTS}/{name}.png", full_page=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{where} scrolls sideways"
    assert page.evaluate("document.querySelectorAll('*').length") <= ELEMENTS_MAX, where
    _check_axe(page, where)


def _check_axe(page: Page, where: str) -> None:
    options = {"runOnly": {"type": "tag", "values": TAGS}, "resultTypes": ["violations"]}
    found = page.evaluate("options => axe.run(document, options)", options)
    said = [
        f"{rule['id']}: {node['target']} {node['failureSummary']}"
        for rule in found["violations"]
        for node in rule["nodes"][:3]
    ]
    assert not said, f"{where}\n" + "\n".join(said)


def test_axe_finds_a_planted_fault(tmp_path: Path) -> None:
    """The check above can fail: a page without a title and with an unlabelled field is refused."""
    with browsing.chromium() as chromium:
        page = chromium.new_page()
        page.set_content("<html><body><input></body></html>")
        page.evaluate(Axe().axe_script)
        with pytest.raises(AssertionError, match="label"):
            _check_axe(page, "planted")
