"""Cross-entropy on demonstrated tokens."""

from __future__ import annotations

import torch

from agentrft.losses.batch import LossBatch, LossResult
from agentrft.losses.spec import SupervisedLoss


def supervised(batch: LossBatch, spec: SupervisedLoss) -> LossResult:
    """L = −Σ credit·log π.

    With credit 1/N this is the mean negative log-likelihood over the N trained tokens of the optimiser step.
    """
    return LossResult(
        loss=-(batch.credit * batch.log_probs).sum(),
        metrics={
            "tokens": torch.tensor(float(batch.log_probs.numel())),
            "nll": -batch.log_probs.detach().sum(),
        },
    )
