"""`up`: servers, migrations, seed, web, worker, beat and sandbox, in the order in which they need each other."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import redis

from agentstate.dev import external, plan, prepared
from agentstate.dev.children import dying_with_parent
from agentstate.dev.demo.paste import PASTE
from agentstate.dev.plan import CHECKOUT, Plan
from agentstate.dev.processes import Keeper, Relay, Service, stop_all
from agentstate.dev.servers import CannotStart
from agentstate.presence import READY_KEY

POOL_CHILDREN = 4


def run(state: Path, port: int) -> int:
    """Start everything, stay until a signal, stop everything. Returns the exit code; 1 with one sentence on stderr."""
    started_at = time.monotonic()
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (state / "up.lock").open("a+") as lock:
        if not _taken(lock.fileno()):
            print(f"Already running: {_written(state)['url']} (stop it with: python3 manage.py stop)")
            return 0
        try:
            return asyncio.run(_Session(plan.make(state, port), started_at).run())
        except CannotStart as refusal:
            print(f"agentstate did not start. {refusal}", file=sys.stderr)
            return 1
        finally:
            (state / "running").unlink(missing_ok=True)


def stop(state: Path, *, timeout_s: float = 60) -> int:
    """Ask the `up` of this folder to stop, and wait for it. Idempotent."""
    with contextlib.ExitStack() as stack:
        if not (state / "up.lock").exists():
            print("Nothing is running here.")
            return 0
        lock = stack.enter_context((state / "up.lock").open("a+"))
        if _taken(lock.fileno()):
            print("Nothing is running here.")
            return 0
        os.kill(int(_written(state)["pid"]), signal.SIGTERM)
        end = time.monotonic() + timeout_s
        while not _taken(lock.fileno()):
            if time.monotonic() > end:
                print("It has not stopped yet; see its terminal.", file=sys.stderr)
                return 1
            time.sleep(0.05)
    print("Stopped.")
    return 0


class _Session:
    """One `up` from start to stop."""

    def __init__(self, made: Plan, started_at: float) -> None:
        self.plan = made
        self.started_at = started_at
        self.relay = Relay()
        self.servers: list[Keeper] = []
        self.application: list[Keeper] = []
        self.asked_to_stop = asyncio.Event()
        self.hard = asyncio.Event()

    async def run(self) -> int:
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._signalled)
        (self.plan.state / "log").mkdir(exist_ok=True)
        _announce(self.plan)
        starting = asyncio.create_task(self._start())
        waiting = asyncio.create_task(self.asked_to_stop.wait())
        try:
            await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                starting.result()  # raises what went wrong
                await waiting
        finally:
            starting.cancel()
            waiting.cancel()
            with contextlib.suppress(asyncio.CancelledError, CannotStart):
                await starting
            await self._stop()
        return 0

    def _signalled(self) -> None:
        if self.asked_to_stop.is_set():
            self.hard.set()
        elif self.application:
            self.relay.say("up", "stopping; what runs is finished first. Again: stop at once.")
        self.asked_to_stop.set()

    async def _start(self) -> None:
        await asyncio.to_thread(external.check, self.plan)
        sandbox = self._keep(self.application, sandbox_service(self.plan))
        await asyncio.gather(sandbox, self._start_servers())
        write_environment(self.plan)
        demo = await asyncio.to_thread(prepared.read, self.plan) or await self._prepare()
        await asyncio.gather(*(self._keep(self.application, service) for service in application_services(self.plan)))
        print(greeting(self.plan, demo, time.monotonic() - self.started_at), flush=True)

    async def _start_servers(self) -> None:
        if self.plan.postgres:
            await asyncio.to_thread(self.plan.postgres.create)
        services = server_services(self.plan)
        await asyncio.gather(*(self._keep(self.servers, service) for service in services))
        if self.plan.postgres:
            await asyncio.to_thread(self.plan.postgres.prepare)
            await asyncio.to_thread(self.plan.postgres.bound_waits)

    def _keep(self, among: list[Keeper], service: Service) -> Awaitable[None]:
        keeper = Keeper(service, self.relay)
        among.append(keeper)
        return keeper.start()

    async def _prepare(self) -> dict[str, Any]:
        """Migrate and seed, in a child that has the owner's URL. Returns what the seed made."""
        environment = {
            **os.environ,
            **self.plan.environment,
            "DATABASE_OWNER_URL": self.plan.owner_url,
            "AGENTSTATE_DEMO_PASSWORD": self.plan.secrets["AGENTSTATE_DEMO_PASSWORD"],
        }
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentstate.dev.preparing"),
            env=environment,
            cwd=CHECKOUT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
            preexec_fn=dying_with_parent(signal.SIGKILL),
        )
        try:
            output, errors = await child.communicate()
        except asyncio.CancelledError:
            child.kill()
            await child.wait()
            raise
        if child.returncode != 0:
            raise CannotStart(f"The database could not be prepared:\n{errors.decode(errors='replace').strip()}")
        made: dict[str, Any] = json.loads(output.splitlines()[-1])
        prepared.write(self.plan, made)
        return made

    async def _stop(self) -> None:
        """Application services together, then the servers, properly even when asked to hurry."""
        await stop_all(self.application, self.hard)
        await stop_all(self.servers, asyncio.Event())
        (self.plan.state / "environment").unlink(missing_ok=True)


def server_services(made: Plan) -> Iterator[Service]:
    log = made.state / "log"
    if made.valkey:
        valkey = made.valkey
        yield Service(
            "valkey", valkey.command, _in_thread(valkey.answers), preexec=valkey.preexec, log=log / "valkey.log"
        )
    if made.postgres:
        postgres = made.postgres
        yield Service(
            "postgres",
            postgres.command,
            _in_thread(postgres.answers),
            environment=postgres.environment,
            preexec=postgres.preexec,
            before_start=postgres.clear_stale_locks,
            stop_signal=signal.SIGINT,  # fast and clean; SIGTERM would wait for connections
            log=log / "postgres.log",
        )


def sandbox_service(made: Plan) -> Service:
    url = f"{made.environment['SANDBOX_URL']}/healthz"
    command = [sys.executable, "-m", "agentstate.dev.sandbox"]
    return Service("sandbox", command, _in_thread(lambda: _page_answers(url)), made.environment, stop_s_max=3)


def application_services(made: Plan) -> Iterator[Service]:
    python, state = [sys.executable, "-m"], made.state
    web = [*python, "uvicorn", "agentstate.asgi:application", "--host", "127.0.0.1", "--port", str(made.port)]
    web += ["--lifespan", "off", "--no-access-log", "--log-level", "warning", "--timeout-graceful-shutdown", "2"]
    yield Service(
        "web",
        web,
        _in_thread(lambda: _page_answers(f"http://127.0.0.1:{made.port}/readyz")),
        {**made.environment, "DATABASE_POOL": "1", "PYTHONWARNINGS": "ignore:No directory at"},
        stop_s_max=5,
    )
    celery = [*python, "celery", "-q", "-A"]
    quiet = {
        **made.environment,
        "PYTHONWARNINGS": "ignore:You're running the worker with superuser",
        "CELERY_SKIP_CHECKS": "1",  # they would load every page and the API into the worker: a second, and 30 MB
    }
    queues = ["-Q", "drive,compact,summarise,sweep,deliver", "--pool", "prefork", "-c", str(POOL_CHILDREN)]
    worker = [*celery, "agentstate.celery", "worker", *queues, "--without-gossip", "--without-mingle", "-l", "warning"]
    yield Service("worker", worker, _celery_ready(made, "worker"), quiet)
    beat = [
        *celery,
        "agentstate.beat",
        "beat",
        f"--pidfile={state / 'beat.pid'}",
        "-s",
        str(state / "beat-schedule"),
        "-l",
        "warning",
    ]
    yield Service(
        "beat",
        beat,
        _celery_ready(made, "beat"),
        quiet,
        before_start=lambda: (state / "beat.pid").unlink(missing_ok=True),  # ours alone, under up.lock
        stop_s_max=5,
    )


def write_environment(made: Plan) -> None:
    """So that other commands of this checkout (`manage.py verify_audit`) find the servers while `up` runs."""
    values = {**made.environment, "DATABASE_OWNER_URL": made.owner_url}
    plan.write_private(made.state / "environment", values)


def greeting(made: Plan, demo: dict[str, Any], seconds: float) -> str:
    return f"""
agentstate is up after {seconds:.1f} s:  {made.url}

Sign in as operator@example.test, approver@example.test, admin@example.test or viewer@example.test
with the password {made.secrets["AGENTSTATE_DEMO_PASSWORD"]}
The shop that the demo agents call, and its mail: {made.environment["SANDBOX_URL"]}

An agent of your own, in another terminal:

export AGENTSTATE_URL={made.url} AGENTSTATE_KEY={demo["api_key"]}
cat > hello.py <<'END'
{PASTE.strip()}
END
PYTHONPATH={CHECKOUT} {sys.executable} hello.py

Ctrl-C stops everything.
"""


def _announce(made: Plan) -> None:
    (made.state / "running").write_text(json.dumps({"url": made.url, "pid": os.getpid()}))


def _written(state: Path) -> dict[str, Any]:
    try:
        written: dict[str, Any] = json.loads((state / "running").read_text())
    except (OSError, ValueError):
        raise SystemExit("Another `up` is just starting or stopping here; try again in a moment.") from None
    return written


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _in_thread(probe: Callable[[], bool]) -> Callable[[int], Awaitable[bool]]:
    return lambda _pid: asyncio.to_thread(probe)


def _celery_ready(made: Plan, name: str) -> Callable[[int], Awaitable[bool]]:
    client = redis.Redis.from_url(made.environment["REDIS_URL"])
    key = READY_KEY.format(name=name)

    def has_said_so(pid: int) -> bool:
        return client.get(key) == str(pid).encode()

    return lambda pid: asyncio.to_thread(has_said_so, pid)


def _page_answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 (our own loopback address)
            return bool(answer.status == 200)
    except OSError:
        return False
