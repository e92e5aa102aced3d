"""A world of its own for the sandbox: user, process, network, mount, IPC and host-name namespaces, and an empty root.

In the new root there is the interpreter (read-only), the shared libraries it needs, time zones and /dev/null; no /proc,
no /sys, no /tmp, nothing of the user's. The caller is a launcher with one thread; `fork_inside` leaves it outside, as
the parent of process 1 of the new world, with which everything in it ends.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from agentrft.sandbox import libc

CANARY = "/canary"
"""A file in the new root that no Landlock rule covers: refusing it shows that Landlock works."""
NOBODY = 65534

_USER = 0x10000000
_OTHERS = {
    "mnt": 0x00020000,
    "pid": 0x20000000,
    "net": 0x40000000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
}
_READ_ONLY, _NO_SETUID, _NO_DEVICES = 1, 2, 4
_REMOUNT, _BIND, _RECURSIVE, _PRIVATE = 0x20, 0x1000, 0x4000, 0x40000
_RELATIME = (0x1000, 1 << 21)  # the one flag whose number differs between statvfs and mount
_MOUNT_POINTS = ("/tmp", "/mnt", "/run")


def interpreter_paths() -> list[str]:
    """What running Python needs to read: its library, installed packages, shared libraries, time zones, /dev/null.

    Not what `.pth` files add to the path: an editable install would show its whole source tree.
    """
    folders = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    libraries = {str(path.parent) for path in _mapped_files() if ".so" in path.name}
    found = [*folders, *sorted(libraries), "/usr/share/zoneinfo", "/etc/ld.so.cache", os.devnull]
    shortest_first = sorted({path for path in found if path.startswith("/") and Path(path).exists()}, key=len)
    kept: list[str] = []
    for path in shortest_first:
        if not any(path.startswith(f"{above}/") for above in kept):
            kept.append(path)
    return kept


def _mapped_files() -> Iterator[Path]:
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith("/"):
            yield Path(fields[5])


def fork_inside(on_launcher: Callable[[int], None]) -> set[str]:
    """New namespaces; returns in process 1 of them, with the names of those that the kernel really gave.

    The launcher runs `on_launcher(pid)` and must not return from it. Raises OSError in the launcher where the kernel
    gives no namespaces; it is then as before.
    """
    names = ("user", *_OTHERS)
    before = {name: _identity(name) for name in names}
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])  # impossible later on
    map_users = _start_mapper()
    # In two calls: where a user namespace is given but useless (Ubuntu), the second one fails and changes nothing.
    try:
        libc.unshare(_USER)
    except OSError:
        map_users(False)
        raise
    map_users(True)
    libc.unshare(sum(_OTHERS.values()))
    pid = os.fork()
    if pid:
        on_launcher(pid)
        raise AssertionError("the launcher returned")
    return {name for name in names if _identity(name) != before[name]}


def _identity(name: str) -> int:
    return Path(f"/proc/self/ns/{name}").stat().st_ino


def _start_mapper() -> Callable[[bool], None]:
    """A process that stays outside to write our user map, because only from there may root map a second user.

    To be called once: with True after leaving, with False to let it go. Raises OSError when the map is refused.
    """
    launcher, (wait_end, go_end) = os.getpid(), os.pipe()
    mapper = os.fork()
    if mapper == 0:
        status = 1
        try:
            os.close(go_end)
            if os.read(wait_end, 1):
                _map_users(launcher)
            status = 0
        finally:
            os._exit(status)
    os.close(wait_end)

    def map_users(is_wanted: bool) -> None:
        if is_wanted:
            os.write(go_end, b"g")
        os.close(go_end)
        if os.waitpid(mapper, 0)[1] != 0:
            raise OSError(errno.EPERM, "the user map was refused")

    return map_users


def _map_users(pid: int) -> None:
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        with contextlib.suppress(OSError):  # refused where this root is itself one of a smaller world
            _write_maps(pid, f"0 0 1\n{NOBODY} {NOBODY} 1", f"0 0 1\n{NOBODY} {NOBODY} 1")
            return
    with contextlib.suppress(OSError):
        _write(f"/proc/{pid}/setgroups", "deny")
    _write_maps(pid, f"{NOBODY} {uid} 1", f"{NOBODY} {gid} 1")


def _write_maps(pid: int, users: str, groups: str) -> None:
    _write(f"/proc/{pid}/uid_map", users)
    _write(f"/proc/{pid}/gid_map", groups)


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def enter_private_root(visible: list[str]) -> None:
    """Leave the host's files behind for a read-only root that shows `visible` only. Raises OSError."""
    new_root = next((path for path in map(Path, _MOUNT_POINTS) if path.is_dir()), None)
    if new_root is None:
        raise OSError(errno.ENOENT, "there is no folder to mount the root on")
    # Opened first: the new root may lie on top of what it is to show.
    sources = [(path, os.open(path, os.O_PATH)) for path in visible]
    links = [(link, link.readlink()) for link in map(Path, ("/lib", "/lib64", "/usr/lib64")) if link.is_symlink()]
    try:
        libc.mount("none", "/", None, _RECURSIVE | _PRIVATE)
        libc.mount("tmpfs", str(new_root), "tmpfs", _NO_SETUID | _NO_DEVICES, "size=1m,mode=755")
        for path, descriptor in sources:
            _show(descriptor, _below(new_root, path))
    finally:
        for _, descriptor in sources:
            os.close(descriptor)  # one left open would lead back to the host's files
    for link, target in links:
        inside = _below(new_root, str(link))
        if not inside.exists():
            inside.parent.mkdir(parents=True, exist_ok=True)
            inside.symlink_to(target)
    _below(new_root, CANARY).write_text("canary")
    os.chdir(new_root)
    libc.pivot_root_here()
    libc.umount_here()
    os.chdir("/")
    libc.mount(None, "/", None, _REMOUNT | _READ_ONLY | _NO_SETUID | _NO_DEVICES)


def _below(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _show(source: int, target: Path) -> None:
    """Bind one file or folder at its old path, read-only."""
    through = Path(f"/proc/self/fd/{source}")
    if through.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    libc.mount(str(through), str(target), None, _BIND)
    flags = _kept_flags(target) | _BIND | _REMOUNT | _READ_ONLY | _NO_SETUID
    libc.mount(None, str(target), None, flags if through.is_char_device() else flags | _NO_DEVICES)


def _kept_flags(target: Path) -> int:
    """Flags that the source already has: inside a user namespace the kernel refuses to clear them."""
    flags = os.statvfs(target).f_flag
    in_statvfs, in_mount = _RELATIME
    return flags & ~in_statvfs & 0xFFF | (in_mount if flags & in_statvfs else 0)


def become_nobody() -> None:
    """Give up root, where the user map has a nobody to become; without one the user stays who he was."""
    if os.geteuid() == 0:
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
