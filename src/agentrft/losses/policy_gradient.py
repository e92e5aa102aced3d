"""Importance-weighted REINFORCE with a trust region in probability space."""

from __future__ import annotations

from agentrft.losses.batch import LossBatch, LossResult
from agentrft.losses.correction import correction_factor
from agentrft.losses.policy_metrics import policy_metrics
from agentrft.losses.spec import MaxrlLoss, PolicyGradientLoss
from agentrft.losses.token_ops import log_ratio, probability_shift


def policy_gradient(batch: LossBatch, spec: PolicyGradientLoss | MaxrlLoss) -> LossResult:
    """L = −Σ keep·w·credit·log π, with w = min(π/μ, cap) held constant.

    π is the policy, μ the generator that drew the tokens. `keep` drops a token that has already moved by more than
    `mask_delta` the way its credit pulls: credit > 0 and π − μ > δ, or credit < 0 and π − μ < −δ. A ratio clip would
    instead stop rare tokens after a harmless move and frequent ones too late. On policy (π = μ) nothing is dropped,
    w = 1, and the gradient is REINFORCE's. Dropped tokens still count in the normaliser that credit carries.

    Source: the mask is DPPO's (arXiv:2602.04879, total-variation form), the cap truncates importance weights as in
    IcePop and ScaleRL (arXiv:2510.13786).
    """
    log_probs = batch.log_probs.detach()
    moved = probability_shift(log_probs, batch.generator_log_probs)
    dropped = (batch.credit > 0) & (moved > spec.mask_delta) | (batch.credit < 0) & (moved < -spec.mask_delta)
    ratio_log = log_ratio(log_probs, batch.generator_log_probs)
    weight = ratio_log.exp().clamp(max=spec.weight_cap)
    if spec.correction:
        kept = correction_factor(ratio_log, batch.row, spec.correction)
        weight, dropped = weight * kept, dropped | (kept == 0)
    return LossResult(
        loss=-(weight * batch.credit * ~dropped * batch.log_probs).sum(),
        metrics=policy_metrics(ratio_log, weight, dropped),
    )
