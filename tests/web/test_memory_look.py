"""The pages of memory in a real browser: axe, reflow, console and policy; all of it without JavaScript too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from axe_core_python.sync_playwright import Axe

from agentstate.tenants.actors import Actor
from tests.e2e import browser as browsing
from tests.e2e.test_look import LOOKS, OPEN_ALL, SHOTS, look
from tests.web.remembered import Remembered
from tests.web.test_memory_pages import every_page

if TYPE_CHECKING:
    from agentstate.tenants.models import Tenant, User

THREE_WIDTHS = (("light", 1360), ("dark", 390), ("light", 320), ("dark", 1360))


def test_pages_of_memory_are_readable_by_everybody_at_every_width(
    committed_db: None, tenant: Tenant, alice: Actor, tmp_path: Path, alice_user: User
) -> None:
    pages = dict(every_page(Remembered(alice), f"/t/{tenant.slug}")[::-1])
    with browsing.chromium() as chromium, browsing.web_server(tmp_path / "web.log") as address:
        context = chromium.new_context(reduced_motion="reduce")
        browsing.sign_in(context, alice_user, address)
        page = context.new_page()
        complaints = browsing.watch(page)
        for name, path in pages.items():
            page.goto(f"{address}{path}", wait_until="load")
            page.evaluate(Axe().axe_script)
            page.evaluate(OPEN_ALL)
            for theme, width in LOOKS if SHOTS else THREE_WIDTHS:
                look(page, f"memory-{name}-{theme}-{width}", path, theme=theme, width=width)
            assert not complaints, f"{path}: {complaints}"


def test_memory_is_read_edited_and_reviewed_without_javascript(
    committed_db: None, tenant: Tenant, alice: Actor, alice_user: User, tmp_path: Path
) -> None:
    memory = Remembered(alice)
    subject = memory.subject(email="mara@example.test")
    item = memory.item(subject, "Never phone before 10:00", namespace="contact")
    memory.propose(subject, item)
    memory.session(subject, said=2, title="Broken lamps")
    with browsing.chromium() as chromium, browsing.web_server(tmp_path / "web.log") as address:
        context = chromium.new_context(java_script_enabled=False, base_url=address)
        browsing.sign_in(context, alice_user, address)
        page = context.new_page()
        page.goto(f"/t/{tenant.slug}/memories/")
        page.get_by_label("Id, alias or e-mail, exactly").fill("mara@example.test")
        page.get_by_role("button", name="Find").click()
        page.get_by_label("Namespace, exactly").fill("contact")
        page.get_by_role("button", name="Filter").click()
        page.get_by_role("link", name="Never phone before 10:00").click()
        page.get_by_label("Text", exact=True).fill("Never phone before 11:00")
        page.get_by_role("button", name="Preview").click()
        page.get_by_text("Nothing leaves recall because of the cap.").wait_for()
        assert page.get_by_label("Text", exact=True).input_value() == "Never phone before 11:00"
        page.get_by_label(re.compile("^Reason .required")).fill("her mail")
        page.get_by_role("button", name="Save as version 2").click()
        page.get_by_text("Saved as version 2").wait_for()
        page.goto(f"/t/{tenant.slug}/memories/review/")
        page.get_by_role("link", name="Review Never").click()
        page.get_by_text("Out of date").wait_for()
        page.get_by_label(re.compile("^Reason")).fill("she changed her mind")
        page.get_by_role("button", name="Reject").click()
        page.get_by_text("Rejected; nothing was changed.").wait_for()
        page.goto(f"/t/{tenant.slug}/sessions/")
        page.get_by_role("link", name="Broken lamps").click()
        page.locator("summary", has_text="Take back").click()
        page.get_by_role("button", name="Show which").click()
        page.get_by_label(re.compile("^Reason")).fill("wrong customer")
        page.get_by_role("button", name="Take back 1 message").click()
        page.get_by_text("1 message is taken back.").wait_for()
        page.goto(f"/t/{tenant.slug}/memories/settings/")
        page.get_by_label("Another agent, by its name").fill("shop desk")
        page.get_by_role("button", name="Open").click()
        page.get_by_label("Strategy").select_option(label="window")
        page.get_by_role("button", name="Show what it would mean").click()
        page.get_by_text("window, set here").wait_for()
        page.get_by_label(re.compile("^Reason .required")).fill("long mails")
        page.get_by_role("button", name="Save as version 1").click()
        page.get_by_text("Version 1 stands").wait_for()


def test_g_m_goes_to_memories_and_the_meter_follows_what_is_typed(
    committed_db: None, tenant: Tenant, alice: Actor, alice_user: User, tmp_path: Path
) -> None:
    memory = Remembered(alice)
    subject = memory.subject()
    item = memory.item(subject, "Never phone before 10:00")
    with browsing.chromium() as chromium, browsing.web_server(tmp_path / "web.log") as address:
        context = chromium.new_context(base_url=address)
        browsing.sign_in(context, alice_user, address)
        page = context.new_page()
        complaints = browsing.watch(page)
        page.goto(f"/t/{tenant.slug}/")
        page.keyboard.type("gm")
        page.wait_for_url("**/memories/")
        page.goto(f"/t/{tenant.slug}/memories/{subject}/{item}/")
        page.get_by_label("Text", exact=True).fill("x" * 700)
        page.get_by_text("This item 700 of 2,048 bytes").wait_for()
        assert not complaints
