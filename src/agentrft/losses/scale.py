"""What a preset divides centred rewards by, where it is not the run-wide scale. Plain numbers, no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentrft.losses.spec import Scale

_STD_FLOOR = 1e-4
"""Added to a group's deviation, as TRL does: rewards that differ by less are noise."""

_NOISE = 1e-9
"""Deviations below this fraction of the largest reward are rounding."""


def scaled_credit(
    scale: Scale,
    rewards_I_G: Sequence[Sequence[float | None]],
    credit_I_G: Sequence[Sequence[float]],
    tokens_I_G: Sequence[Sequence[int]],
) -> list[list[float]]:
    """The advantage of every member of a step, from its centred credit; 0 for a member without a reward.

    `none`: credit as it is. `group_std`: credit / (σ + 10⁻⁴), σ the deviation (n − 1) of the group's rewards (GRPO,
    arXiv:2402.03300). `group_mean`: credit / mean reward of the group, 0 where that is not positive (MaxRL,
    arXiv:2602.02710). `batch`: credit less its mean and divided by its deviation, both over all trained tokens of the
    step, `tokens_I_G` by member (REINFORCE++, arXiv:2501.03262). Raises ValueError for `run`: that scale has a memory
    and is `credit.RewardScale`.
    """
    pairs = list(zip(rewards_I_G, credit_I_G, strict=True))
    match scale:
        case "none":
            return [list(credit_G) for credit_G in credit_I_G]
        case "group_std":
            return [_divided(credit_G, _deviation(rewards_G) + _STD_FLOOR) for rewards_G, credit_G in pairs]
        case "group_mean":
            return [_divided(credit_G, _mean(rewards_G)) for rewards_G, credit_G in pairs]
        case "batch":
            return _whitened(rewards_I_G, credit_I_G, tokens_I_G)
        case "run":
            raise ValueError("the run-wide scale is kept by credit.RewardScale; use its `advantages`")


def _divided(credit_G: Sequence[float], divisor: float) -> list[float]:
    return [credit / divisor if divisor > 0 else 0.0 for credit in credit_G]


def _mean(rewards_G: Sequence[float | None]) -> float:
    graded = [reward for reward in rewards_G if reward is not None]
    return math.fsum(reward / len(graded) for reward in graded)


def _deviation(rewards_G: Sequence[float | None]) -> float:
    graded = [reward for reward in rewards_G if reward is not None]
    if len(graded) < 2:
        return 0.0
    mean = _mean(graded)
    # hypot: the square of a large reward need not exist.
    return math.hypot(*(reward - mean for reward in graded)) / math.sqrt(len(graded) - 1)


def _whitened(
    rewards_I_G: Sequence[Sequence[float | None]],
    credit_I_G: Sequence[Sequence[float]],
    tokens_I_G: Sequence[Sequence[int]],
) -> list[list[float]]:
    weighed = [
        (credit, 0 if reward is None else tokens)
        for group in zip(rewards_I_G, credit_I_G, tokens_I_G, strict=True)
        for reward, credit, tokens in zip(*group, strict=True)
    ]
    total = sum(tokens for _, tokens in weighed)
    mean = math.fsum(credit * (tokens / total) for credit, tokens in weighed if tokens)
    deviation = math.hypot(*((credit - mean) * math.sqrt(tokens / total) for credit, tokens in weighed if tokens))
    # Equal credits leave rounding noise behind, which must not be blown up to full size.
    if deviation <= _NOISE * max((abs(reward) for group in rewards_I_G for reward in group if reward), default=0.0):
        deviation = 0.0
    return [
        [
            0.0 if reward is None or not deviation else (credit - mean) / deviation
            for reward, credit in zip(rewards_G, credit_G, strict=True)
        ]
        for rewards_G, credit_G in zip(rewards_I_G, credit_I_G, strict=True)
    ]
