"""The real clock. Tests use `agentrft.testing.FakeClock`."""

from __future__ import annotations

import time


class SystemClock:
    """Wall time for records, monotonic time for durations; never mix the two."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that no clock change moves."""
        return time.monotonic()


SYSTEM_CLOCK = SystemClock()
