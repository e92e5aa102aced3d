"""Truncated importance weights without a trust region."""

from __future__ import annotations

from agentrft.losses.batch import LossBatch, LossResult
from agentrft.losses.correction import correction_factor
from agentrft.losses.policy_metrics import policy_metrics
from agentrft.losses.spec import CispoLoss
from agentrft.losses.token_ops import log_ratio


def cispo(batch: LossBatch, spec: CispoLoss) -> LossResult:
    """L = −Σ w·credit·log π, with w = min(π/μ, cap) held constant: no token loses its gradient for having moved.

    Source: MiniMax-M1 (arXiv:2506.13585); the cap is the weight itself as in TRL and ScaleRL, not verl's distance
    from 1. On policy it is REINFORCE.
    """
    ratio_log = log_ratio(batch.log_probs.detach(), batch.generator_log_probs)
    kept = correction_factor(ratio_log, batch.row, spec.correction)
    weight = kept * ratio_log.exp().clamp(max=spec.weight_cap)
    return LossResult(
        loss=-(weight * batch.credit * batch.log_probs).sum(),
        metrics=policy_metrics(ratio_log, weight, kept == 0),
    )
