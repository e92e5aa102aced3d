"""The clipped ratio of PPO, token by token: GRPO and its relatives."""

from __future__ import annotations

import torch

from agentrft.losses.batch import LossBatch, LossResult
from agentrft.losses.correction import correction_factor
from agentrft.losses.policy_metrics import policy_metrics
from agentrft.losses.spec import DapoLoss, DrGrpoLoss, GrpoLoss, ReinforcePpLoss
from agentrft.losses.token_ops import log_ratio


def clipped(batch: LossBatch, spec: GrpoLoss | DapoLoss | DrGrpoLoss | ReinforcePpLoss) -> LossResult:
    """L = −Σ f·min(ρ·credit, clip(ρ, 1 − low, 1 + high)·credit), with ρ = π/μ and f the correction's factor.

    μ is the generator itself: with one update for each batch no other policy stands between. A token whose ratio has
    left the clip range the way its credit pulls keeps its value and has no gradient.

    Sources: PPO (arXiv:1707.06347), GRPO (arXiv:2402.03300), DAPO (arXiv:2503.14476), Dr. GRPO (arXiv:2503.20783),
    REINFORCE++ (arXiv:2501.03262). They differ in clip range, credit and normaliser.
    """
    ratio_log = log_ratio(batch.log_probs, batch.generator_log_probs)
    ratio = ratio_log.exp()
    factor = correction_factor(ratio_log, batch.row, spec.correction)
    inside = ratio.clamp(1 - spec.clip_low, 1 + spec.clip_high)
    over = (batch.credit > 0) & (ratio > 1 + spec.clip_high) | (batch.credit < 0) & (ratio < 1 - spec.clip_low)
    return LossResult(
        loss=-(factor * torch.minimum(ratio * batch.credit, inside * batch.credit)).sum(),
        metrics=policy_metrics(ratio_log, factor * ratio, over | (factor == 0)),
    )
