"""What `up` is about to start: which servers are ours, which ports, and the environment of every child."""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agentstate.dev.servers import APP, OWNER, CannotStart, Postgres, Valkey

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PORT = 8000
DEMO_AGENTS = "agentstate.dev.demo.agents"


@dataclass(frozen=True)
class Plan:
    """Everything decided before anything is started."""

    state: Path
    port: int
    sandbox_port: int
    smtp_port: int
    postgres: Postgres | None  # None: DATABASE_URL and DATABASE_OWNER_URL name one
    valkey: Valkey | None  # None: REDIS_URL and BROKER_URL name one
    owner_url: str
    environment: dict[str, str]  # of web, worker, beat: without the owner's URL
    secrets: dict[str, str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def make(state: Path, port: int) -> Plan:
    """Raises: CannotStart (port in use, half a pair of URLs, a URL of another kind)."""
    database_url, owner_url = _pair("DATABASE_URL", "DATABASE_OWNER_URL", schemes=("postgresql", "postgres"))
    redis_url, broker_url = _pair("REDIS_URL", "BROKER_URL", schemes=("redis", "rediss", "unix", "redis+socket"))
    _refuse_taken(port)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    postgres = None if database_url else Postgres(state)
    valkey = None if redis_url else Valkey(state)
    sandbox_port = _free_port(port + 1)
    smtp_port = _free_port(port + 2)
    kept = keep_secrets(state / "secrets")
    environment = {
        "DJANGO_SETTINGS_MODULE": "agentstate.settings",
        "DATABASE_URL": database_url or _embedded(postgres, APP),
        "DATABASE_DIRECT_URL": _direct(database_url),
        "REDIS_URL": redis_url or (valkey.url(1) if valkey else ""),
        "BROKER_URL": broker_url or (valkey.broker_url(0) if valkey else ""),
        "AGENTSTATE_STATE_DIR": str(state),
        "AGENTSTATE_PUBLIC_URL": os.environ.get("AGENTSTATE_PUBLIC_URL") or f"http://127.0.0.1:{port}",
        "AGENTSTATE_AGENTS": os.environ.get("AGENTSTATE_AGENTS") or DEMO_AGENTS,
        "EMAIL_URL": os.environ.get("EMAIL_URL") or f"smtp://127.0.0.1:{smtp_port}",
        "SANDBOX_URL": f"http://127.0.0.1:{sandbox_port}",
        "SANDBOX_SMTP": f"smtp://127.0.0.1:{smtp_port}",
        "SANDBOX_DIR": str(state / "sandbox"),
        "SANDBOX_PORT": str(sandbox_port),
        "SANDBOX_SMTP_PORT": str(smtp_port),
        "AGENTSTATE_LOG_FORMAT": os.environ.get("AGENTSTATE_LOG_FORMAT") or "console",
        "AGENTSTATE_NO_VENV": "1",
        "PYTHONPATH": str(CHECKOUT),
        **{name: kept[name] for name in ("SECRET_KEY", "AGENTSTATE_MASTER_KEY")},
    }
    return Plan(
        state=state,
        port=port,
        sandbox_port=sandbox_port,
        smtp_port=smtp_port,
        postgres=postgres,
        valkey=valkey,
        owner_url=owner_url or _embedded(postgres, OWNER),
        environment=environment,
        secrets=kept,
    )


MADE_ONCE: dict[str, Callable[[], str]] = {
    "SECRET_KEY": lambda: secrets.token_urlsafe(48),
    "AGENTSTATE_MASTER_KEY": lambda: secrets.token_hex(32),
    "AGENTSTATE_DEMO_PASSWORD": lambda: secrets.token_urlsafe(9),
}


def keep_secrets(path: Path) -> dict[str, str]:
    """NAME=value lines, made once, readable by their owner only. The environment wins."""
    kept = dict(line.split("=", 1) for line in path.read_text().splitlines()) if path.exists() else {}
    missing = {name: make() for name, make in MADE_ONCE.items() if name not in kept}
    if missing:
        write_private(path, {**kept, **missing})
    return {name: os.environ.get(name) or value for name, value in {**kept, **missing}.items()}


def write_private(path: Path, values: dict[str, str]) -> None:
    """Replace the file in one go, mode 0600 from its first byte."""
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:  # noqa: PTH123
        file.write("".join(f"{name}={value}\n" for name, value in values.items()))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _pair(first: str, second: str, *, schemes: tuple[str, ...]) -> tuple[str, str]:
    values = os.environ.get(first, ""), os.environ.get(second, "")
    if bool(values[0]) != bool(values[1]):
        present, absent = (first, second) if values[0] else (second, first)
        raise CannotStart(f"{present} is set and {absent} is not: set both, or none for the embedded server.")
    for name, value in zip((first, second), values, strict=True):
        if value and value.partition("://")[0] not in schemes:
            raise CannotStart(f"{name} must begin with {schemes[0]}:// and does not; mend it or remove both.")
    return values


def _direct(database_url: str) -> str:
    direct_url = os.environ.get("DATABASE_DIRECT_URL", "")
    if direct_url and not database_url:
        raise CannotStart("DATABASE_DIRECT_URL is set and DATABASE_URL is not: set both, or none.")
    return direct_url


def _embedded(postgres: Postgres | None, role: str) -> str:
    return postgres.url(role) if postgres else ""


def _refuse_taken(port: int) -> None:
    if not _is_free(port):
        other = _free_port(port + 1000)
        raise CannotStart(f"Port {port} is in use; stop what uses it or run with --port {other}.")


def _free_port(preferred: int) -> int:
    """The preferred one, so that links survive a restart, or any."""
    if _is_free(preferred):
        return preferred
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
