"""Processes by a name that no other process ever has: owners of leases are called so."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from pathlib import Path

import psutil

_PROC = Path("/proc")


def this_owner() -> str:
    """`host:pid:start` of this process."""
    return owner_of(os.getpid())


def owner_of(pid: int) -> str:
    """`host:pid:start` of a process of this machine; `start` tells it from a later one with the same pid."""
    return f"{socket.gethostname()}:{pid}:{_start_of(pid) or 'gone'}"


def pid_of(owner: str) -> int | None:
    """The pid, while that very process lives on this machine; None otherwise."""
    host, pid, start = _parts(owner)
    if host != socket.gethostname() or not pid.isdigit():
        return None
    return int(pid) if _start_of(int(pid)) == start else None


def is_gone(owner: str) -> bool:
    """True when the owner is a process of this machine that lives no more."""
    host, pid, _ = _parts(owner)
    return host == socket.gethostname() and pid.isdigit() and pid_of(owner) is None


def be_nice_as_a_session() -> None:
    """Let the niceness of this process, the first of its session, hold for the session.

    Linux shares the cores between sessions before it looks at niceness, which then means something within each only
    (`sched_autogroup_enabled`). Does nothing where there are no such groups.
    """
    niceness = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(OSError):
        (_PROC / "self" / "autogroup").write_text(f"{niceness}\n")


def _parts(owner: str) -> tuple[str, str, str]:
    host, _, rest = owner.partition(":")
    pid, _, start = rest.partition(":")
    return host, pid, start


def _start_of(pid: int) -> str | None:
    """When the process started, in whatever unit never moves; None for one that has ended, reaped or not."""
    try:
        # Ticks since the boot, which a change of the clock leaves alone. The name in brackets may hold anything.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if fields[0] in "ZX" else f"{fields[19]}-{_boot()}"
    except (OSError, IndexError):
        if _PROC.joinpath("self").exists():
            return None
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def _boot() -> str:
    """What tells this boot from the last one."""
    return (_PROC / "sys/kernel/random/boot_id").read_text()[:8]
