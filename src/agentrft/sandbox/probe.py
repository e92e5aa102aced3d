"""Forbidden things tried at start, in a child confined like a grade's: what the kernel enforces, not what we asked for.

`tests/sandbox` has the long list of probes, judged from outside. These are the ones that cost nothing: each tells by
its own error whether it was stopped, and the whole takes some milliseconds.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import mmap
import os
import platform
import signal
import socket
from collections.abc import Callable
from typing import Any

from agentrft.sandbox import libc
from agentrft.sandbox.layers import Report
from agentrft.sandbox.limits import MAX_OPEN_FILES

_MEMORY_BYTES = 400_000_000
_REFUSED = (errno.EPERM, errno.EACCES)
_DANGEROUS = {
    "x86_64": {
        **{"ptrace": 101, "syslog": 103, "personality": 135, "pivot_root": 155, "chroot": 161, "mount": 165},
        **{"reboot": 169, "init_module": 175, "kexec_load": 246, "add_key": 248, "keyctl": 250, "unshare": 272},
        **{"perf_event_open": 298, "prlimit64": 302, "name_to_handle_at": 303, "open_by_handle_at": 304, "setns": 308},
        **{"process_vm_readv": 310, "memfd_create": 319, "bpf": 321, "userfaultfd": 323, "io_uring_setup": 425},
        **{"pidfd_open": 434, "pidfd_getfd": 438, "process_madvise": 440},
    },
    "aarch64": {
        **{"ptrace": 117, "syslog": 116, "personality": 92, "pivot_root": 41, "chroot": 51, "mount": 40},
        **{"reboot": 142, "init_module": 105, "kexec_load": 104, "add_key": 217, "keyctl": 219, "unshare": 97},
        **{"perf_event_open": 241, "prlimit64": 261, "name_to_handle_at": 264, "open_by_handle_at": 265, "setns": 268},
        **{"process_vm_readv": 270, "memfd_create": 279, "bpf": 280, "userfaultfd": 282, "io_uring_setup": 425},
        **{"pidfd_open": 434, "pidfd_getfd": 438, "process_madvise": 440},
    },
}


def examine(world: Any, report: Report, control: socket.socket) -> Report:
    """The report with what a confined child could and could not do."""
    return _judged(report, tried(world, control, holes))


def tried(world: Any, control: socket.socket, holes: Callable[[], list[str]]) -> list[str]:
    """What `holes` finds in a confined child; a child that gives no answer is a hole."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        control.close()
        _answer(world, theirs.fileno(), holes)
    theirs.close()
    ours.settimeout(10.0)
    try:
        return json.loads(_everything(ours))
    except (OSError, ValueError):
        return ["the probes gave no answer"]
    finally:
        ours.close()
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _answer(world: Any, channel: int, holes: Callable[[], list[str]]) -> None:
    """In the child: confine it, try everything, say what worked, and leave."""
    try:
        try:
            world.settle(channel, channel)
            world.confine({"timeout_s": 10.0, "n_calls": 1, "memory_bytes": _MEMORY_BYTES})
            found, channel = holes(), 3
        except OSError as error:
            channel = channel if _is_open(channel) else 3
            found = [f"{layer}: anything, as no child can be confined ({error})" for layer in ("seccomp", "limits")]
        os.write(channel, json.dumps(found).encode())
    finally:
        os._exit(0)


def _judged(report: Report, found: list[str]) -> Report:
    """Which of the two last layers hold: both are switched on by a grade's own process."""
    enforced, missing = set(report.enforced), dict(report.missing)
    for layer in ("seccomp", "limits"):
        mine = [text.removeprefix(f"{layer}: ") for text in found if text.startswith(f"{layer}: ")]
        if mine:
            missing.setdefault(layer, f"it did not stop {', '.join(mine[:3])}")
        else:
            enforced.add(layer)
    return dataclasses.replace(report, enforced=tuple(sorted(enforced)), missing=missing, holes=tuple(found))


def _everything(ours: socket.socket) -> bytes:
    data = b""
    while len(data) < 64_000 and (chunk := ours.recv(64_000)):
        data += chunk
    return data


def holes() -> list[str]:
    """What this process could do and must not; empty when it is confined."""
    attempts: dict[str, Callable[[], object]] = {
        "seccomp: a socket": socket.socket,
        "seccomp: a socket pair": socket.socketpair,
        "seccomp: a new process": _fork,
        "seccomp: another program": lambda: os.execv("/nowhere", ["nowhere"]),
        "seccomp: a signal": lambda: os.kill(os.getpid(), 0),
        "seccomp: writable code": lambda: mmap.mmap(-1, 4096, prot=7),
        "seccomp: code made of data": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC),
        "seccomp: a descriptor that signals": lambda: _fcntl(8),
        "seccomp: opening for writing": lambda: os.open(os.devnull, os.O_WRONLY),
        "files: /etc/passwd": lambda: os.open("/etc/passwd", os.O_RDONLY),
        "files: a new file": lambda: os.open("/tmp/agentrft", os.O_WRONLY | os.O_CREAT),
        "files: /proc": lambda: os.open("/proc/self/environ", os.O_RDONLY),
        "limits: memory": lambda: bytearray(_MEMORY_BYTES),
        "limits: descriptors": _many_descriptors,
    }
    numbers = _DANGEROUS.get(platform.machine(), {})
    for name, number in numbers.items():
        attempts[f"seccomp: {name}"] = lambda name=name, number=number: libc.syscall(name, number, 0, 0, 0, 0, 0)
    found = [name for name, attempt in attempts.items() if not _is_refused(name, attempt)]
    return found + [f"descriptor {number} is open" for number in range(4, 256) if _is_open(number)]


def _is_refused(name: str, attempt: Callable[[], object]) -> bool:
    expected = (*_REFUSED, errno.ENOENT) if name.startswith("files: ") else _REFUSED
    try:
        attempt()
    except MemoryError:
        return name == "limits: memory"
    except OSError as error:
        return error.errno in expected or (name == "limits: descriptors" and error.errno == errno.EMFILE)
    return False


def _fork() -> None:
    if os.fork() == 0:
        os._exit(0)


def _fcntl(command: int) -> None:
    import fcntl

    fcntl.fcntl(0, command, os.getpid())


def _many_descriptors() -> None:
    opened: list[int] = []
    try:
        for _ in range(MAX_OPEN_FILES + 1):
            opened.append(os.dup(0))
    finally:
        for descriptor in opened:
            os.close(descriptor)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True
