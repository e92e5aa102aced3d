"""What is done where the generator's probabilities differ from the policy's, beyond the preset's own trust region."""

from __future__ import annotations

import torch
from torch import Tensor

from agentrft.losses.row_ops import row_count, row_means, row_sums
from agentrft.losses.spec import (
    SequenceBand,
    SequenceMask,
    SequenceTruncation,
    TokenMask,
    TokenTruncation,
)
from agentrft.losses.token_ops import MAX_LOG_RATIO

Correction = TokenTruncation | TokenMask | SequenceTruncation | SequenceMask | SequenceBand


def correction_factor(ratio_log: Tensor, row: Tensor, correction: Correction | None) -> Tensor:
    """[N] what each token's term is multiplied by, without a gradient; 0 drops the token.

    `ratio_log` is log ρ = log(π/μ) of each token. Terms already weigh ρ, so a weight w is reached by the factor w/ρ:
    token truncation w = min(ρ, cap); sequence truncation w = min(Π ρ, cap) and mask w = Π ρ·1[Π ρ ≤ cap], the product
    over the token's row. Token mask and sequence band only drop, and leave w = ρ elsewhere.

    Sources: truncation and masks as in TRL 1.16 and SkyRL 0.4, the band as in SkyRL (arXiv:2510.13786 and
    richardli.xyz/rl-collapse for why). Truncating or masking trades bias for variance.
    """
    ratio_log = ratio_log.detach()
    match correction:
        case None:
            return torch.ones_like(ratio_log)
        case TokenTruncation(cap=cap):
            return (cap / ratio_log.exp()).clamp(max=1)
        case TokenMask(low=low, high=high):
            ratio = ratio_log.exp()
            return ((ratio >= low) & (ratio <= high)).to(ratio.dtype)
    rows = row_count(row)
    if isinstance(correction, SequenceBand):
        mean = row_means(ratio_log, row, rows).exp()
        smallest = ratio_log.new_zeros(rows).scatter_reduce(0, row, ratio_log.exp(), "amin", include_self=False)
        keep = (mean >= correction.low) & (mean <= correction.high) & (smallest >= correction.min_ratio)
        return keep.to(ratio_log.dtype)[row]
    product = row_sums(ratio_log, row, rows).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    if isinstance(correction, SequenceTruncation):
        weight = product.clamp(max=correction.cap)
    else:
        weight = product * (product <= correction.cap)
    return weight[row] / ratio_log.exp()
