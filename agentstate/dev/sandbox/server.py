"""The HTTP side: shop, CRM, pages for research, ledger, switches. One thread per connection, loopback only.

Acting:   POST /refunds  /customers/{id}/notes  /analyses  /acts/{tool}     with Idempotency-Key
Probing:  GET /refunds/by-key/{key}  /notes/by-key/{key}  /analyses/by-key/{key}  /acts/{tool}/by-key/{key}
          GET /mail/by-message-id/{id};  200 happened, 404 not (yet), 501 cannot be asked, 503 cannot tell now
Reading:  GET /mailbox[/{id}]  /orders[/{id}]  /customers[/{id}]  /pages/{topic}/{n}  /inbox[/{n}]  /lookup/{key}
Testing:  GET /ledger?key=&tool=&phase=&newest=  GET|PUT /behaviour[/{tool}]  POST /reset  GET /healthz
"""

from __future__ import annotations

import json
import socket
import struct
import sys
import traceback
from dataclasses import asdict
from http.client import responses
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

from agentstate.dev.sandbox import pages, research
from agentstate.dev.sandbox.behaviour import BadSwitch
from agentstate.dev.sandbox.calls import Desk, Known
from agentstate.dev.sandbox.ledger import Call, Json, LedgerFull
from agentstate.dev.sandbox.mailbox import MESSAGES
from agentstate.dev.sandbox.shop import Denied

BODY_BYTES_MAX = 1_048_576
IDLE_S = 75
LEDGER_PAGE_LINES = 500
HOSTS = {"127.0.0.1", "localhost", "[::1]"}
SAFETY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
}
TOOL_OF = {"refunds": "refund.create", "notes": "crm.note", "analyses": "analysis.create"}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_port = False  # a second one on the same port would take half of the calls
    request_queue_size = 128

    def __init__(self, port: int, desk: Desk) -> None:
        self.desk = desk
        super().__init__(("127.0.0.1", port), Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """A caller that hung up in mid-call is what this place is for; anything else is a mistake of ours."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


class Trouble(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def reset_connection(connection: socket.socket) -> None:
    """Close with RST: the caller learns nothing about what was done."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "sandbox"
    timeout = IDLE_S
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: object) -> None:
        """The ledger is the log."""

    # One request

    def _serve(self) -> None:
        try:
            body = self._body()
            self._check_host()
            self._route(body)
        except Trouble as trouble:
            self._json(trouble.status, {"error": str(trouble)})
        except Denied as no:
            self._json(no.status, {"error": str(no)})
        except LedgerFull as full:
            self._json(507, {"error": str(full)})
        except BadSwitch as wrong:
            self._json(422, {"error": str(wrong)})

    def _route(self, body: Json) -> None:
        parts = urlsplit(self.path)
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        query = dict(parse_qsl(parts.query))
        if self.command == "GET":
            return self._get(path, query)
        if self.command == "PUT" and path[0] == "behaviour" and len(path) == 2:
            return self._json(200, asdict(self.server.desk.behaviour.put(path[1], body)))
        if self.command == "POST" and path == ["reset"]:
            self.server.desk.reset()
            return self._json(200, {"reset": True})
        if self.command == "POST":
            return self._act(path, body)
        raise Trouble(405, "This method does nothing here.")

    def _get(self, path: list[str], query: dict[str, str]) -> None:
        desk = self.server.desk
        match path:
            case ["healthz"]:
                self._json(200, {"ok": True, "ledger_lines": len(desk.ledger.lines)})
            case ["sandbox.css"]:
                self._send(200, pages.CSS.encode(), "text/css; charset=utf-8")
            case ["ledger"]:
                self._ledger(query)
            case ["lookup", key]:
                self._html(pages.lookup(key, desk.ledger.find(key=key)))
            case ["behaviour"]:
                self._json(200, desk.behaviour.everything())
            case ["behaviour", tool]:
                self._json(200, asdict(desk.behaviour.peek(tool)))
            case _:
                self._probe(path, query)

    def _probe(self, path: list[str], query: dict[str, str]) -> None:
        match path:
            case [("refunds" | "notes" | "analyses") as kind, "by-key", key]:
                self._known(self.server.desk.known(TOOL_OF[kind], key))
            case ["acts", tool, "by-key", key]:
                self._known(self.server.desk.known(tool, key))
            case ["mail", "by-message-id", message_id]:
                self._known(self.server.desk.known("mail.send", message_id.strip("<>")))
            case _:
                self._read(path, query)

    def _read(self, path: list[str], query: dict[str, str]) -> None:
        status = self.server.desk.slow_read(f"{path[0]}.read")
        if status:
            raise Trouble(status, "This switch of the sandbox is on.")
        match path:
            case [("orders" | "customers"), *_]:
                self._customers(path, query)
            case ["pages", topic, number] if number.isdecimal():
                self._json(200, research.page(topic, int(number)))
            case _:
                self._mail(path)

    def _mail(self, path: list[str]) -> None:
        mails = self.server.desk.shop.mails()
        match path:
            case ["mailbox"]:
                self._either([asdict(message) for message in MESSAGES.values()], pages.mailbox)
            case ["mailbox", message_id] if message_id in MESSAGES:
                self._json(200, asdict(MESSAGES[message_id]))
            case ["inbox"] | [""]:
                self._either(mails, pages.inbox)
            case ["inbox", number]:
                found = [mail for mail in mails if str(mail["mail_id"]) == number]
                self._either(_only(found, f"There is no mail {number}."), pages.mail)
            case _:
                raise Trouble(404, "There is nothing at this address.")

    def _customers(self, path: list[str], query: dict[str, str]) -> None:
        shop = self.server.desk.shop
        match path:
            case ["orders"]:
                self._json(200, shop.orders(query.get("customer", "")))
            case ["orders", order_id]:
                self._either(shop.order(order_id), pages.order)
            case ["customers"]:
                self._json(200, shop.customer_by_email(query.get("email", "")))
            case ["customers", customer_id]:
                self._json(200, shop.customer(customer_id))
            case _:
                raise Trouble(404, "There is nothing at this address.")

    # Acting

    def _act(self, path: list[str], body: Json) -> None:
        if not isinstance(body, dict):
            raise Trouble(422, "Send a JSON object.")
        match path:
            case [("refunds" | "analyses") as kind]:
                tool = TOOL_OF[kind]
            case ["customers", customer_id, "notes"]:
                tool, body = "crm.note", {**body, "customer_id": customer_id}
            case ["acts", tool]:
                pass
            case _:
                raise Trouble(404, "Nothing can be done at this address.")
        pid = self.headers.get("Caller-Pid", "")
        key = self.headers.get("Idempotency-Key", "")
        call = Call(tool, key, body, int(pid) if pid.isdecimal() else None)
        self._answer(call)

    def _answer(self, call: Call) -> None:
        call, answer = self.server.desk.take(call, hang_up=self._hang_up)
        sent = False
        try:
            if not answer.lost:
                headers = {"Idempotent-Replayed": "true"} if answer.deduped else {}
                self._json(answer.status, answer.body, headers=headers)
                sent = True
        except OSError:
            self.close_connection = True
        self.server.desk.replied(call, answer, sent=sent)

    def _hang_up(self) -> None:
        self.close_connection = True
        self.rfile.close()  # it shares the socket; a close that leaves it open would send nothing
        reset_connection(self.connection)

    def _known(self, known: Known) -> None:
        match known.state:
            case "happened":
                self._json(200, {"happened": True, "result": known.result})
            case "not_happened":
                self._json(404, {"happened": False})
            case "off":
                self._json(501, {"error": "This tool cannot be asked by key."})
            case "failing":
                self._json(503, {"error": "Cannot tell now."})

    # Border

    def _body(self) -> Json:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            self.close_connection = True
            raise Trouble(411, "Send a Content-Length.")
        length = self.headers.get("Content-Length", "0")
        if not length.isdecimal() or int(length) > BODY_BYTES_MAX:
            self.close_connection = True
            raise Trouble(413, f"A body may have {BODY_BYTES_MAX} bytes.")
        raw = self.rfile.read(int(length))
        if not raw:
            return None
        if not self.headers.get("Content-Type", "").startswith("application/json"):
            raise Trouble(415, "Send application/json.")  # also what keeps other sites' forms out
        try:
            return json.loads(raw)
        except (ValueError, RecursionError):
            raise Trouble(400, "This is not JSON.") from None

    def _check_host(self) -> None:
        """A page elsewhere that points its own name at this address must not get in."""
        if self.headers.get("Host", "").rsplit(":", 1)[0] not in HOSTS:
            raise Trouble(403, "Only this machine may ask.")

    def _ledger(self, query: dict[str, str]) -> None:
        wanted = {name: query[name] for name in ("key", "tool", "phase") if name in query}
        lines = self.server.desk.ledger.find(**wanted)
        newest = query.get("newest", "")
        if newest.isdecimal():
            lines = lines[-int(newest) :]
        self._either(lines, lambda found: pages.ledger(found[-LEDGER_PAGE_LINES:]))

    def _either(self, found: Json, page: pages.Render) -> None:
        """A browser gets the page, everybody else the JSON."""
        if "text/html" in self.headers.get("Accept", ""):
            self._html(page(found))
        else:
            self._json(200, found)

    def _html(self, text: str) -> None:
        self._send(200, text.encode(errors="replace"), "text/html; charset=utf-8")

    def _json(self, status: int, body: Json, *, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(body).encode(), "application/json", headers or {})

    def _send(self, status: int, body: bytes, content_type: str, headers: dict[str, str] | None = None) -> None:
        lines = {"Content-Type": content_type, "Content-Length": str(len(body)), **SAFETY, **(headers or {})}
        if self.close_connection:
            lines["Connection"] = "close"
        head = f"HTTP/1.1 {status} {responses.get(status, '')}\r\n" + "".join(f"{n}: {t}\r\n" for n, t in lines.items())
        self.wfile.write(head.encode() + b"\r\n" + body)  # one write: a second would wait for the caller's ACK


def _only(found: list[Json], missing: str) -> Json:
    if not found:
        raise Trouble(404, missing)
    return found[0]
