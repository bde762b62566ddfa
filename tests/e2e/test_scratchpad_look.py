"""A summarised scratchpad in a real browser: readable at every width, its originals one click away, script or not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from axe_core_python.sync_playwright import Axe

from agentstate.sdk.store import Entry, Turn
from agentstate.tenants.actors import Actor
from agentstate.testing import drive_once
from runs.engine.store import LocalStore
from tests.e2e import browser as browsing
from tests.e2e.test_look import LOOKS, OPEN_ALL, SHOTS, look
from tests.web.test_scratchpad_page import reader
from tests.web.world import World

if TYPE_CHECKING:
    from agentstate.tenants.models import Tenant, User


def summarised(alice: Actor) -> str:
    store = LocalStore(alice, lease_s=60, shared=True)
    store.register(reader.spec())
    run_id = store.admit(reader.name, {}).run_id
    drive_once(reader, run_id, store=store)
    return run_id


def over_budget(alice: Actor) -> str:
    world = World(alice)
    run_id = world.admit("4471", context_budget_tokens=100)
    entries = [Entry(1, "note", "word for word " * 90, important=True), Entry(2, "note", "and some more " * 9)]
    world.store.turn(world.claim(run_id), Turn(entries=entries))
    return run_id


def test_it_is_readable_by_everybody_at_every_width(
    committed_db: None, tenant: Tenant, alice: Actor, tmp_path: Path, alice_user: User
) -> None:
    run = summarised(alice)
    base = f"/t/{tenant.slug}/runs"
    pages = [
        ("pad", f"{base}/{run}/scratchpad/"),
        ("pad-over", f"{base}/{over_budget(alice)}/scratchpad/"),
        ("entry", f"{base}/{run}/scratchpad/3/"),
    ]
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


@pytest.mark.parametrize("script", [True, False])
def test_the_full_text_of_a_masked_entry_is_one_click_away(
    committed_db: None, tenant: Tenant, alice: Actor, tmp_path: Path, alice_user: User, script: bool
) -> None:
    path = f"/t/{tenant.slug}/runs/{summarised(alice)}/scratchpad/"
    with browsing.chromium() as chromium, browsing.web_server(tmp_path / "web.log") as address:
        context = chromium.new_context(java_script_enabled=script)
        browsing.sign_in(context, alice_user, address)
        page = context.new_page()
        page.goto(f"{address}{path}", wait_until="load")
        page.get_by_role("link", name="full text").first.click()
        page.locator(".whole").get_by_text("the very last words of page").wait_for(timeout=15_000)
        assert (page.url == f"{address}{path}") is script
