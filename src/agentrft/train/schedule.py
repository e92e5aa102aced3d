"""The learning rate of each step."""

from __future__ import annotations

from typing import Literal

Decay = Literal["constant", "linear"]
_LAST_FRACTION = 0.1
"""Of the peak, where linear decay would end one step after the last."""


def rate_at(step: int, *, peak: float, warmup_steps: int, total_steps: int, decay: Decay) -> float:
    """The rate of optimiser step `step`, 1-based: a linear rise over `warmup_steps`, times the decay.

    Linear decay runs from the first step (1) towards a tenth of the peak, also during warm-up.
    """
    rise = min(1.0, step / warmup_steps) if warmup_steps else 1.0
    fall = 1.0 - (1.0 - _LAST_FRACTION) * (step - 1) / total_steps if decay == "linear" else 1.0
    return peak * rise * fall
