"""Slopes of the preference losses in plain numbers, for the scripted learner."""

from __future__ import annotations

import math
from collections.abc import MutableMapping, Sequence
from typing import Any

from agentrft.losses.margins import StepLoss, UnitLoss, unit_losses
from agentrft.losses.spec import DpoLoss, KtoStepLoss, SimpoLoss
from agentrft.types import Row


def preference_pulls(
    loss: Any, rows_R: Sequence[Row], log_probs_R_T: Sequence[Sequence[float]], sums: MutableMapping[str, float]
) -> list[float]:
    """For each row −d loss / d log-prob of its trained tokens, which all have the same; adds the metrics to `sums`."""
    units = dict.fromkeys(row.unit for row in rows_R)
    by_unit = dict(zip(units, unit_losses(loss, rows_R, log_probs_R_T), strict=True))
    weight_R = [max(row.credit, default=0.0) for row in rows_R]
    weights = {row.unit: weight for row, weight in zip(rows_R, weight_R, strict=True)}
    sums["tokens"] += sum(sum(row.trained) for row in rows_R)
    sums["loss"] += math.fsum(weights[name] * unit.loss for name, unit in by_unit.items())
    sums["units"] += len(by_unit)
    sums["preferred"] += sum(unit.margin > 0 for unit in by_unit.values())
    sums["margin"] += math.fsum(unit.margin for unit in by_unit.values())
    if not isinstance(loss, KtoStepLoss):
        sums["nll_preferred"] -= math.fsum(
            math.fsum(log_probs_T) / sum(row.trained)
            for row, log_probs_T in zip(rows_R, log_probs_R_T, strict=True)
            if row.sign > 0
        )
    return [_pull(loss, row, by_unit[row.unit], weight) for row, weight in zip(rows_R, weight_R, strict=True)]


def _pull(loss: StepLoss, row: Row, unit: UnitLoss, weight: float) -> float:
    """The derivatives of `losses.margins`, worked by hand."""
    tokens = sum(row.trained)
    miss = 1 / (1 + math.exp(min(unit.margin, 700.0)))  # d(log σ(margin)) / d margin
    match loss:
        case KtoStepLoss():
            share = loss.desirable_weight if row.sign > 0 else loss.undesirable_weight
            return weight * share * miss * (1 - miss) * loss.beta * row.sign
        case SimpoLoss():
            return weight * miss * loss.beta * row.sign / tokens
        case DpoLoss():
            nll = loss.nll_coef / tokens if row.sign > 0 else 0.0
            return weight * (miss * loss.beta * row.sign / (tokens if loss.length_normalised else 1) + nll)
