"""Counts and durations of requests, as `/metrics` shows them. Of this process, since it started."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency histogram."""


class RequestMetrics:
    """What the server was asked. Used from the event loop only."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str, int]] = Counter()
        """(method, route, status) → how many; status 0: the client left before the answer began."""
        self.within: Counter[tuple[str, float]] = Counter()
        """(route, bucket) → answers that took no longer."""
        self.seconds: defaultdict[str, float] = defaultdict(float)
        """Route → seconds in all."""
        self.answers: Counter[str] = Counter()
        """Route → how many."""
        self.n_in_flight = 0

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Counts a request while it lasts."""
        self.n_in_flight += 1
        try:
            yield
        finally:
            self.n_in_flight -= 1

    def count(self, route: str, method: str, status: int, seconds: float) -> None:
        """Note one request that has ended."""
        known = method if method in ("GET", "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS") else "other"
        self.requests[known, route, status] += 1
        self.seconds[route] += seconds
        self.answers[route] += 1
        for bucket in BUCKETS_S:
            if seconds <= bucket:
                self.within[route, bucket] += 1
