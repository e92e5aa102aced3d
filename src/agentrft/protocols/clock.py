"""Time, so that tests can make it pass."""

from __future__ import annotations

from typing import Protocol


class Clock(Protocol):
    """Time, injected so that tests own it."""

    def now(self) -> float:
        """Seconds since the epoch."""
        ...

    def monotonic(self) -> float: ...
