"""One worker in a job's folder at a time: a lock that the kernel gives back when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agentrft.errors import StoreFault
from agentrft.runtime.processes import pid_of, this_owner

PATIENCE_S = 10.0
"""What a worker that has lost its job gets to leave by itself."""
_KILLED_S = 20.0
_POLL_S = 0.05


@contextmanager
def alone_in(folder: Path, token: int, *, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Nobody else works in the job's folder inside.

    A holder with an older token has lost the job: it gets `patience_s` to leave, and is killed when it does not (it
    hangs, or it was stopped). Raises StoreFault where the holder has a newer token, or cannot be removed.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreFault(f"could not open {folder / 'lock'}: {error}; free disk space, or mend access") from error
    try:
        _take(descriptor, folder, token, patience_s)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{token} {this_owner()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path, token: int, patience_s: float) -> None:
    started = time.monotonic()
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waited_s = time.monotonic() - started
        held_by, owner = _holder(descriptor)
        if held_by >= token or waited_s > patience_s + _KILLED_S:
            raise StoreFault(f"{folder} is in use by {owner or 'another process'} (token {held_by}); end that process")
        if waited_s > patience_s and (pid := pid_of(owner)):
            os.kill(pid, signal.SIGKILL)
        time.sleep(_POLL_S)


def _holder(descriptor: int) -> tuple[int, str]:
    """Token and owner of who has the lock; (-1, "") while it has not said so yet."""
    token, _, owner = os.pread(descriptor, 1000, 0).decode(errors="replace").partition(" ")
    return (int(token), owner) if token.isdigit() else (-1, "")
