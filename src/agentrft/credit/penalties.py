"""From a grade to the reward that training uses."""

from __future__ import annotations

from agentrft.types import Grade, StopReason


def reward_of(grade: Grade, stop_reason: StopReason) -> float | None:
    """None where there is no grade; min(grade, 0) where a limit cut the episode off; else the grade.

    A missing grade is never 0: that would drag the baseline of the whole group. A truncated episode earns nothing,
    so that running into a limit never pays, but keeps what it lost (grade, then clamp).
    """
    if grade.value is None:
        return None
    return min(grade.value, 0.0) if stop_reason.is_truncated else grade.value
