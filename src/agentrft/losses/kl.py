"""Distances to the reference that loops take from log-probs. Plain numbers, no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentrft.types import Row

_MAX_GAP = 20.0
"""Nats; a single token further away than this tells nothing more."""


def row_kl(rows_R: Sequence[Row], reference_R_T: Sequence[Sequence[float]]) -> list[float]:
    """For each row Σ log π_generator − log π_reference over its trained tokens (nats): what `kl_coef` prices.

    The k1 estimator: its mean over rows is KL(π_generator ‖ π_reference) per row. Taken from the reward it gives an
    unbiased gradient of that KL; as a differentiable loss it would give none at all (arXiv:2506.09477). It may be
    negative for a single row.
    """
    return [
        math.fsum(
            min(max(log_prob - reference, -_MAX_GAP), _MAX_GAP)
            for log_prob, reference, trained in zip(row.log_probs, reference_T, row.trained, strict=True)
            if trained
        )
        for row, reference_T in zip(rows_R, reference_R_T, strict=True)
    ]


def penalised_rewards(
    rewards_I_G: Sequence[Sequence[float | None]], kl_R: Sequence[float], kl_coef: float
) -> list[list[float | None]]:
    """reward − kl_coef·KL of every member; `kl_R` has one figure, in order, for each member with a reward.

    A member without a reward stays without. Raises ValueError when the figures are not as many as the rewards.
    """
    there = sum(reward is not None for rewards_G in rewards_I_G for reward in rewards_G)
    if there != len(kl_R):
        raise ValueError(f"{there} members have a reward, got {len(kl_R)} KL figures; make one row for each of them")
    kl = iter(kl_R)
    return [
        [None if reward is None else reward - kl_coef * next(kl) for reward in rewards_G] for rewards_G in rewards_I_G
    ]


def mean_row_kl(policy_R_T: Sequence[Sequence[float]], reference_R_T: Sequence[Sequence[float]]) -> float:
    """KTO's z₀: max(0, mean over rows of Σ log π − log π_reference), in nats per row; 0 without rows.

    Both are what `Learner.log_probs` gives (0.0 where not trained), for rows whose answer belongs to another item of
    the same step: what the policy thinks of answers that fit nothing.
    """
    gaps_R = [
        math.fsum(policy_T) - math.fsum(reference_T)
        for policy_T, reference_T in zip(policy_R_T, reference_R_T, strict=True)
    ]
    return max(0.0, math.fsum(gaps_R) / len(gaps_R)) if gaps_R else 0.0
