"""The tool of the tool-latency benchmark as a job binds it: one that sleeps, and one that lets others run meanwhile.

How long it waits is a field of the item, so that one binding serves every latency.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

from harness.lookup import found


class Sleeping:
    """Blocks whoever runs it."""

    def __init__(self, item: dict[str, Any]) -> None:
        self._latency_s = item["latency_s"]

    def look_up(self, name: str) -> str:
        """Say where something is kept."""
        time.sleep(self._latency_s)
        return found(name)


class Waiting:
    """Waits on the event loop."""

    def __init__(self, item: dict[str, Any]) -> None:
        self._latency_s = item["latency_s"]

    async def look_up(self, name: str) -> str:
        """Say where something is kept."""
        await asyncio.sleep(self._latency_s)
        return found(name)
