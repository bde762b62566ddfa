"""The servers of one bench: a migrated, durable cluster and a Valkey of its own, gone afterwards."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentstate.dev import templates
from agentstate.dev.servers import APP, OWNER, Postgres, Valkey, start_until_answering

ROOT_VARIABLE = "AGENTSTATE_BENCH_ROOT"
AGENTS = "agentstate.dev.bench.agents"
LEASE_S = 5.0


@contextmanager
def servers(folder: Path) -> Iterator[dict[str, str]]:
    """Durable servers below `folder`, which decides the disk that is measured; the environment of whoever uses them."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    root = Path(tempfile.mkdtemp(prefix="bench-", dir=folder))
    valkey = Valkey(root)
    running: list[subprocess.Popen[bytes]] = []
    try:
        cluster = templates.copy_into(root, durable=True)
        os.sync()  # the copy itself must not be written out while we measure
        for server, name, environment in ((valkey, "valkey", {}), (cluster, "postgres", cluster.environment)):
            log = root / f"{name}.log"
            running.append(
                start_until_answering(
                    server.command, environment=environment, preexec=server.preexec, log=log, answers=server.answers
                )
            )
        yield _environment(root, cluster, valkey)
    finally:
        for process in running:
            process.send_signal(signal.SIGQUIT if "postgres" in str(process.args) else signal.SIGKILL)
            process.wait(20)
        shutil.rmtree(root, ignore_errors=True)


def superuser_url(database: str) -> str:
    return Postgres(Path(os.environ[ROOT_VARIABLE])).url("postgres", database=database)


def _environment(root: Path, cluster: Postgres, valkey: Valkey) -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "agentstate.settings",
        "DATABASE_URL": cluster.url(APP),
        "DATABASE_OWNER_URL": cluster.url(OWNER),
        "DATABASE_DIRECT_URL": "",
        "BROKER_URL": valkey.broker_url(0),
        "REDIS_URL": valkey.url(1),
        "SECRET_KEY": secrets.token_hex(32),
        "AGENTSTATE_MASTER_KEY": secrets.token_hex(32),
        "AGENTSTATE_STATE_DIR": str(root / "state"),
        "AGENTSTATE_AGENTS": AGENTS,
        "AGENTSTATE_LEASE_S": str(LEASE_S),
        "AGENTSTATE_LOG_LEVEL": "ERROR",
        "AGENTSTATE_NO_VENV": "1",
        "DATABASE_POOL": "0",
        "PYTHONPATH": str(templates.CHECKOUT),
        ROOT_VARIABLE: str(root),
    }
