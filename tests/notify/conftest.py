"""A mail server that keeps what it is given, or refuses it."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

import pytest


class Catcher(socketserver.ThreadingTCPServer):
    """Speaks enough SMTP. `refuse` is answered to RCPT instead of 250."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Session)
        self.mails: list[EmailMessage] = []
        self.recipients: list[str] = []
        self.refuse = ""

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.server_address[1]}"


class Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        self._say("220 catcher")
        for line in iter(self.rfile.readline, b""):
            if not self._answer(line.decode().strip()):
                return

    def _answer(self, line: str) -> bool:
        catcher = cast(Catcher, self.server)
        verb = line[:4].upper()
        if verb == "DATA":
            self._say("354 go on")
            catcher.mails.append(self._mail())
        if verb == "RCPT":
            catcher.recipients.append(line)
        self._say(catcher.refuse if verb == "RCPT" and catcher.refuse else "221 bye" if verb == "QUIT" else "250 ok")
        return verb != "QUIT"

    def _mail(self) -> EmailMessage:
        lines = iter(self.rfile.readline, b".\r\n")
        return message_from_bytes(b"".join(lines), policy=policy.default)

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


@pytest.fixture
def catcher(settings: Any) -> Iterator[Catcher]:
    with Catcher() as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        settings.EMAIL_URL = server.url
        yield server
        server.shutdown()
