"""The outcome: an operator starts the demo agent, it pauses before a refund, an approver edits the amount, it finishes.

Once over plain HTTP forms, as a browser without JavaScript sends them, and once in chromium with pages open all the
time. The other side's ledger says whether the refund was made once, and with which amount.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import httpx
import pytest

from tests.e2e import browser as browsing
from tests.e2e import house as houses
from tests.e2e.house import House
from tests.web.forms import form

if TYPE_CHECKING:
    from playwright.sync_api import Page

ORDER, PROPOSED, EDITED = "4467", "180.50", "120.25"
DONE_S_MAX = 60.0
SHOTS = os.environ.get("AGENTSTATE_SCREENSHOTS", "")


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with houses.started(tmp_path_factory.mktemp("outcome")) as running:
        yield running


class Person:
    """Somebody with a browser that knows forms and links, and no JavaScript."""

    def __init__(self, house: House, role: str) -> None:
        self.http = httpx.Client(base_url=house.address, follow_redirects=True, trust_env=False, timeout=30)
        self.open("/")
        self.send("email", email=f"{role}@example.test", password=house.password)

    def open(self, address: str) -> str:
        answer = self.http.get(address)
        assert answer.status_code == 200, f"{address}: {answer.status_code}"
        self.address, self.page = str(answer.url), answer.text
        return self.page

    def send(self, having: str, **typed: str) -> int:
        """Fill in the form that has this field and send it; where it leads is the next page."""
        fields = {**form(self.page, having=having), **typed}
        answer = self.http.post(self.address, data=fields)
        self.address, self.page = str(answer.url), answer.text
        return answer.status_code

    def follow(self, pattern: str) -> str:
        link = re.search(rf'href="([^"]*{pattern}[^"]*)"', self.page)
        assert link, f"no link to {pattern} on {self.address}"
        return self.open(urljoin(self.address, link[1].replace("&amp;", "&")))

    def wait_until(self, *words: str) -> None:
        """Look again, as one without live pages does."""
        ends_at = time.monotonic() + DONE_S_MAX
        address = self.address
        while not any(word in self.open(address) for word in words):
            assert time.monotonic() < ends_at, f"{words} did not come: {re.sub('<[^>]+>', ' ', self.page)[:2000]}"
            time.sleep(0.2)


def test_over_plain_forms(house: House) -> None:
    before = len(house.refunds(ORDER))
    operator, approver = Person(house, "operator"), Person(house, "approver")
    operator.follow("/agents/")
    operator.follow("/agents/refund-desk/")
    assert operator.send("client_token", **{"arg.message_id": '"msg-01"'}) == 200
    run = operator.address
    operator.wait_until("asks to call")

    approver.follow("/approvals/")
    approver.follow("/approvals/apr_")
    assert PROPOSED in approver.page
    amount = {"arg.amount": EDITED}
    assert approver.send("proposal_hash", decision="approve", typed=PROPOSED, **amount) == 200
    assert "Your edits, before they count" in approver.page
    assert len(house.refunds(ORDER)) == before, "nothing is sent before it was confirmed"
    assert approver.send("previewed", decision="edit", typed=EDITED, message="as on the invoice") == 200
    assert "Approved with your edits" in approver.page

    operator.open(run)
    operator.wait_until("refund_id")
    made = house.refunds(ORDER)
    assert [refund["amount"] for refund in made[before:]] == [EDITED]
    operator.follow("/steps/8/")  # refund.create: the message, the customer and what is known of them come first
    assert "with edits" in operator.page and EDITED in operator.page


def lose_one_refresh(page: Page) -> None:
    """What the page asked for by itself and did not get changes nothing, and is asked for again."""
    live = re.compile(r"[?&]live=")
    page.route(live, lambda route: route.fulfill(status=503, body="<h1>Lost</h1>"), times=1)
    with page.expect_response(lambda got: bool(live.search(got.url)) and got.status == 503):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    with page.expect_response(lambda got: bool(live.search(got.url)) and got.status == 200):
        assert page.locator(".head .st.wt").is_visible() and not page.get_by_text("Lost").count()


def test_in_chromium_with_live_pages(house: House, tmp_path: Path) -> None:
    shots = Path(SHOTS) if SHOTS else tmp_path
    with browsing.chromium() as chromium:
        desk = chromium.new_context(viewport={"width": 1360, "height": 900}, base_url=house.address)
        phone = chromium.new_context(
            viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True, base_url=house.address
        )
        operator, approver = desk.new_page(), phone.new_page()
        complaints = [browsing.watch(operator), browsing.watch(approver)]
        for page, role in ((operator, "operator"), (approver, "approver")):
            page.goto("/")
            page.get_by_label("E-mail").fill(f"{role}@example.test")
            page.get_by_label("Password").fill(house.password)
            page.get_by_role("button", name="Sign in").click()
        operator.screenshot(path=shots / "outcome-1-now.png", caret="initial")
        operator.get_by_role("link", name="Agents", exact=True).click()
        operator.get_by_role("link", name="refund-desk", exact=True).click()
        operator.get_by_label("Message").select_option('"msg-02"')
        operator.get_by_role("button", name="Start the run").click()
        operator.locator(".head .st.wt").wait_for(timeout=DONE_S_MAX * 1000)  # by itself: nobody reloads
        operator.screenshot(path=shots / "outcome-2-waiting.png", full_page=True, caret="initial")
        lose_one_refresh(operator)
        assert "503" in complaints[0].pop()

        approver.get_by_role("link", name=re.compile("^Approvals")).click()
        approver.get_by_role("link", name=re.compile("Refund")).first.click()
        amount = approver.get_by_label("Amount")
        proposed = amount.input_value()
        edited = f"{float(proposed) - 1:.2f}"
        amount.fill(edited)
        approver.screenshot(path=shots / "outcome-3-approval.png", caret="initial")
        approver.get_by_text("Edit or answer").click()
        approver.get_by_role("button", name="Show my edits").click()
        approver.get_by_role("heading", name="Your edits, before they count").wait_for()
        typed = approver.locator("#ty")
        if typed.count():
            typed.fill(edited)
        approver.screenshot(path=shots / "outcome-4-preview.png", caret="initial")
        approver.get_by_role("button", name="Approve with these edits").click()
        approver.get_by_text("Approved with your edits").wait_for()

        operator.locator(".head .st", has_text="done").wait_for(timeout=DONE_S_MAX * 1000)
        operator.locator("#run-output", has_text=edited).wait_for()
        operator.screenshot(path=shots / "outcome-5-done.png", full_page=True, caret="initial")
        assert complaints == [[], []]
        order = operator.locator("#run-output").inner_text()
        match = re.search(r'order:\s*"(\w+)"', order)
        assert match, order
        assert [refund["amount"] for refund in house.refunds(match[1])][-1:] == [edited]
