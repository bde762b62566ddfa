"""A migrated cluster, made once per set of migrations and copied (0.1 s) for each test session.

The name is a digest of everything the migrations are made of, so a changed one makes another cluster.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from agentstate.dev.children import dying_with_parent
from agentstate.dev.servers import APP, OWNER, CannotStart, Postgres, start_until_answering

CHECKOUT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("agentstate", "runs", "memory", "checkpoints")
KEPT_TEMPLATES = 3


def copy_into(root: Path, *, durable: bool = False) -> Postgres:
    """A stopped, migrated cluster under `root`. Raises: CannotStart with the migration's error."""
    folder = CHECKOUT / ".state" / "templates"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder / "lock"):  # while we copy, nobody removes what we copy from
        shutil.copytree(_template(folder), root / "postgres", copy_function=shutil.copyfile)
    (root / "postgres").chmod(0o700)
    return Postgres(root, durable=durable)


def _template(folder: Path) -> Path:
    ready = folder / digest() / "postgres"
    if not ready.exists():
        unfinished = folder / "new"
        shutil.rmtree(unfinished, ignore_errors=True)
        _build(unfinished)
        shutil.rmtree(ready.parent, ignore_errors=True)
        unfinished.rename(ready.parent)
    os.utime(ready.parent)
    _remove_old(folder)
    return ready


def _build(root: Path) -> None:
    cluster = Postgres(root, durable=False)
    cluster.create()
    server = start_until_answering(
        cluster.command, preexec=cluster.preexec, log=root / "postgres.log", answers=cluster.answers
    )
    try:
        cluster.prepare()
        _migrate(cluster)
        _mark_template(cluster)
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(30)


def _migrate(cluster: Postgres) -> None:
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "agentstate.settings",
        "DATABASE_URL": cluster.url(APP),
        "DATABASE_OWNER_URL": cluster.url(OWNER),
        "AGENTSTATE_NO_VENV": "1",
        "PYTHONPATH": str(CHECKOUT),
    }
    command = [sys.executable, "-m", "django", "migrate", "--verbosity", "0", "--skip-checks"]
    done = subprocess.run(
        command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False,
        preexec_fn=dying_with_parent(signal.SIGKILL),
    )  # fmt: skip
    if done.returncode != 0:
        raise CannotStart(f"migrate failed:\n{done.stderr.strip()}")


def _mark_template(cluster: Postgres) -> None:
    with psycopg.connect(cluster.url("postgres", database="postgres"), autocommit=True) as connection:
        connection.execute("checkpoint")  # so that a copy starts without recovery


def _remove_old(folder: Path) -> None:
    made = sorted((path for path in folder.iterdir() if path.is_dir()), key=lambda path: path.stat().st_mtime)
    for path in made[:-KEPT_TEMPLATES]:
        shutil.rmtree(path, ignore_errors=True)


def digest() -> str:
    total = hashlib.sha256()
    for path in sorted(_sources()):
        total.update(str(path.relative_to(CHECKOUT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return total.hexdigest()[:16]


def _sources() -> set[Path]:
    """Migrations, hand-written SQL, the settings, this package's servers, and what any of them imports of ours."""
    roots = [CHECKOUT / package for package in PACKAGES]
    found = {path for root in roots for path in root.rglob("*.sql")}
    waiting = [path for root in roots for path in root.glob("**/migrations/*.py")]
    waiting += [CHECKOUT / "agentstate/settings.py", CHECKOUT / "agentstate/dev/servers.py", Path(__file__).resolve()]
    waiting.append(CHECKOUT / "agentstate/tenants/apps.py")  # grants after migrate
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports(path)
    return found


def _imports(path: Path) -> Iterator[Path]:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            place = CHECKOUT / Path(*name.split("."))
            if name.split(".")[0] in PACKAGES:
                yield from (file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file())


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
