"""What goes into a loss and what comes out."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class LossBatch:
    """The trained tokens of whole units, laid end to end: N tokens of R rows.

    The first four tensors have length N. The last three are for preference losses only; others leave them None.
    """

    log_probs: Tensor
    """The policy's log-probs (nats), the only one with a gradient."""
    generator_log_probs: Tensor
    """The generator's log-probs (nats) of the same tokens."""
    credit: Tensor
    """Per-token weight, already divided by the optimiser step's normaliser; in preference losses the weight of the
    token's unit, 1 / units of the step, the same on all its tokens."""
    row: Tensor
    """int64: which row each token belongs to, for losses that look at whole rows."""
    reference_log_probs: Tensor | None = None
    """[N] the reference's log-probs (nats) of the same tokens; simpo does without."""
    unit: Tensor | None = None
    """[R] int64: which unit each row belongs to, 0 … U−1. A pair is two rows of one unit."""
    sign: Tensor | None = None
    """[R] +1 for a preferred or desirable row, −1 for a rejected or undesirable one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossResult:
    """Sums over the batch's tokens."""

    loss: Tensor
    """Scalar, with a gradient."""
    metrics: dict[str, Tensor]
    """Detached sums by name, and `tokens`, their count; divided by it they are the metrics of `train.metrics`.
    Preference losses sum over units and say how many in `units`: the quotient of two metrics is a mean over units."""
