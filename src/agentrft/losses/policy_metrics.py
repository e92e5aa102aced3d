"""What every policy loss reports."""

from __future__ import annotations

import torch
from torch import Tensor

from agentrft.losses.token_ops import k3


def policy_metrics(ratio_log: Tensor, weight: Tensor, dropped: Tensor) -> dict[str, Tensor]:
    """Sums over tokens: log(π/μ) gives the distance, the weights the effective sample size, (Σw)² / (N Σw²).

    `weight` is what a token's gradient is multiplied by before the trust region; `dropped` says who has no gradient.
    """
    weight, ratio_log = weight.detach(), ratio_log.detach()
    return {
        "tokens": torch.tensor(float(ratio_log.numel())),
        "masked_frac": dropped.sum().float(),
        "kl_mu_k3": k3(ratio_log).sum(),
        "weight": weight.sum(),
        "weight_sq": weight.square().sum(),
    }
