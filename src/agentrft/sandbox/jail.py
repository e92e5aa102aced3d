"""The order in which a worker shuts itself in; each layer's effect is looked at before it counts.

Namespaces and the private root first (they need the rights that are given up next), then nobody, no capabilities, no
new privileges, Landlock. The system-call filter is made here and switched on by every child for itself: the worker has
to fork. A layer that the machine does not give is noted with the reason; whether the rest is enough is decided by
`layers.Report.refusal`, where the worker was started.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import sys
from collections.abc import Callable

from agentrft.sandbox import landlock, libc, namespaces, seccomp
from agentrft.sandbox.layers import Report

_UNLISTED = ("/etc/passwd", "/etc/hostname", "/proc/version", "/proc/self/status")


def enter(control: socket.socket) -> tuple[seccomp.Filter | None, Report]:
    """Go in, as far as the machine lets us. The calling process must have one thread; it may continue as another.

    Without namespaces the caller goes on; with them, it stays outside as the launcher and the return is in process 1.
    """
    enforced: set[str] = set()
    missing: dict[str, str] = {}
    visible = namespaces.interpreter_paths()
    try:
        enforced |= namespaces.fork_inside(lambda pid: _wait_outside(pid, control))
    except OSError as error:
        missing |= dict.fromkeys(("user", "pid", "net", "mnt", "ipc", "uts"), _said(error))
    if "mnt" in enforced:
        _try(lambda: namespaces.enter_private_root(visible), "root", enforced, missing)
    else:
        missing["root"] = "it needs a mount namespace"
    _give_up_rights(visible, enforced, missing)
    _use_landlock(visible, enforced, missing)
    sys.path[:] = [path for path in sys.path if any(f"{path}/".startswith(f"{above}/") for above in visible)]
    with contextlib.suppress(OSError):
        system_calls = seccomp.Filter(seccomp.grade_filter())
        return system_calls, Report(isolation="jail", enforced=tuple(sorted(enforced)), missing=missing)
    missing["seccomp"] = "there is no table of system calls for this processor"
    return None, Report(isolation="jail", enforced=tuple(sorted(enforced)), missing=missing)


def _try(step: Callable[[], object], layer: str, enforced: set[str], missing: dict[str, str]) -> None:
    try:
        step()
        enforced.add(layer)
    except OSError as error:
        missing[layer] = _said(error)


def _said(error: OSError) -> str:
    return error.strerror or str(error)


def _wait_outside(pid: int, control: socket.socket) -> None:
    """The launcher: ends when process 1 ends, and takes it along when it is killed itself."""
    control.close()
    os.waitpid(pid, 0)
    os._exit(0)


def _give_up_rights(visible: list[str], enforced: set[str], missing: dict[str, str]) -> None:
    if "root" in enforced or _can_read_as_nobody(visible):
        _try(namespaces.become_nobody, "nobody", enforced, missing)
    _try(libc.drop_capabilities, "capabilities", enforced, missing)
    if libc.capabilities() != 0:
        enforced.discard("capabilities")
    if os.geteuid() != namespaces.NOBODY:
        enforced.discard("nobody")
        missing.setdefault("nobody", f"it runs as user {os.geteuid()}")
    _try(lambda: libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1), "no_new_privs", enforced, missing)
    if libc.prctl(libc.PR_GET_NO_NEW_PRIVS) != 1:
        enforced.discard("no_new_privs")
    # After the change of user, which clears both.
    libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
    libc.prctl(libc.PR_SET_DUMPABLE, 0)


def _can_read_as_nobody(paths: list[str]) -> bool:
    """Whether nobody reaches the interpreter where it lies on the host; root's own may be in root's home."""
    if os.geteuid() != 0:
        return False
    try:
        os.seteuid(namespaces.NOBODY)
    except OSError:
        return False
    try:
        return all(os.access(path, os.R_OK, effective_ids=True) for path in paths)
    finally:
        os.seteuid(0)


def _use_landlock(visible: list[str], enforced: set[str], missing: dict[str, str]) -> None:
    canary = namespaces.CANARY if "root" in enforced else next(filter(_is_readable, _UNLISTED), None)
    _try(lambda: landlock.restrict_to(visible), "landlock", enforced, missing)
    if "landlock" in enforced and (canary is None or _is_readable(canary)):
        enforced.discard("landlock")
        missing["landlock"] = "files outside its rules can still be read"


def _is_readable(path: str) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY))
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.ENOENT)
    return True
