"""Linux system calls that Python 3.11 has no function for; each raises OSError with its name when it is refused."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Callable

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39

_CAPABILITY_VERSION_3 = 0x20080522
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_libc = ctypes.CDLL(None, use_errno=True)


def syscall(name: str, number: int, *arguments: int | bytes | None) -> int:
    """The call's result; integers are passed as C longs, bytes as pointers."""
    return _checked(name, _libc.syscall, ctypes.c_long(number), *map(_argument, arguments))


def prctl(option: int, value: int = 0, pointer: bytes | None = None) -> int:
    arguments = (ctypes.c_ulong(value), _argument(pointer), ctypes.c_ulong(0), ctypes.c_ulong(0))
    return _checked("prctl", _libc.prctl, ctypes.c_int(option), *arguments)


def unshare(flags: int) -> None:
    _checked("unshare", _libc.unshare, ctypes.c_int(flags))


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind, data)]
    _checked(f"mount {target}", _libc.mount, *texts[:3], ctypes.c_ulong(flags), texts[3])


def pivot_root_here() -> None:
    """The working directory becomes the root; the old root lies under it, to be detached by `umount_here`."""
    syscall("pivot_root", _PIVOT_ROOT[platform.machine()], b".", b".")


def umount_here() -> None:
    detach = 2
    _checked("umount", _libc.umount2, b".", ctypes.c_int(detach))


def drop_capabilities() -> None:
    """No capability is left to this process, nor can one be taken up again."""
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    _checked("capset", _libc.capset, header, bytes(24))


def capabilities() -> int:
    """Bits of the effective and permitted capabilities together."""
    header, data = struct.pack("Ii", _CAPABILITY_VERSION_3, 0), ctypes.create_string_buffer(24)
    _checked("capget", _libc.capget, header, data)
    effective, permitted, _, effective_high, permitted_high, _ = struct.unpack("6I", data.raw)
    return effective | permitted | (effective_high | permitted_high) << 32


def _argument(value: int | bytes | None) -> object:
    return ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value)


def _checked(name: str, function: Callable[..., int], *arguments: object) -> int:
    result = function(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result
