"""Two poolers that keep no plans: by session, a server process for each client; by transaction, one for all.

The one by session says a last word of its own when its server has gone, as PgBouncer does.

Enough of them to be told apart from the server itself. One that keeps plans is PgBouncer, which is not at hand here.
"""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

SOCKET = ".s.PGSQL.5432"
NUMBER = b"\x7f\xff\xff\xff"  # of no process
CRASHED = b"SFATAL\0VFATAL\0C08P01\0Mserver conn crashed?\0\0"
IDLE = b"Z\0\0\0\x05I"  # the answer is complete, and no transaction is open
Serve = Callable[[socket.socket], None]


@contextlib.contextmanager
def by_session(url: str, folder: Path) -> Iterator[str]:
    """The same URL with a pooler between."""
    with _listening(url, folder, _Session(url)) as pooled:
        yield pooled


@contextlib.contextmanager
def by_transaction(url: str, folder: Path) -> Iterator[str]:
    """The same URL with a pooler between."""
    with contextlib.closing(_connected(url)) as server, _listening(url, folder, _Transactions(url, server)) as pooled:
        yield pooled


class _Session:
    """Renumbers the server's greeting, then passes on what comes."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __call__(self, client: socket.socket) -> None:
        with contextlib.closing(_connected(self._url)) as server:
            server.sendall(_startup(client))
            client.sendall(_renumbered(_answer(server)))
            while True:
                for source in select.select([client, server], [], [])[0]:
                    sent = source.recv(65_536)
                    if not sent:
                        return client.sendall(b"E" + struct.pack("!i", len(CRASHED) + 4) + CRASHED)
                    (server if source is client else client).sendall(sent)


class _Transactions:
    """One server process for all clients; each has it until its transaction ends."""

    def __init__(self, url: str, server: socket.socket) -> None:
        self._server, self._turn = server, threading.Lock()
        parts = urlsplit(url)
        names = f"user\0{unquote(parts.username or '')}\0database\0{parts.path.lstrip('/')}\0\0".encode()
        server.sendall(struct.pack("!ii", len(names) + 8, 0x30000) + names)
        self._greeting = _renumbered(_answer(server))

    def __call__(self, client: socket.socket) -> None:
        _startup(client)
        client.sendall(self._greeting)
        while (sent := client.recv(65_536)) and not sent.startswith(b"X"):
            with self._turn:
                self._server.sendall(sent)
                self._until_idle(client)

    def _until_idle(self, client: socket.socket) -> None:
        answer = b""
        while not answer.endswith(IDLE):
            for source in select.select([client, self._server], [], [])[0]:
                sent = source.recv(65_536)
                if source is client:
                    self._server.sendall(sent or b"Q\0\0\0\x0dROLLBACK\0")
                else:
                    answer = (answer + sent)[-len(IDLE) :]
                    client.sendall(sent)


@contextlib.contextmanager
def _listening(url: str, folder: Path, serve: Serve) -> Iterator[str]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / SOCKET))
    listener.listen()
    threading.Thread(target=_accept, args=(listener, serve), daemon=True).start()
    try:
        yield url.replace(f"host={_folder(url)}", f"host={folder}")
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


def _accept(listener: socket.socket, serve: Serve) -> None:
    with contextlib.suppress(OSError):  # closed
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_guarded, args=(client, serve), daemon=True).start()


def _guarded(client: socket.socket, serve: Serve) -> None:
    with contextlib.closing(client), contextlib.suppress(OSError):  # who goes away in the middle
        serve(client)


def _connected(url: str) -> socket.socket:
    server = socket.socket(socket.AF_UNIX)
    server.connect(str(_folder(url) / SOCKET))
    return server


def _folder(url: str) -> Path:
    return Path(parse_qs(urlsplit(url).query)["host"][0])


def _startup(client: socket.socket) -> bytes:
    length = client.recv(4, socket.MSG_WAITALL)
    return length + client.recv(struct.unpack("!i", length)[0] - 4, socket.MSG_WAITALL)


def _answer(server: socket.socket) -> bytes:
    answer = b""
    while not answer.endswith(IDLE):
        answer += server.recv(65_536)
    return answer


def _renumbered(greeting: bytes) -> bytes:
    at = greeting.index(b"K\0\0\0\x0c") + 5
    return greeting[:at] + NUMBER + greeting[at + 4 :]
