"""Preference losses in plain numbers, for figures on held-out units; no gradient, no torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from agentrft.losses.spec import DpoLoss, KtoStepLoss, SimpoLoss
from agentrft.types import Row

StepLoss = DpoLoss | SimpoLoss | KtoStepLoss


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitLoss:
    """What a preference loss makes of one unit."""

    loss: float
    margin: float
    """The logit: above 0 where the unit is told the right way round."""


def unit_losses(loss: StepLoss, rows_R: Sequence[Row], log_probs_R_T: Sequence[Sequence[float]]) -> list[UnitLoss]:
    """For each unit, in order of its first row, the terms whose mean `losses.preference` computes with tensors.

    `log_probs_R_T` are the policy's (nats). A row without trained tokens counts as 0.
    """
    rows_by_unit: dict[str, list[int]] = {}
    for index, row in enumerate(rows_R):
        rows_by_unit.setdefault(row.unit, []).append(index)
    return [
        _unit_loss(loss, [rows_R[index] for index in indices], [log_probs_R_T[index] for index in indices])
        for indices in rows_by_unit.values()
    ]


def _unit_loss(loss: StepLoss, rows: Sequence[Row], log_probs: Sequence[Sequence[float]]) -> UnitLoss:
    match loss:
        case KtoStepLoss():
            (row,), (log_probs_T,) = rows, log_probs
            weight = loss.desirable_weight if row.sign > 0 else loss.undesirable_weight
            margin = loss.beta * row.sign * (math.fsum(_gaps(row, log_probs_T)) - loss.reference_kl)
            return UnitLoss(loss=weight * _sigmoid(-margin), margin=margin)
        case SimpoLoss():
            means = [_mean(_kept(row, log_probs_T)) for row, log_probs_T in zip(rows, log_probs, strict=True)]
            margin = loss.beta * _signed(rows, means) - loss.margin
            return UnitLoss(loss=-_log_sigmoid(margin), margin=margin)
        case DpoLoss():
            total = _mean if loss.length_normalised else math.fsum
            gaps = [total(_gaps(row, log_probs_T)) for row, log_probs_T in zip(rows, log_probs, strict=True)]
            margin = loss.beta * _signed(rows, gaps)
            preferred = next(index for index, row in enumerate(rows) if row.sign > 0)
            nll = -_mean(_kept(rows[preferred], log_probs[preferred]))
            return UnitLoss(loss=-_log_sigmoid(margin) + loss.nll_coef * nll, margin=margin)


def _signed(rows: Sequence[Row], values: Sequence[float]) -> float:
    """The preferred row's value minus the rejected one's."""
    return math.fsum(row.sign * value for row, value in zip(rows, values, strict=True))


def _kept(row: Row, values: Sequence[float]) -> list[float]:
    return [value for value, trained in zip(values, row.trained, strict=True) if trained]


def _gaps(row: Row, log_probs_T: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(_kept(row, log_probs_T), _kept(row, row.reference_log_probs), strict=True)]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0


def _log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x)) if x >= 0 else x - math.log1p(math.exp(x))


def _sigmoid(x: float) -> float:
    return math.exp(_log_sigmoid(x))
