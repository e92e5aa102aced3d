"""What goes into a loss and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LossBatch:
    """The trained tokens of whole units, laid end to end; all four have length N."""

    log_probs: Tensor
    """The policy's log-probs (nats), the only one with a gradient."""
    generator_log_probs: Tensor
    """The generator's log-probs (nats) of the same tokens."""
    credit: Tensor
    """Per-token weight, already divided by the optimiser step's normaliser."""
    row: Tensor
    """int64: which row each token belongs to, for losses that look at whole rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossResult:
    """Sums over the batch's tokens."""

    loss: Tensor
    """Scalar, with a gradient."""
    metrics: dict[str, Tensor]
    """Detached sums by name, and `tokens`, their count; divided by it they are the metrics of `train.metrics`."""
