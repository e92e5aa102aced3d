"""The real clock, and what other machines say about time. Tests use `agentrft.testing.FakeClock`."""

from __future__ import annotations

import re
import time
from email.utils import parsedate_to_datetime


class SystemClock:
    """Wall time for records, monotonic time for durations; never mix the two."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds from an arbitrary start that no clock change moves."""
        return time.monotonic()


SYSTEM_CLOCK = SystemClock()


def retry_after_s(header: str | None, now: float) -> float | None:
    """Seconds that an HTTP `Retry-After` header asks to wait, 0 at least; None for none, or one that cannot be read.

    `now` is in seconds since the epoch, for headers that name a date. Source: RFC 9110 §10.2.3.
    """
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,9}(\.[0-9]{1,9})?", text):  # a fraction is no standard, but sent
        return float(text)
    try:
        return max(parsedate_to_datetime(text).timestamp() - now, 0.0)
    except (ValueError, OverflowError):
        return None
