"""Landlock: this process and its children may read the named files and folders, and nothing else of any file system.

Where the kernel knows it (ABI 4, 6), TCP, abstract Unix sockets and signals to processes outside end here too; for
older kernels the system-call filter closes those. Landlock does not hide that a file exists (`stat`, `readlink`); the
private root does.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from agentrft.sandbox import libc

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same on every architecture
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3


def abi() -> int:
    """The kernel's Landlock version; raises OSError where it has none, or where it is switched off."""
    return libc.syscall("landlock_create_ruleset", _CREATE_RULESET, None, 0, _VERSION_FLAG)


def restrict_to(readable: Iterable[str]) -> int:
    """Switch Landlock on for good; paths that do not exist are left out. Returns the ABI, raises OSError.

    Needs no_new_privs.
    """
    version = abi()
    attributes = _handled(version)
    ruleset = libc.syscall("landlock_create_ruleset", _CREATE_RULESET, attributes, len(attributes), 0)
    try:
        for path in readable:
            _allow_reading(ruleset, path)
        libc.syscall("landlock_restrict_self", _RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version


def _allow_reading(ruleset: int, path: str) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        rights = _READ_FILE | _READ_DIR if Path(path).is_dir() else _READ_FILE
        rule = struct.pack("=Qi", rights, descriptor)
        libc.syscall("landlock_add_rule", _ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _handled(version: int) -> bytes:
    """Everything that this version can forbid, as the structure of its time: files, TCP, scopes."""
    file_rights = 13 + sum(version >= since for since in (2, 3, 5))  # refer, truncate, device ioctl
    fields = [(1 << file_rights) - 1]
    if version >= 4:
        fields.append(0b11)  # bind and connect
    if version >= 6:
        fields.append(0b11)  # abstract Unix sockets, signals
    return struct.pack(f"{len(fields)}Q", *fields)
