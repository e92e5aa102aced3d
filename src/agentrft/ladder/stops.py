"""When a climb stops before its end."""

from __future__ import annotations

import time

from agentrft.train.stop import ShouldStop


class Stops:
    """When to stop: at once (the user asked), or in time to measure before the deadline."""

    def __init__(self, asked: ShouldStop, deadline_s: float | None) -> None:
        """`deadline_s` is of `time.monotonic`; None sets none."""
        self.asked = asked
        self._deadline_s = deadline_s
        self.measuring_s = 0.0
        """What measuring one stage took last."""

    def __call__(self) -> str | None:
        """The reason to stop after this step, or None."""
        late = self._deadline_s is not None and time.monotonic() + 1.2 * self.measuring_s > self._deadline_s
        return self.asked() or ("the time limit is reached" if late else None)


class Halt(Exception):
    """A climb stops here; what is done is on the disk, and the same climb goes on from there."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
