"""The token-wise losses of reinforcement in floats: the formulas of `agentrft.losses`, written a second time."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from typing import Any

from agentrft.errors import UserError

TOKEN_WISE = ("pg_tv", "maxrl", "cispo", "grpo", "dapo", "dr_grpo", "reinforce_pp", "sapo")


def policy_pull(
    loss: Any, log_prob: float, generator_log_prob: float, credit: float, sums: MutableMapping[str, float]
) -> float:
    """−d loss / d log_prob of one token; adds its share to the sums of loss and metrics.

    Raises UserError for a loss with one ratio for a whole row, and for a correction.
    """
    correction = getattr(loss, "correction", None)
    if loss.type not in TOKEN_WISE or correction is not None:
        what = f"no loss {loss.type!r}" if correction is None else f"no correction {correction.type!r}"
        raise UserError(
            f"ScriptedLearner has {what}; expected one of {', '.join(TOKEN_WISE)}, without a correction", param="loss"
        )
    log_ratio = max(-20.0, min(20.0, log_prob - generator_log_prob))
    ratio = math.exp(log_ratio)
    value, weight, masked = _token(loss, ratio, log_prob, math.exp(log_prob) - math.exp(generator_log_prob), credit)
    sums["loss"] -= value
    sums["masked_frac"] += masked
    sums["weight"] += weight
    sums["weight_sq"] += weight**2
    sums["kl_mu_k3"] += math.expm1(log_ratio) - log_ratio
    return 0.0 if masked else weight * credit


def _token(loss: Any, ratio: float, log_prob: float, moved: float, credit: float) -> tuple[float, float, bool]:
    """(−loss, weight of the gradient before the trust region, whether that drops it) of one token."""
    if loss.type in ("pg_tv", "maxrl"):
        weight = min(ratio, loss.weight_cap)
        masked = (credit > 0 and moved > loss.mask_delta) or (credit < 0 and moved < -loss.mask_delta)
        return (0.0 if masked else weight * credit) * log_prob, weight, masked
    if loss.type == "cispo":
        weight = min(ratio, loss.weight_cap)
        return weight * credit * log_prob, weight, False
    if loss.type == "sapo":
        sharpness = loss.temperature_positive if credit > 0 else loss.temperature_negative
        gate = 1 / (1 + math.exp(-sharpness * (ratio - 1)))
        return 4 / sharpness * gate * credit, 4 * ratio * gate * (1 - gate), False
    inside = max(1 - loss.clip_low, min(1 + loss.clip_high, ratio))
    masked = (credit > 0 and ratio > 1 + loss.clip_high) or (credit < 0 and ratio < 1 - loss.clip_low)
    return min(ratio * credit, inside * credit), ratio, masked
