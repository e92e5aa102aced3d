"""The system calls that a grade's process may make; everything else is refused by a filter in the kernel.

An allow-list: a call that is not on it fails with EPERM, which Python shows as PermissionError. Calls of a foreign
processor mode (32 bit, x32) kill the process, because their numbers mean other calls. Some calls are allowed for some
arguments only: files are opened for reading, memory becomes executable only as a read-only mapping of a file (no place
in the jail can be written, so no code gets in that was not there), descriptors cannot be made to send signals.

It does not look through pointers: which file is opened is for the root and Landlock to decide. Numbers are from the
kernel's tables (`asm/unistd_64.h`, `asm-generic/unistd.h`). Only x86_64 has been run; on aarch64 the probes at start
decide, as everywhere.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from dataclasses import dataclass

from agentrft.sandbox import libc

ALLOW = 0x7FFF0000
KILL = 0x80000000
DENY = 0x00050000 | errno.EPERM
# Libraries try clone3 first and take only this answer as "use clone", which is then refused plainly.
UNKNOWN = 0x00050000 | errno.ENOSYS

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE = 0, 4
_X32 = 0x40000000
_SECCOMP_MODE_FILTER = 2

_WRITING = 0o3 | 0o100 | 0o1000 | 0o2000 | 0o20000000  # access mode, O_CREAT, O_TRUNC, O_APPEND, O_TMPFILE
_PROT_WRITE, _PROT_EXEC, _MAP_ANONYMOUS = 2, 4, 0x20
_IOCTLS = (0x5401, 0x5450, 0x5451)  # TCGETS (isatty), FIONCLEX, FIOCLEX
_FCNTLS = (0, 1, 2, 3, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC; F_SETOWN would send signals

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false, constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What the filter has to know of a processor."""

    audit: int
    """The kernel's own identifier of the calling convention."""
    allowed: dict[str, int]
    conditional: dict[str, int]
    """Calls whose arguments decide."""
    clone3: int = 435


_X86_64 = Architecture(
    audit=0xC000003E,
    allowed={
        **{"read": 0, "write": 1, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8},
        **{"munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "pread64": 17},
        **{"readv": 19, "writev": 20, "access": 21, "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32},
        **{"dup2": 33, "nanosleep": 35, "getitimer": 36, "alarm": 37, "setitimer": 38, "getpid": 39, "exit": 60},
        **{"uname": 63, "getcwd": 79, "readlink": 89, "gettimeofday": 96, "getrusage": 98, "sysinfo": 99},
        **{"times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110},
        **{"sigaltstack": 131, "gettid": 186, "futex": 202, "sched_getaffinity": 204, "getdents64": 217},
        **{"restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230},
        **{"exit_group": 231, "newfstatat": 262, "readlinkat": 267, "faccessat": 269, "ppoll": 271},
        **{"set_robust_list": 273, "dup3": 292, "getrandom": 318, "statx": 332, "rseq": 334, "faccessat2": 439},
    },
    conditional={"mmap": 9, "mprotect": 10, "ioctl": 16, "fcntl": 72, "openat": 257},
)
_AARCH64 = Architecture(
    audit=0xC00000B7,
    allowed={
        **{"getcwd": 17, "dup": 23, "dup3": 24, "faccessat": 48, "close": 57, "getdents64": 61, "lseek": 62},
        **{"read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "ppoll": 73, "readlinkat": 78},
        **{"newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98, "set_robust_list": 99},
        **{"nanosleep": 101, "getitimer": 102, "setitimer": 103, "clock_gettime": 113, "clock_getres": 114},
        **{"clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128},
        **{"sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "times": 153},
        **{"uname": 160, "getrusage": 165, "gettimeofday": 169, "getpid": 172, "getppid": 173, "getuid": 174},
        **{"geteuid": 175, "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179, "brk": 214},
        **{"munmap": 215, "mremap": 216, "madvise": 233, "getrandom": 278, "statx": 291, "rseq": 293},
        **{"faccessat2": 439},
    },
    conditional={"ioctl": 29, "fcntl": 25, "openat": 56, "mmap": 222, "mprotect": 226},
)
ARCHITECTURES = {"x86_64": _X86_64, "aarch64": _AARCH64}


class Filter:
    """A filter ready to be switched on; made once before forking, because making it is dearer than a grade's start."""

    def __init__(self, instructions: list[Instruction]) -> None:
        self._code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))
        self._program = struct.pack("HxxxxxxP", len(instructions), ctypes.addressof(self._code))

    def switch_on(self) -> None:
        """For this process and all that it may fork, for good. Needs no_new_privs. Raises OSError."""
        libc.prctl(libc.PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self._program)


def grade_filter(machine: str | None = None) -> list[Instruction]:
    """The filter of a grade's process. Raises OSError(ENOSYS) on processors that have no table here."""
    machine = machine or platform.machine()
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"there is no table of system calls for {machine}")
    table = ARCHITECTURES[machine]
    deny, allow = _answer(DENY), _answer(ALLOW)
    # An executable mapping is not writable and not anonymous.
    mapping = [_argument(2), _if_any(_PROT_EXEC, 0, 3), _if_any(_PROT_WRITE, 3, 0), _argument(3)]
    blocks = {
        "mmap": [*mapping, _if_any(_MAP_ANONYMOUS, 1, 0), allow, deny],
        "mprotect": [_argument(2), _if_any(_PROT_EXEC, 1, 0), allow, deny],
        "openat": [_argument(2), _if_any(_WRITING, 1, 0), allow, deny],
        "ioctl": _one_of(_IOCTLS),
        "fcntl": _one_of(_FCNTLS),
    }
    program = [(_LOAD, 0, 0, _ARCHITECTURE), (_EQUAL, 1, 0, table.audit), _answer(KILL), (_LOAD, 0, 0, _NUMBER)]
    program += [(_AT_LEAST, 0, 1, _X32), _answer(KILL)]
    for number in table.allowed.values():
        program += [(_EQUAL, 0, 1, number), allow]
    for name, number in table.conditional.items():
        program += [(_EQUAL, 0, len(blocks[name]), number), *blocks[name]]
    program += [(_EQUAL, 0, 1, table.clone3), _answer(UNKNOWN)]
    return [*program, deny]


def _answer(value: int) -> Instruction:
    return (_RETURN, 0, 0, value)


def _argument(index: int) -> Instruction:
    """Load the low half of an argument, where all the flags looked at here are."""
    return (_LOAD, 0, 0, 16 + 8 * index)


def _if_any(bits: int, then: int, otherwise: int) -> Instruction:
    return (_ANY_BIT, then, otherwise, bits)


def _one_of(values: tuple[int, ...]) -> list[Instruction]:
    """Allow when the second argument is one of them."""
    tests = [(_EQUAL, len(values) - index, 0, value) for index, value in enumerate(values)]
    return [_argument(1), *tests, _answer(DENY), _answer(ALLOW)]
