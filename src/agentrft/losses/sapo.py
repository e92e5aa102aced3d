"""A soft gate on the ratio instead of a clip."""

from __future__ import annotations

import torch

from agentrft.losses.batch import LossBatch, LossResult
from agentrft.losses.correction import correction_factor
from agentrft.losses.policy_metrics import policy_metrics
from agentrft.losses.spec import SapoLoss
from agentrft.losses.token_ops import log_ratio


def sapo(batch: LossBatch, spec: SapoLoss) -> LossResult:
    """L = −Σ f·(4/τ)·σ(τ(ρ − 1))·credit, with ρ = π/μ and τ by the sign of credit.

    The gradient's weight is ρ·sech²(τ(ρ − 1)/2): 1 on policy, falling off on both sides.

    Source: arXiv:2511.20347.
    """
    ratio_log = log_ratio(batch.log_probs, batch.generator_log_probs)
    ratio = ratio_log.exp()
    kept = correction_factor(ratio_log, batch.row, spec.correction)
    positive, negative = ratio.new_tensor([spec.temperature_positive, spec.temperature_negative])
    sharpness = torch.where(batch.credit > 0, positive, negative)
    gate = torch.sigmoid(sharpness * (ratio - 1))
    weight = kept * 4 * ratio * gate * (1 - gate)
    return LossResult(
        loss=-(kept * 4 / sharpness * gate * batch.credit).sum(),
        metrics=policy_metrics(ratio_log, weight, kept == 0),
    )
