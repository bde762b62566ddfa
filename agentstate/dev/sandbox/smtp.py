"""The mail server: takes any mail and keeps it, as the tool `mail.send` whose key is the Message-ID.

Enough of RFC 5321 for smtplib and Django: EHLO, MAIL, RCPT, DATA, RSET, NOOP, VRFY, QUIT. No delivery, no relay.
"""

from __future__ import annotations

import socketserver
import sys
import traceback
from email import message_from_bytes, policy
from email.errors import HeaderParseError
from email.header import decode_header, make_header
from email.message import EmailMessage
from typing import cast

from agentstate.dev.sandbox.calls import Answer, Desk
from agentstate.dev.sandbox.ledger import Call, Json, LedgerFull
from agentstate.dev.sandbox.server import reset_connection

LINE_BYTES_MAX = 4096
MAIL_BYTES_MAX = 1_048_576
RECIPIENTS_MAX = 100
IDLE_S = 75


class MailServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True
    allow_reuse_port = False
    request_queue_size = 128

    def __init__(self, port: int, desk: Desk) -> None:
        self.desk = desk
        super().__init__(("127.0.0.1", port), Session)

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that hung up in mid-call is what this place is for; anything else is a mistake of ours."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


class Session(socketserver.StreamRequestHandler):
    timeout = IDLE_S
    disable_nagle_algorithm = True
    server: MailServer

    def setup(self) -> None:
        super().setup()
        self.sender: str | None = None
        self.recipients: list[str] = []
        self.open = True

    def handle(self) -> None:
        self._say("220 sandbox ESMTP")
        while self.open:
            line = self.rfile.readline(LINE_BYTES_MAX)
            if not line:
                return
            verb, _, rest = line.decode("utf-8", "replace").strip().partition(" ")
            self._obey(verb.upper(), rest.strip())

    def _obey(self, verb: str, rest: str) -> None:
        match verb:
            case "EHLO":
                self._say(f"250-sandbox\r\n250-SIZE {MAIL_BYTES_MAX}\r\n250-SMTPUTF8\r\n250 8BITMIME")
            case "HELO" | "NOOP" | "VRFY":
                self._say("250 fine")
            case "MAIL":
                self.sender, self.recipients = _address(rest), []
                self._say("250 fine")
            case "RCPT":
                self._recipient(_address(rest))
            case "DATA":
                self._mail()
            case "RSET":
                self.sender, self.recipients = None, []
                self._say("250 fine")
            case "QUIT":
                self._say("221 good bye")
                self.open = False
            case _:
                self._say("502 not here")

    def _recipient(self, address: str) -> None:
        if self.sender is None or len(self.recipients) >= RECIPIENTS_MAX:
            self._say("503 MAIL first" if self.sender is None else "452 too many recipients")
        else:
            self.recipients.append(address)
            self._say("250 fine")

    def _mail(self) -> None:
        if self.sender is None or not self.recipients:
            self._say("503 MAIL and RCPT first")
            return
        self._say("354 go on, end with a lone dot")
        raw = self._read_mail()
        if raw is None:
            self._say("552 too large")
        else:
            self._take(raw)
        self.sender, self.recipients = None, []

    def _read_mail(self) -> bytes | None:
        """None when it was too large; all of it is read either way, so that the answer can be heard."""
        kept: list[bytes] = []
        size = 0
        while True:
            line = self.rfile.readline()
            if not line:
                raise ConnectionError("hung up in the middle of a mail")
            if line in (b".\r\n", b".\n"):
                return b"".join(kept) if size <= MAIL_BYTES_MAX else None
            size += len(line)
            if size <= MAIL_BYTES_MAX:
                kept.append(line[1:] if line.startswith(b".") else line)

    def _take(self, raw: bytes) -> None:
        message = message_from_bytes(raw, policy=policy.default)
        pid = _header(message, "Caller-Pid")
        key = _header(message, "Message-ID").removeprefix("<").removesuffix(">")
        payload = _readable(message, sender=self.sender or "", recipients=self.recipients)
        call = Call("mail.send", key, payload, int(pid) if pid.isdecimal() else None)
        try:
            call, answer = self.server.desk.take(call, hang_up=self._hang_up)
        except LedgerFull:
            self._say("452 no room")
            return
        if not answer.lost:
            self._say(_reply(answer))
        self.server.desk.replied(call, answer, sent=True)

    def _hang_up(self) -> None:
        self.open = False
        self.rfile.close()
        reset_connection(self.connection)

    def _say(self, line: str) -> None:
        self.wfile.write(line.encode() + b"\r\n")


def _readable(message: EmailMessage, *, sender: str, recipients: list[str]) -> Json:
    part = message.get_body(("plain", "html"))
    return {
        "from": _header(message, "From") or sender,
        "to": ", ".join(recipients),
        "subject": _header(message, "Subject"),
        "date": _header(message, "Date"),
        "in_reply_to": _header(message, "In-Reply-To"),
        "text": _text(part) if isinstance(part, EmailMessage) else "",
    }


def _header(message: EmailMessage, name: str) -> str:
    """As sent, words decoded. From the raw line: the structured parser of the standard library trips over odd ones."""
    raw = next((str(text) for header, text in message.raw_items() if header.lower() == name.lower()), "")
    folded = " ".join(raw.split()).encode(errors="surrogateescape").decode(errors="replace")
    try:
        return str(make_header(decode_header(folded)))
    except (HeaderParseError, LookupError, ValueError):
        return folded


def _text(part: EmailMessage) -> str:
    try:
        return str(part.get_content())
    except (LookupError, KeyError):  # a character set nobody knows
        return cast(bytes, part.get_payload(decode=True)).decode("utf-8", "replace")


def _reply(answer: Answer) -> str:
    if answer.status < 400:
        return f"250 kept as {answer.body.get('mail_id')}"
    return "550 refused" if answer.status < 500 else "451 try again later"


def _address(rest: str) -> str:
    """ "FROM:<a@b> SIZE=12" as "a@b"."""
    inside = rest.partition(":")[2].strip()
    return inside[1:].partition(">")[0] if inside.startswith("<") else inside.partition(" ")[0]
