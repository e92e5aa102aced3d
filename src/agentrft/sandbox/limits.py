"""What one grade may use up, as the kernel counts it; wall-clock time and sizes of answers are the worker's part."""

from __future__ import annotations

import resource
import sys

MAX_OPEN_FILES = 64
MAX_FILE_BYTES = 1_000_000


def limit_this_process(*, cpu_s: int, memory_bytes: int) -> None:
    """Processor time, address space, open files, file size; no core dumps, locked memory, queues or processes."""
    limits = {
        "CPU": cpu_s,
        "AS": memory_bytes,
        "NOFILE": MAX_OPEN_FILES,
        "FSIZE": MAX_FILE_BYTES,
        "CORE": 0,
        "MEMLOCK": 0,
        "MSGQUEUE": 0,
    }
    for name, value in limits.items():
        which = getattr(resource, f"RLIMIT_{name}", None)
        if which is None:
            continue
        highest = resource.getrlimit(which)[1]
        lowered = value if highest == resource.RLIM_INFINITY else min(value, highest)
        try:
            resource.setrlimit(which, (lowered, lowered))
        except (ValueError, OSError):
            if sys.platform == "linux":  # macOS does not take every limit
                raise
