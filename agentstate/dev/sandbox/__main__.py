"""`python -m agentstate.dev.sandbox --port 8025 --smtp-port 2525 --dir .state/sandbox` (or SANDBOX_PORT and so on).

Prints one line when it takes calls: `ready http://127.0.0.1:8025 smtp://127.0.0.1:2525`. Port 0 takes a free one.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TextIO

from agentstate.dev.sandbox.behaviour import Behaviour
from agentstate.dev.sandbox.calls import Desk
from agentstate.dev.sandbox.ledger import Ledger
from agentstate.dev.sandbox.server import Server
from agentstate.dev.sandbox.smtp import MailServer


def main() -> int:
    options = _options()
    folder = Path(options.dir)
    folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(folder)
    if lock is None:
        print(f"Another sandbox uses {folder}; stop it or give another --dir.", file=sys.stderr)
        return 1
    desk = Desk(Ledger(folder / "ledger.jsonl"), Behaviour(folder / "behaviour.json"))
    try:
        web, mail = Server(options.port, desk), MailServer(options.smtp_port, desk)
    except OSError as error:
        ports = f"{options.port} or {options.smtp_port}"
        print(f"Cannot listen on port {ports}: {error.strerror}. Set SANDBOX_PORT, SANDBOX_SMTP_PORT.", file=sys.stderr)
        return 1
    _serve(web, mail)
    return 0


def _serve(web: Server, mail: MailServer) -> None:
    """Until SIGTERM or SIGINT. Calls under way are dropped: whoever waits must cope, that is the point."""
    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stop.set())
    for server in (web, mail):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"ready http://127.0.0.1:{web.server_port} smtp://127.0.0.1:{mail.server_address[1]}", flush=True)
    stop.wait()
    sys.stdout.flush()
    os._exit(0)  # sleeping calls would keep a tidy exit waiting for their delays


def _lock(folder: Path) -> TextIO | None:
    file = (folder / "lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _options() -> argparse.Namespace:
    env = os.environ
    parser = argparse.ArgumentParser(prog="agentstate.dev.sandbox", description=__doc__)
    parser.add_argument("--port", type=int, default=int(env.get("SANDBOX_PORT", "8025")))
    parser.add_argument("--smtp-port", type=int, default=int(env.get("SANDBOX_SMTP_PORT", "2525")))
    parser.add_argument("--dir", default=env.get("SANDBOX_DIR", ".state/sandbox"))
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())
