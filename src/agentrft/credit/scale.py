"""One scale for the whole run, so that a learning rate means the same whatever the grader's units."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_DECAY = 0.95
_FLOOR = 1e-3
"""Smallest divisor as a fraction of the range of rewards seen: differences below it are noise, not to be blown up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardScale:
    """s ← 0.95 s + 0.05 RMS of the step's centred rewards; the first step sets s. Checkpointed with the job."""

    rms: float = 0.0
    """s."""
    lowest: float = 0.0
    highest: float = 0.0
    """Extremes of the rewards that s has seen."""
    steps: int = 0
    """Updates so far."""

    def updated(
        self, rewards_I_G: Sequence[Sequence[float | None]], credit_I_G: Sequence[Sequence[float]]
    ) -> RewardScale:
        """The scale after a step, from the groups that will be trained on; unchanged when there are none."""
        graded = [
            (reward, credit)
            for rewards_G, credit_G in zip(rewards_I_G, credit_I_G, strict=True)
            for reward, credit in zip(rewards_G, credit_G, strict=True)
            if reward is not None
        ]
        if not graded:
            return self
        rms = math.sqrt(sum(credit**2 for _, credit in graded) / len(graded))
        rewards = [reward for reward, _ in graded] + ([self.lowest, self.highest] if self.steps else [])
        return RewardScale(
            rms=_DECAY * self.rms + (1 - _DECAY) * rms if self.steps else rms,
            lowest=min(rewards),
            highest=max(rewards),
            steps=self.steps + 1,
        )

    def advantages(self, credit_G: Sequence[float]) -> list[float]:
        """Credit divided by max(s, 10⁻³ × range of rewards); 0 before the first update."""
        divisor = max(self.rms, _FLOOR * (self.highest - self.lowest))
        return [credit / divisor if divisor else 0.0 for credit in credit_G]
