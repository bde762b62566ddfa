"""A proxy before Postgres that can swallow the reply of the next commit of one process and cut its connection.

A process of its own: the drill forks and restarts servers, which threads beside it would make unsafe.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from agentstate.dev.children import dying_with_parent

SOCKET = ".s.PGSQL.5432"
IDLE = b"Z\x00\x00\x00\x05I"  # ReadyForQuery outside a transaction: what was sent is committed
HEARTBEATS = b"client_connection_check_interval"  # only the connection of a worker's presence sets it at its start
CHUNK_BYTES = 1 << 16


@dataclass(eq=False, slots=True)
class Line:
    """A client's connection and its continuation to the server."""

    client: socket.socket
    server: socket.socket
    pid: int
    carries_heartbeats: bool = False
    started: bool = False


class Proxy:
    """Started in `folder`; clients use it as the socket folder of Postgres."""

    def __init__(self, folder: Path, *, upstream: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder
        self._control_path = str(folder / "control")
        self._control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        prepare = dying_with_parent(signal.SIGKILL)
        listener = _listen(folder / SOCKET)
        orders = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        orders.bind(self._control_path)
        self.pid = os.fork()
        if self.pid == 0:
            prepare()
            _Relay(listener, orders, upstream / SOCKET).run()
            os._exit(0)
        listener.close()
        orders.close()

    def swallow_next_commit(self, pid: int) -> None:
        """Of this client process: the reply is lost, the connection is gone, the commit stands."""
        self._control.sendto(str(pid).encode(), self._control_path)

    def stop(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


class _Relay:
    def __init__(self, listener: socket.socket, orders: socket.socket, upstream: Path) -> None:
        self._upstream = str(upstream)
        self._armed: set[int] = set()
        self._selector = selectors.DefaultSelector()
        self._selector.register(listener, selectors.EVENT_READ, None)
        self._selector.register(orders, selectors.EVENT_READ, orders)

    def run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                if key.data is None:
                    self._accept(ready)
                elif key.data is ready:
                    self._armed.add(int(ready.recv(64)))
                else:
                    self._forward(key.data, ready)

    def _accept(self, listener: socket.socket) -> None:
        client, _ = listener.accept()
        pid = struct.unpack("3i", client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self._upstream)
        except OSError:
            client.close()
            return
        line = Line(client, server, pid)
        for end in (client, server):
            self._selector.register(end, selectors.EVENT_READ, line)

    def _forward(self, line: Line, ready: socket.socket) -> None:
        if ready.fileno() < 0:
            return  # cut in this very round
        try:
            chunk = ready.recv(CHUNK_BYTES)
            if not chunk or (ready is line.server and self._is_swallowed(line, chunk)):
                self._cut(line)
                return
            if ready is line.client and not line.started:
                line.started, line.carries_heartbeats = True, HEARTBEATS in chunk
            (line.server if ready is line.client else line.client).sendall(chunk)
        except OSError:
            self._cut(line)

    def _is_swallowed(self, line: Line, chunk: bytes) -> bool:
        if line.pid not in self._armed or line.carries_heartbeats or not chunk.endswith(IDLE):
            return False
        self._armed.discard(line.pid)
        return True

    def _cut(self, line: Line) -> None:
        for end in (line.client, line.server):
            self._selector.unregister(end)
            end.close()


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(256)
    return listener
