"""Losses: what one optimiser step minimises, as pure functions of per-token log-probs.

A learner calls `LOSSES[spec.type](LossBatch(…), spec)` for every micro-batch and back-propagates `LossResult.loss`.
Losses and metrics are sums over tokens, never means: credit arrives divided by the step's normaliser, so any split
of the units into micro-batches adds up to the same gradient. To get the step's metrics a learner adds the sums of its
micro-batches and divides each by the sum of `tokens`.

A loop makes that credit with what the spec declares: `scaled_credit` (or `credit.RewardScale` where `scale` is `run`),
then one division by `row_divisors`.

To add a loss: a spec with a `type` in `spec.py`, a file with its function, one line in `table.py`.

Importing this package does not import torch: specs are validated in places that do without, and loops use plain
numbers. `LOSSES`, `LossBatch` and `LossResult` load it when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentrft.losses.kl import mean_row_kl, penalised_rewards, row_kl
from agentrft.losses.normaliser import row_divisors
from agentrft.losses.scale import scaled_credit
from agentrft.losses.spec import (
    CispoLoss,
    DapoLoss,
    DpoLoss,
    DrGrpoLoss,
    GrpoLoss,
    GspoLoss,
    KtoLoss,
    KtoStepLoss,
    LossSpec,
    MaxrlLoss,
    PolicyGradientLoss,
    PolicyLoss,
    PolicyLossSpec,
    PreferenceLossSpec,
    ReinforcePpLoss,
    RlooLoss,
    SapoLoss,
    SimpoLoss,
    SupervisedLoss,
)

if TYPE_CHECKING:
    from agentrft.losses.batch import LossBatch, LossResult
    from agentrft.losses.table import LOSSES

__all__ = [
    "LOSSES",
    "CispoLoss",
    "DapoLoss",
    "DpoLoss",
    "DrGrpoLoss",
    "GrpoLoss",
    "GspoLoss",
    "KtoLoss",
    "KtoStepLoss",
    "LossBatch",
    "LossResult",
    "LossSpec",
    "MaxrlLoss",
    "PolicyGradientLoss",
    "PolicyLoss",
    "PolicyLossSpec",
    "PreferenceLossSpec",
    "ReinforcePpLoss",
    "RlooLoss",
    "SapoLoss",
    "SimpoLoss",
    "SupervisedLoss",
    "mean_row_kl",
    "penalised_rewards",
    "row_divisors",
    "row_kl",
    "scaled_credit",
]


def __getattr__(name: str) -> Any:
    if name in ("LossBatch", "LossResult"):
        from agentrft.losses import batch

        return getattr(batch, name)
    if name == "LOSSES":
        from agentrft.losses.table import LOSSES

        return LOSSES
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
