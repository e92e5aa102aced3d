"""A worker process answers one JSON request a line. This is the worker's side; `worker.py` is the other.

Standard library only, because it also runs inside the peers' environments.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

Handler = Callable[[dict[str, Any]], dict[str, Any]]


class Pipe:
    """The worker's end of the line. Libraries that print can no longer reach it: their stdout becomes stderr."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
        os.dup2(2, 1)

    def requests(self) -> Iterator[dict[str, Any]]:
        """Requests in order, until the parent closes the line."""
        while line := sys.stdin.readline():
            yield json.loads(line)

    def reply(self, answer: dict[str, Any]) -> None:
        """Send one answer; the peak memory of this process and its processor time so far go with it."""
        used = {"peak_rss_bytes": peak_rss_bytes(), "cpu_s": time.process_time()}
        self._out.write(json.dumps({**answer, **used}) + "\n")


def peak_rss_bytes() -> int:
    """Largest resident size this process has had, in bytes (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def serve(handlers: dict[str, Handler], pipe: Pipe | None = None) -> None:
    """Answer requests `{"do": NAME, …}` by `handlers[NAME]` until the parent closes the line.

    A handler that raises answers `{"error": traceback}`: a configuration that does not work is a finding here.
    """
    pipe = pipe or Pipe()
    for request in pipe.requests():
        try:
            answer = handlers[request["do"]](request)
        except Exception:
            answer = {"error": traceback.format_exc()}
        pipe.reply(answer)
