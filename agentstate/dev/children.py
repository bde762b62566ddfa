"""What a child process does between fork and exec, so that none outlives us: no orphans after `kill -9` of the parent.

Linux only; elsewhere children are found again by their lock files at the next start.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache

PR_SET_PDEATHSIG = 1
CLONE_NEWUSER = 0x10000000
NOBODY = 65534

_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def dying_with_parent(signal_number: int, *, as_nobody: bool = False) -> Callable[[], None]:
    """A preexec function: the kernel sends `signal_number` to the child when the thread that forked it is gone.

    as_nobody: also be somebody else than root (Postgres refuses uid 0). Give it to processes started from the main
    thread only: the signal follows the thread, not the process.
    """
    parent = os.getpid()
    leave_root = (_enter_namespace if can_unshare() else _drop_to_nobody) if as_nobody else None

    def prepare() -> None:
        if leave_root:
            leave_root()
        if _libc:
            _libc.prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0)  # after the change of identity, which clears it
            if os.getppid() != parent:  # it died before we asked
                os._exit(1)

    return prepare


@cache
def can_unshare() -> bool:
    """Whether this machine lets root make a user namespace; containers with a seccomp profile often do not."""
    if not _libc:
        return False
    child = os.fork()
    if child == 0:
        try:
            _enter_namespace()
        except OSError:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def _enter_namespace() -> None:
    """Root outside is uid 65534 inside: Postgres is content, and every file stays root's, in a 0700 folder too."""
    assert _libc
    if _libc.unshare(CLONE_NEWUSER) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    for name, line in (("setgroups", "deny"), ("uid_map", f"{NOBODY} 0 1"), ("gid_map", f"{NOBODY} 0 1")):
        descriptor = os.open(f"/proc/self/{name}", os.O_WRONLY)
        os.write(descriptor, line.encode())
        os.close(descriptor)


def _drop_to_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    os.chdir("/")
