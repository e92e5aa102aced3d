"""One ratio for a whole row: GSPO and RLOO."""

from __future__ import annotations

import torch
from torch import Tensor

from agentrft.losses.batch import LossBatch, LossResult
from agentrft.losses.correction import correction_factor
from agentrft.losses.policy_metrics import policy_metrics
from agentrft.losses.row_ops import row_count, row_means, row_sums
from agentrft.losses.spec import GspoLoss, RlooLoss
from agentrft.losses.token_ops import MAX_LOG_RATIO, log_ratio


def gspo(batch: LossBatch, spec: GspoLoss) -> LossResult:
    """L = −Σ min(s·credit, clip(s)·credit), s the geometric mean of π/μ over the token's row.

    Source: arXiv:2507.18071, in its token form: s has each token's own gradient, so credit may differ by turn; where
    it does not, value and gradient are those of the sequence form. On policy it is REINFORCE.
    """
    ratio_log = log_ratio(batch.log_probs.detach(), batch.generator_log_probs)
    return _clipped_rows(batch, spec, ratio_log, row_means(ratio_log, batch.row, row_count(batch.row)))


def rloo(batch: LossBatch, spec: RlooLoss) -> LossResult:
    """L = −Σ min(S·credit, clip(S)·credit), S = Π π/μ over the token's row: a whole row is one action.

    Source: arXiv:2402.14740; the clipped ratio is TRL's. The gradient is that of −min(S·A, clip(S)·A) per row; the
    value counts every token of the row and has no meaning. S of a long row is seldom near 1 once policy and generator
    differ: use a token-wise preset there.
    """
    ratio_log = log_ratio(batch.log_probs.detach(), batch.generator_log_probs)
    return _clipped_rows(batch, spec, ratio_log, row_sums(ratio_log, batch.row, row_count(batch.row)))


def _clipped_rows(batch: LossBatch, spec: GspoLoss | RlooLoss, ratio_log: Tensor, log_s_R: Tensor) -> LossResult:
    s = log_s_R.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()[batch.row]
    kept = correction_factor(ratio_log, batch.row, spec.correction)
    over = (batch.credit > 0) & (s > 1 + spec.clip_high) | (batch.credit < 0) & (s < 1 - spec.clip_low)
    # exp(lp − its own value) is 1, with the gradient of log π.
    own = s * (batch.log_probs - batch.log_probs.detach()).exp()
    inside = own.clamp(1 - spec.clip_low, 1 + spec.clip_high)
    return LossResult(
        loss=-(kept * torch.minimum(own * batch.credit, inside * batch.credit)).sum(),
        metrics=policy_metrics(ratio_log, kept * s, over | (kept == 0)),
    )
