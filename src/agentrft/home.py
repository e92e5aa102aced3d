"""Where everything that agentrft keeps lives."""

from __future__ import annotations

import os
from pathlib import Path


def home() -> Path:
    """The state folder: `AGENTRFT_HOME`, by default `~/.agentrft`. Read anew at each call; not created."""
    return Path(os.environ.get("AGENTRFT_HOME") or "~/.agentrft").expanduser()
