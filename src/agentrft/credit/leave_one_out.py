"""Credit against the mean of the other members."""

from __future__ import annotations

from collections.abc import Sequence


def leave_one_out(rewards_G: Sequence[float | None]) -> list[float]:
    """R − mean of the other graded members' R; a member without a reward gets 0 and is in nobody's mean.

    Unbiased, and for g graded members exactly g/(g−1) times `group_mean` (RLOO, arXiv:2402.14740). A group with fewer
    than two graded members gets 0 throughout.
    """
    graded = [reward for reward in rewards_G if reward is not None]
    if len(graded) < 2:
        return [0.0] * len(rewards_G)
    total, others = sum(graded), len(graded) - 1
    return [0.0 if reward is None else reward - (total - reward) / others for reward in rewards_G]
