"""Credit against the mean of the group."""

from __future__ import annotations

from collections.abc import Sequence


def group_mean(rewards_G: Sequence[float | None]) -> list[float]:
    """R − mean(R) over the graded members; a member without a reward is left out of the mean and gets 0.

    Not divided by the group's own deviation, which would blow grader noise in near-unanimous groups up to full size
    (Dr. GRPO, arXiv:2503.20783). A group with fewer than two graded members gets 0 throughout.
    """
    graded = [reward for reward in rewards_G if reward is not None]
    if len(graded) < 2:
        return [0.0] * len(rewards_G)
    mean = sum(graded) / len(graded)
    return [0.0 if reward is None else reward - mean for reward in rewards_G]
