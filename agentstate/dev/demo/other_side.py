"""How the demo's tools reach the sandbox: HTTP and SMTP on this machine, every wait bounded.

No connection is kept between calls: a kept one that the other side has closed meanwhile would fail in a way that
cannot be told from a lost reply, and an effect would be in doubt for nothing.
"""

from __future__ import annotations

import os
import smtplib
from email.message import EmailMessage
from functools import cache
from typing import Any

import httpx

import agentstate as st

Json = Any  # what json.loads gives

TIMEOUT = httpx.Timeout(10.0, connect=2.0)  # seconds without progress
MAIL_S_MAX = 10.0


def url() -> str:
    return f"http://127.0.0.1:{os.environ.get('SANDBOX_PORT', '8025')}"


def read(path: str, **query: str) -> Json:
    """Raises: httpx errors; a 404 is one of them."""
    answer = _client().get(url() + path, params=query)
    return answer.raise_for_status().json()


def find(path: str, **query: str) -> Json | None:
    """Like read; None for what is not there."""
    answer = _client().get(url() + path, params=query)
    return None if answer.status_code == 404 else answer.raise_for_status().json()


def act(path: str, payload: Json, *, key: str) -> Json:
    """Change something over there, under this idempotency key. Raises: httpx errors, which the SDK sorts."""
    headers = {"Idempotency-Key": key, "Caller-Pid": str(os.getpid())}
    return _client().post(url() + path, json=payload, headers=headers).raise_for_status().json()


def send_mail(mail: EmailMessage) -> None:
    """Hand one mail over. Raises: NotSent before its text has left, Refused for a definite no, else SMTP's own."""
    mail["Caller-Pid"] = str(os.getpid())
    try:
        with smtplib.SMTP("127.0.0.1", int(os.environ.get("SANDBOX_SMTP_PORT", "2525")), timeout=MAIL_S_MAX) as smtp:
            smtp.send_message(mail)
    except (smtplib.SMTPConnectError, smtplib.SMTPHeloError) as error:
        raise st.NotSent(str(error)) from error
    except smtplib.SMTPRecipientsRefused as error:
        raise st.Refused(f"The mail server refuses {', '.join(error.recipients)}.") from error
    except (smtplib.SMTPSenderRefused, smtplib.SMTPDataError) as error:
        if error.smtp_code >= 500:
            raise st.Refused(f"The mail server refuses the mail: {error.smtp_code}.") from error
        raise


def ask_by_key(path: str) -> st.Happened | st.NotHappened | st.Unknown:
    """What the other side knows about a call: 200 it happened, 404 not (yet), anything else it cannot tell."""
    try:
        answer = _client().get(url() + path)
    except httpx.HTTPError as error:
        return st.Unknown(type(error).__name__)
    if answer.status_code == 404:
        return st.NotHappened()
    return st.Happened(answer.json()["result"]) if answer.status_code == 200 else st.Unknown(str(answer.status_code))


def _client() -> httpx.Client:
    return _client_of(os.getpid())


@cache
def _client_of(pid: int) -> httpx.Client:
    """One per process: a forked child must not share its parent's."""
    return httpx.Client(timeout=TIMEOUT, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
