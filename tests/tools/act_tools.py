"""A Python tool that fails as it is told; `test_fault_table.py` binds it."""

from __future__ import annotations

import os
import signal
import time


def act(how: str, n: int) -> object:
    """Do it well, or badly."""
    match how:
        case "refuses":
            raise ValueError("not to be had")
        case "raises":
            raise KeyError("lost")
        case "blocks":
            time.sleep(600)
        case "odd":
            return object()
        case "dies":
            os.kill(os.getpid(), signal.SIGKILL)
    return f"well {n}"
