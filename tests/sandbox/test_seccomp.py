"""The filter of a grade's process: exactly the calls of the table, in an interpreter of the kernel's language."""

from __future__ import annotations

import errno
import platform
import re
from pathlib import Path

import pytest

from agentrft.errors import SandboxFault
from agentrft.sandbox import seccomp
from agentrft.sandbox.process import ForkServer, Program

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}


def verdict(program: list[seccomp.Instruction], audit: int, number: int, *arguments: int) -> int:
    """What the kernel would answer. Its data: the number, the architecture, 8 bytes of address, the arguments."""
    words = {0: number, 4: audit}
    for index, value in enumerate(arguments):
        words[16 + 8 * index], words[20 + 8 * index] = value & 0xFFFFFFFF, value >> 32
    loaded, at = 0, 0
    while True:
        code, if_true, if_false, constant = program[at]
        if code == 0x06:
            return constant
        if code == 0x20:
            loaded, at = words.get(constant, 0), at + 1
            continue
        is_true = {0x15: loaded == constant, 0x35: loaded >= constant, 0x45: bool(loaded & constant)}[code]
        at += 1 + (if_true if is_true else if_false)


@pytest.fixture(params=sorted(seccomp.ARCHITECTURES))
def machine(request) -> str:
    return request.param


def test_every_number_not_in_the_table_is_refused(machine):
    program, table = seccomp.grade_filter(machine), seccomp.ARCHITECTURES[machine]
    allowed = {number for number in range(600) if verdict(program, table.audit, number) == seccomp.ALLOW}
    # With zeros for arguments the conditional ones pass, but for ioctl, whose command 0 is none of ours.
    conditional = {number for name, number in table.conditional.items() if name != "ioctl"}
    assert allowed == set(table.allowed.values()) | conditional
    assert verdict(program, table.audit, table.clone3) == seccomp.UNKNOWN
    assert len(program) < 4096  # the kernel takes no longer ones


def test_foreign_calling_conventions_kill(machine):
    program, table = seccomp.grade_filter(machine), seccomp.ARCHITECTURES[machine]
    assert verdict(program, 0x40000003, 1) == seccomp.KILL
    assert verdict(program, table.audit, 0x40000000 | 39) == seccomp.KILL


@pytest.mark.parametrize(
    ("call", "arguments", "is_allowed"),
    [
        ("mmap", (0, 4096, 1 | 2, 0x22), True),  # anonymous, writable: malloc
        ("mmap", (0, 4096, 1 | 4, 0x02), True),  # a library's code
        ("mmap", (0, 4096, 1 | 4, 0x22), False),  # anonymous, executable
        ("mmap", (0, 4096, 1 | 2 | 4, 0x02), False),
        ("mmap", (0, 4096, 1 << 32 | 4, 0x22), False),
        ("mprotect", (0, 4096, 1 | 2), True),
        ("mprotect", (0, 4096, 1 | 4), False),
        ("openat", (0, 0, 0o2000000), True),  # O_CLOEXEC
        ("openat", (0, 0, 1), False),
        ("openat", (0, 0, 2), False),
        ("openat", (0, 0, 0o100), False),
        ("openat", (0, 0, 0o20200000), False),  # O_TMPFILE
        ("ioctl", (0, 0x5401), True),
        ("ioctl", (0, 0x5412), False),  # TIOCSTI
        ("fcntl", (0, 1030), True),
        ("fcntl", (0, 8), False),  # F_SETOWN
        ("fcntl", (0, 10), False),  # F_SETSIG
    ],
)
def test_arguments_decide(machine, call, arguments, is_allowed):
    table = seccomp.ARCHITECTURES[machine]
    found = verdict(seccomp.grade_filter(machine), table.audit, table.conditional[call], *arguments)
    assert found == (seccomp.ALLOW if is_allowed else seccomp.DENY)


def test_numbers_are_those_of_the_kernels_headers(machine):
    if not HEADERS[machine].exists():
        return  # no kernel headers here; where there are, they must agree
    text = HEADERS[machine].read_text()
    numbers = {name: int(number) for name, number in re.findall(r"define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    numbers |= {"newfstatat": numbers.get("newfstatat", numbers.get("fstatat", -1))}
    table = seccomp.ARCHITECTURES[machine]
    every = {**table.allowed, **table.conditional}
    assert {name: numbers.get(name) for name in every} == every


def test_an_unknown_processor_has_no_filter():
    with pytest.raises(OSError, match="no table of system calls for riscv64") as caught:
        seccomp.grade_filter("riscv64")
    assert caught.value.errno == errno.ENOSYS


async def test_the_kernel_agrees_for_every_number():
    # Numbers on the list are left out: with zeros for arguments some of them end the process. So does the kernel's own
    # uretprobe pair (335, 336), which no filter sees: outside of a probe's trampoline they are an illegal instruction.
    table = seccomp.ARCHITECTURES[platform.machine()]
    skipped = {*table.allowed.values(), *table.conditional.values(), 335, 336}
    source = (
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        f"def f():\n    found = []\n    for number in sorted(set(range(600)) - {skipped}):\n"
        "        if libc.syscall(ctypes.c_long(number), 0, 0, 0, 0, 0, 0) >= 0 or ctypes.get_errno() != 1:\n"
        "            found.append((number, ctypes.get_errno()))\n    return found"
    )
    server = ForkServer()
    try:
        outcome = await server.call(Program(source=source, function="f", filename="c.py"), [], timeout_s=10)
        assert outcome.value == [[table.clone3, errno.ENOSYS]]
        if platform.machine() != "x86_64":
            return
        program = Program(
            source="import ctypes\ndef f(): return ctypes.CDLL(None).syscall(0x40000000 | 39)",
            function="f",
            filename="c",
        )
        with pytest.raises(SandboxFault, match="SIGSYS"):
            await server.call(program, [], timeout_s=10)
    finally:
        await server.close()
