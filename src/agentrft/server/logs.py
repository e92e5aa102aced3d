"""The server's log on stderr: one line an event, without secrets and without anything that moves a cursor."""

from __future__ import annotations

import logging

from agentrft.net.secrets import without_keys
from agentrft.report.text import printable


class CleanFormatter(logging.Formatter):
    """Time, level, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return without_keys(printable(super().format(record)))


def log_to_stderr() -> None:
    """Requests and warnings of ours, warnings of everyone else."""
    handler = logging.StreamHandler()
    handler.setFormatter(CleanFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("agentrft").setLevel(logging.INFO)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every form that is refused
