"""The shop, the CRM and the mail server do what real ones would."""

from __future__ import annotations

import smtplib
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest

from agentstate.dev.sandbox.client import Sandbox
from agentstate.dev.sandbox.ledger import Json
from tests.sandbox.conftest import Caller

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>"


def mail(subject: str, text: str, *, message_id: str = "<m1@shop.example>") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "desk@shop.example", "tom.baker@example.net", subject
    message["Message-ID"] = message_id
    message.set_content(text)
    return message


def send(sandbox: Sandbox, message: EmailMessage) -> None:
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=5) as smtp:
        smtp.send_message(message)


def page(sandbox: Sandbox, path: str) -> str:
    answer = httpx.get(sandbox.url + path, headers={"Accept": "text/html"}, trust_env=False)
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    return answer.text


def test_a_refund_lowers_the_balance_of_its_order_only(sandbox: Sandbox, caller: Caller) -> None:
    assert caller.refund("k1", "4467", "180.50").json()["balance"] == "90.25"
    assert sandbox.get("/orders/4467")["refunded"] == "180.50"
    assert sandbox.get("/orders/4471")["refunded"] == "0.00"


def test_a_refund_above_the_balance_is_refused_and_not_acted(sandbox: Sandbox, caller: Caller) -> None:
    caller.refund("k1", "4467", "180.50")
    answer = caller.refund("k2", "4467", "90.26")
    assert (answer.status_code, "90.25 EUR left" in answer.json()["error"]) == (422, True)
    assert caller.refund("k3", "4467", "90.25").status_code == 201
    assert len(sandbox.acts("refund.create")) == 2


@pytest.mark.parametrize("amount", ["0", "-5", "1.005", "NaN", "inf", "much", "", None, True, [], "1e400000000"])
def test_an_amount_that_is_no_money_is_refused(sandbox: Sandbox, caller: Caller, amount: Json) -> None:
    assert caller.refund("k1", "4467", amount).status_code == 422
    assert sandbox.acts("refund.create") == []


@pytest.mark.parametrize("path", ["/orders/1", "/customers/c-1", "/mailbox/msg-99", "/inbox/77", "/nowhere"])
def test_what_does_not_exist_is_404(sandbox: Sandbox, path: str) -> None:
    assert httpx.get(sandbox.url + path, trust_env=False).status_code == 404


def test_a_note_on_a_customer_is_kept_once_per_key(sandbox: Sandbox) -> None:
    for _ in range(2):
        note = {"text": "Refunded 10.00"}
        httpx.post(f"{sandbox.url}/customers/c-1002/notes", json=note, headers={"Idempotency-Key": "n1"})
    assert [note["text"] for note in sandbox.get("/customers/c-1002")["notes"]] == ["Refunded 10.00"]


def test_a_customer_is_found_by_the_address_of_a_message(sandbox: Sandbox) -> None:
    for message in sandbox.get("/mailbox"):
        answer = httpx.get(f"{sandbox.url}/customers", params={"email": message["sender"]}, trust_env=False)
        assert answer.status_code == (404 if message["message_id"] in ("msg-07", "msg-08") else 200)


def test_the_mailbox_holds_messages_in_several_languages(sandbox: Sandbox) -> None:
    messages = sandbox.get("/mailbox")
    assert len(messages) == 13
    assert sandbox.get("/mailbox/msg-03")["subject"] == "Remboursement commande 4480"


def test_a_mail_is_caught_and_can_be_asked_for_by_its_message_id(sandbox: Sandbox) -> None:
    send(sandbox, mail("Grüße €", "Zeile eins\n.Punkt\n"))
    known = sandbox.get("/mail/by-message-id/m1@shop.example")
    assert known["result"]["text"].splitlines() == ["Zeile eins", ".Punkt"]
    assert known["result"]["subject"] == "Grüße €"
    assert [call.key for call in sandbox.acts("mail.send")] == ["m1@shop.example"]


def test_a_hostile_mail_is_shown_as_text(sandbox: Sandbox) -> None:
    send(sandbox, mail(f"Hi {HOSTILE}", HOSTILE, message_id="<m2@shop.example>"))
    raw = f"Subject: raw\r\nMessage-ID: <{HOSTILE}>\r\nFrom: {HOSTILE}\r\n\r\n{HOSTILE}"
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=5) as smtp:
        smtp.sendmail("a@b.example", ["c@d.example"], raw)
    mails = [f"/inbox/{mail['mail_id']}" for mail in sandbox.get("/inbox")]
    assert len(mails) == 2
    for path in ("/inbox", *mails, "/ledger"):
        shown = page(sandbox, path)
        assert "<script" not in shown
        assert "<img" not in shown
    assert "&lt;script&gt;" in page(sandbox, "/inbox")
    assert "<script" not in page(sandbox, "/mailbox")


def test_text_that_is_no_text_is_kept_and_shown(sandbox: Sandbox) -> None:
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=5) as smtp:
        smtp.sendmail("a@b.example", ["c@d.example"], b"Subject: Gr\xc3\xbc\xff\r\n\r\n\xff\xfe")
    assert sandbox.get("/inbox")[0]["subject"] == "Grü\N{REPLACEMENT CHARACTER}"
    lone = httpx.post(
        f"{sandbox.url}/acts/crane.lift", content=b'{"a": "\\ud800"}', headers={"Content-Type": "application/json"}
    )
    assert lone.status_code == 201
    assert "Ledger" in page(sandbox, "/ledger")


def test_mail_obeys_the_switches(sandbox: Sandbox) -> None:
    sandbox.behave("mail.send", refuse=422, calls=1)
    with pytest.raises(smtplib.SMTPDataError, match="550"):
        send(sandbox, mail("a", "b"))
    sandbox.behave("mail.send", fail=500, calls=1)
    with pytest.raises(smtplib.SMTPDataError, match="451"):
        send(sandbox, mail("a", "b"))
    sandbox.behave("mail.send", drop_reply=True, calls=1)
    with pytest.raises((smtplib.SMTPServerDisconnected, ConnectionResetError)):
        send(sandbox, mail("a", "b"))
    assert [call.acted for call in sandbox.calls("mail.send")] == [False, False, True]


def test_a_mail_without_envelope_or_too_large_is_refused(sandbox: Sandbox) -> None:
    with smtplib.SMTP("127.0.0.1", sandbox.smtp_port, timeout=5) as smtp:
        assert smtp.docmd("DATA")[0] == 503
        assert smtp.docmd("RCPT", "TO:<a@b>")[0] == 503
        smtp.ehlo()
        smtp.mail("a@b.example")
        smtp.rcpt("c@d.example")
        assert smtp.data(b"x" * 79 + b"\r\n" + b"y" * 1_100_000)[0] == 552
        assert smtp.noop()[0] == 250


def test_the_lookup_page_says_how_often_it_happened(sandbox: Sandbox, caller: Caller) -> None:
    assert "It has not happened." in page(sandbox, "/lookup/k1")
    caller.refund("k1", "4467", "1")
    assert "It happened once." in page(sandbox, "/lookup/k1")
    caller.refund("k1", "4467", "1")
    assert "It happened 2 times." in page(sandbox, "/lookup/k1")


def test_the_ledger_can_be_asked_by_key_tool_and_phase(sandbox: Sandbox, caller: Caller) -> None:
    caller.call("crane.lift", "k1")
    caller.call("crane.lift", "k2")
    sandbox.wait_for("replied", count=2)
    assert [line["phase"] for line in sandbox.get("/ledger?key=k2")] == ["accepted", "acted", "replied"]
    assert [line["key"] for line in sandbox.get("/ledger?tool=crane.lift&phase=acted")] == ["k1", "k2"]
    assert [line["n"] for line in sandbox.get("/ledger?newest=2")] == [5, 6]


def test_an_analysis_and_pages_are_the_same_every_time(sandbox: Sandbox) -> None:
    assert sandbox.get("/pages/tea/3") == sandbox.get("/pages/tea/3")
    made = {
        httpx.post(
            f"{sandbox.url}/analyses", json={"topic": "tea", "pages": 3}, headers={"Idempotency-Key": "a1"}
        ).json()["analysis_id"]
        for _ in range(2)
    }
    assert len(made) == 1


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"Host": "evil.example"}, b"{}", 403),
        ({"Content-Type": "text/plain"}, b"{}", 415),
        ({}, b"{", 400),
        ({}, b"[1]", 422),
        ({}, b"[" * 100_000, 400),
        ({}, b"1" * 1_100_000, 413),
    ],
)
def test_bad_requests_are_refused_and_leave_no_line(
    sandbox: Sandbox, headers: dict[str, str], body: bytes, status: int
) -> None:
    sent = {"Content-Type": "application/json", **headers}
    answer = httpx.post(f"{sandbox.url}/acts/crane.lift", content=body, headers=sent, trust_env=False)
    assert answer.status_code == status
    assert sandbox.calls("crane.lift") == []


def test_it_listens_on_loopback_only(sandbox: Sandbox) -> None:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    listening = [tuple(row[1].split(":")) for row in rows if row[3] == "0A"]
    ours = [host for host, port in listening if int(port, 16) in (sandbox.port, sandbox.smtp_port)]
    assert ours == ["0100007F", "0100007F"]
