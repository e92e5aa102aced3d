"""Leave a service alone while it is down.

A breaker opens when at least half of 20 or more calls of the last 30 s failed. After `rest_s` one call goes through as
a probe: what becomes of it closes the breaker, or opens it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

from agentrft.protocols import Clock


class BreakerState(StrEnum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    """They go through."""
    OPEN = "open"
    """They are refused."""
    HALF_OPEN = "half_open"
    """One goes through as a probe, the others are refused."""


class BreakerOpen(Exception):
    """The service failed too often a moment ago; nothing was sent."""

    def __init__(self, wait_s: float) -> None:
        super().__init__(f"it failed too often and is left alone for {wait_s:.1f} s")
        self.wait_s = wait_s
        """After which a call may go through."""


class Breaker:
    """Counts how calls to one service end."""

    def __init__(
        self,
        clock: Clock,
        *,
        window_s: float = 30.0,
        min_calls: int = 20,
        open_frac: float = 0.5,
        rest_s: float = 10.0,
    ) -> None:
        self._clock = clock
        self._window_s = window_s
        self._min_calls = min_calls
        self._open_frac = open_frac
        self._rest_s = rest_s
        self._ends: deque[tuple[float, bool]] = deque()
        self._opened_s: float | None = None
        self._down_since_s: float | None = None
        self._is_probing = False

    @property
    def state(self) -> BreakerState:
        """As of now."""
        if self._opened_s is None:
            return BreakerState.CLOSED
        return BreakerState.OPEN if self._rest_left_s() > 0 else BreakerState.HALF_OPEN

    @property
    def open_s(self) -> float:
        """How long the service has been down without a break, 0 while calls go through."""
        return 0.0 if self._down_since_s is None else self._clock.monotonic() - self._down_since_s

    def counts(self) -> tuple[int, int]:
        """(calls, failed ones) of the window."""
        self._forget()
        return len(self._ends), sum(not is_good for _, is_good in self._ends)

    @contextmanager
    def call(self, *failures: type[Exception]) -> Iterator[None]:
        """Around one call: raises BreakerOpen, or counts how the call ends.

        One of `failures` counts as failed, every other exception of the call as answered. A cancelled call counts as
        neither.
        """
        is_probe = self._enter()
        is_good: bool | None = None
        try:
            yield
            is_good = True
        except failures:
            is_good = False
            raise
        except Exception:
            is_good = True
            raise
        finally:
            self._leave(is_good, is_probe)

    def _enter(self) -> bool:
        if self._opened_s is None:
            return False
        if (left_s := self._rest_left_s()) > 0 or self._is_probing:
            raise BreakerOpen(max(left_s, 1.0))
        self._is_probing = True
        return True

    def _leave(self, is_good: bool | None, is_probe: bool) -> None:
        if is_probe:
            self._is_probing = False
            if is_good:
                self._opened_s = self._down_since_s = None
                self._ends.clear()
            elif is_good is False:
                self._opened_s = self._clock.monotonic()
        elif is_good is not None and self._opened_s is None:  # what was sent before it opened says nothing new
            self._ends.append((self._clock.monotonic(), is_good))
            calls, failed = self.counts()
            if calls >= self._min_calls and failed >= self._open_frac * calls:
                self._opened_s = self._down_since_s = self._clock.monotonic()

    def _rest_left_s(self) -> float:
        assert self._opened_s is not None
        return self._opened_s + self._rest_s - self._clock.monotonic()

    def _forget(self) -> None:
        oldest_s = self._clock.monotonic() - self._window_s
        while self._ends and self._ends[0][0] < oldest_s:
            self._ends.popleft()
