"""Machines that give less: an ordinary user, a container's profile, a kernel without Landlock; imitated by a filter.

A mode is a user (`root`, `nobody`) and what is denied, as in `nobody+container`. `enter` changes the calling process
for good. What a filter imitates is only what it denies: a real container has more to it.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
from pathlib import Path

from agentrft.sandbox import libc, seccomp

NOBODY = 65534
_NEW_NAMESPACES = 0x7E020000
_DENY, _ABSENT = 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
_NUMBERS = {
    "x86_64": {"clone": 56, "unshare": 272, "mount": 165, "umount": 166, "pivot": 155, "setns": 308, "prctl": 157},
    "aarch64": {"clone": 220, "unshare": 97, "mount": 40, "umount": 39, "pivot": 41, "setns": 268, "prctl": 167},
}
MODES = ("root", "nobody", "root+container", "nobody+container", "root+gvisor", "nobody+gvisor")
REFUSED = ("nobody+container+gvisor", "nobody+nofilter")


def enter(mode: str) -> None:
    user, *denied = mode.split("+")
    if user == "nobody":
        _make_python_reachable()
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    rules = [rule for name in denied for rule in _rules(name)]
    if rules:
        libc.prctl(libc.PR_SET_NO_NEW_PRIVS, 1)
        load = (0x20, 0, 0, 0)
        seccomp.Filter([load, *rules, (0x06, 0, 0, seccomp.ALLOW)]).switch_on()


def _rules(name: str) -> list[seccomp.Instruction]:
    numbers = _NUMBERS[platform.machine()]
    if name == "container":  # Docker's default profile without CAP_SYS_ADMIN
        plain = [numbers[call] for call in ("unshare", "mount", "umount", "pivot", "setns")]
        clone = [(0x15, 0, 4, numbers["clone"]), (0x20, 0, 0, 16), (0x45, 0, 1, _NEW_NAMESPACES)]
        clone += [(0x06, 0, 0, _DENY), (0x06, 0, 0, seccomp.ALLOW)]
        return [*(rule for n in plain for rule in _answer(n, _DENY)), *_answer(435, _ABSENT), *clone]
    if name == "gvisor":  # no Landlock
        return [rule for n in (444, 445, 446) for rule in _answer(n, _ABSENT)]
    prctl = [(0x15, 0, 4, numbers["prctl"]), (0x20, 0, 0, 16), (0x15, 0, 1, libc.PR_SET_SECCOMP)]
    return [*prctl, (0x06, 0, 0, _DENY), (0x06, 0, 0, seccomp.ALLOW)]


def _answer(number: int, value: int) -> list[seccomp.Instruction]:
    return [(0x15, 0, 1, number), (0x06, 0, 0, value)]


def _make_python_reachable() -> None:
    """In a mount namespace of our own: root's Python may lie in root's home, where nobody may not go."""
    homes = [Path(sys.base_prefix), Path(sys.prefix), Path(libc.__file__).parents[3]]
    closed = {above for path in homes for above in path.parents if not above.stat().st_mode & 0o001}
    if not closed:
        return
    libc.unshare(0x00020000)
    libc.mount("none", "/", None, 0x44000)
    kept = [(path, os.open(path, os.O_PATH)) for path in homes if closed & set(path.parents)]
    libc.mount("tmpfs", str(min(closed)), "tmpfs", 0, "mode=755")  # the topmost one
    for path, descriptor in kept:
        path.mkdir(parents=True, exist_ok=True)
        libc.mount(f"/proc/self/fd/{descriptor}", str(path), None, 0x1000)
        os.close(descriptor)
