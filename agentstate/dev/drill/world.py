"""One world: servers of its own, a sandbox, a worker group, a tenant with people, and this process among them.

Import nothing of Django here before `World.start`, which sets the environment that the settings read.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agentstate.dev import templates
from agentstate.dev.drill.pool import Orders, Zygote
from agentstate.dev.drill.proxy import Proxy
from agentstate.dev.sandbox.client import Sandbox
from agentstate.dev.servers import APP, OWNER, Postgres, Valkey, start_until_answering

if TYPE_CHECKING:
    from uuid import UUID

WARM = (
    *("agentstate.celery", "kombu.transport.redis", "runs.engine.watching"),
    *("agentstate.dev.drill.mutants", "agentstate.dev.drill.people", "agentstate.dev.drill.memories"),
)
AGENTS = "agentstate.dev.drill.agents"


@dataclass(slots=True)
class World:
    root: Path
    postgres: Postgres
    valkey: Valkey
    sandbox: Sandbox
    zygote: Zygote
    orders: Orders
    mutant: str = ""
    proxy: Proxy | None = None
    group: int = 0  # pid of the worker group's leader
    tenant_id: UUID = field(init=False)
    _servers: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @classmethod
    def start(cls, root: Path, *, durable: bool, proxied: bool, mutant: str, lease_s: float) -> World:
        """Raises: CannotStart, RuntimeError of the sandbox."""
        postgres, valkey = templates.copy_into(root, durable=durable), Valkey(root, durable=durable)
        sandbox = Sandbox.start(root / "sandbox")
        os.environ.update(_environment(postgres, valkey, sandbox, mutant=mutant, lease_s=lease_s))
        _warm_up()
        orders = Orders(root)
        zygote = Zygote(orders)  # before this process has any connection
        proxy = Proxy(root / "proxy", upstream=postgres.sockets) if proxied else None
        world = cls(root, postgres, valkey, sandbox, zygote, orders, mutant, proxy)
        world._start_server("valkey")
        world._start_server("postgres")
        world._populate()
        zygote.warm_up(world.tenant_id)
        world.start_group()
        return world

    def start_group(self) -> None:
        host = str(self.proxy.folder) if self.proxy else ""
        self.group = self.zygote.lead(host=host, mutant=self.mutant)

    def kill_group(self) -> None:
        """kill -9 of the leader, the watcher and every child, stopped ones too."""
        os.killpg(self.group, signal.SIGKILL)

    def children(self) -> list[int]:
        """Processes of the worker group below its leader."""
        try:
            return [int(pid) for pid in Path(f"/proc/{self.group}/task/{self.group}/children").read_text().split()]
        except OSError:
            return []

    def stopped(self) -> list[int]:
        return [pid for pid in self.children() if _state(pid) == "T"]

    def arm_watcher(self, spec: str) -> None:
        """The next watcher is armed; the present one ends."""
        self.orders.arm_watcher(spec)
        with suppress(ProcessLookupError):
            os.kill(self.orders.watcher_pid(), signal.SIGKILL)

    def restart_postgres(self) -> None:
        """Immediate: no checkpoint, every connection cut, recovery from the log."""
        server = self._servers["postgres"]
        server.send_signal(signal.SIGQUIT)
        server.wait(20)
        self.postgres.clear_stale_locks()
        self._start_server("postgres")

    def flush(self) -> None:
        import redis

        with redis.Redis.from_url(self.valkey.url(0)) as client:
            client.flushall()

    def stop(self) -> None:
        self.kill_group()
        self.zygote.stop()
        if self.proxy:
            self.proxy.stop()
        self.sandbox.close()
        # Postgres handles SIGQUIT; Valkey inherits it ignored when we were started in the background.
        self._servers["postgres"].send_signal(signal.SIGQUIT)
        self._servers["valkey"].kill()
        for server in self._servers.values():
            server.wait(20)

    def _start_server(self, name: str) -> None:
        server: Any = {"postgres": self.postgres, "valkey": self.valkey}[name]
        self._servers[name] = start_until_answering(
            server.command, preexec=server.preexec, log=self.root / f"{name}.log", answers=server.answers
        )

    def _populate(self) -> None:
        from agentstate.dev.drill import people

        self.tenant_id = people.settle_in()


def _environment(
    postgres: Postgres, valkey: Valkey, sandbox: Sandbox, *, mutant: str, lease_s: float
) -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "agentstate.settings",
        "DATABASE_URL": postgres.url(APP),
        "DATABASE_OWNER_URL": postgres.url(OWNER),
        "DATABASE_DIRECT_URL": "",
        "BROKER_URL": valkey.broker_url(0),
        "REDIS_URL": valkey.url(1),
        "SECRET_KEY": "drill",
        "AGENTSTATE_MASTER_KEY": "5a" * 32,
        "AGENTSTATE_LEASE_S": str(lease_s),
        "AGENTSTATE_AGENTS": AGENTS,
        "AGENTSTATE_MUTANT": mutant,
        "AGENTSTATE_LOG_FORMAT": "json",
        "AGENTSTATE_FAILPOINTS": "",
        "DATABASE_POOL": "0",
        "AGENTSTATE_DRILL_LEDGER": str(sandbox.folder / "ledger.jsonl"),
        "EMBED_PROVIDER": "none",  # a child would load the model's weights first
        **sandbox.env(),
    }


def _warm_up() -> None:
    """Import all that a worker needs, without a connection."""
    import django

    django.setup()
    for name in WARM:
        import_module(name)
    from runs.engine import hosting

    hosting.specs()


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def wait_until(ready: Any, *, s: float, every_s: float = 0.02) -> bool:
    """Whether it became true in time."""
    end = time.monotonic() + s
    while not ready():
        if time.monotonic() > end:
            return False
        time.sleep(every_s)
    return True
