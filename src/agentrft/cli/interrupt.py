"""Ctrl-C: the first one asks for a stop after the current step, the second one ends the process at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 130
"""Exit code of anything that Ctrl-C ended, politely or not."""

_SHOW_CURSOR = "\x1b[?25h"


class Interrupt:
    """Whether the user has asked for a stop; loops read `requested` between steps."""

    def __init__(self) -> None:
        self.requested = False

    def handle(self, signum: int, frame: FrameType | None) -> None:
        """The signal handler: a flag first, then the way out.

        Leaving at once is safe: checkpoints appear by renaming, and the store commits or does not.
        """
        if self.requested:
            if sys.stderr.isatty():
                os.write(2, _SHOW_CURSOR.encode())
            os.write(2, b"\naborted; what was checkpointed is kept\n")
            os._exit(INTERRUPTED)
        self.requested = True
        os.write(2, b"\nstopping after this step (Ctrl-C again aborts at once)\n")


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Handles Ctrl-C and a polite kill (SIGTERM) inside the block; what was there before comes back after it."""
    interrupt = Interrupt()
    before = {number: signal.signal(number, interrupt.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
