"""Losses over pairs and over single good or bad rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from agentrft.losses.batch import LossBatch, LossResult
from agentrft.losses.row_ops import row_means, row_sums
from agentrft.losses.spec import DpoLoss, KtoStepLoss, SimpoLoss


def dpo(batch: LossBatch, spec: DpoLoss) -> LossResult:
    """L = Σ over pairs of weight·(−log σ(β·(d⁺ − d⁻)) + nll_coef·NLL⁺), d = Σ_t log π − log π_ref of a row.

    With `length_normalised` d is the mean over the row's tokens. NLL⁺ is the preferred row's mean −log π: each pair
    counts alike, however long it is. The gradient pushes the pair apart relative to the reference.

    Sources: arXiv:2305.18290; the NLL term is iterative RPO's (arXiv:2404.19733).
    """
    pairs = _Pairs(batch)
    gap = batch.log_probs - _required(batch.reference_log_probs, "reference_log_probs")
    d_R = pairs.means(gap) if spec.length_normalised else pairs.sums(gap)
    margin_U = spec.beta * pairs.difference(d_R)
    nll_U = -pairs.preferred(pairs.means(batch.log_probs))
    return pairs.result(-logsigmoid(margin_U) + spec.nll_coef * nll_U, margin_U, nll_U)


def simpo(batch: LossBatch, spec: SimpoLoss) -> LossResult:
    """L = Σ over pairs of weight·(−log σ(β·(m⁺ − m⁻) − margin)), m = mean log π of a row; there is no reference.

    Source: arXiv:2405.14734.
    """
    pairs = _Pairs(batch)
    mean_R = pairs.means(batch.log_probs)
    margin_U = spec.beta * pairs.difference(mean_R) - spec.margin
    return pairs.result(-logsigmoid(margin_U), margin_U, -pairs.preferred(mean_R))


def kto(batch: LossBatch, spec: KtoStepLoss) -> LossResult:
    """L = Σ over rows of weight·λ·(1 − σ(±β·(d − z₀))), d = Σ_t log π − log π_ref, + and λ_D for desirable rows.

    z₀ = `reference_kl` is a constant of the step, so that rows of different micro-batches add up.

    Source: arXiv:2402.01306.
    """
    sign_R = _required(batch.sign, "sign")
    rows = len(sign_R)
    gap = batch.log_probs - _required(batch.reference_log_probs, "reference_log_probs")
    margin_R = spec.beta * sign_R * (row_sums(gap, batch.row, rows) - spec.reference_kl)
    share_R = torch.where(sign_R > 0, gap.new_tensor(spec.desirable_weight), gap.new_tensor(spec.undesirable_weight))
    weight_R = _largest(batch.credit, batch.row, rows)
    return LossResult(
        loss=(weight_R * share_R * (1 - margin_R.sigmoid())).sum(),
        metrics={
            "tokens": torch.tensor(float(batch.row.numel())),
            "units": torch.tensor(float(rows)),
            "preferred": (margin_R.detach() > 0).sum().float(),
            "margin": margin_R.detach().sum(),
        },
    )


class _Pairs:
    """The pairs of a batch: row figures in, pair figures out."""

    def __init__(self, batch: LossBatch) -> None:
        """Raises ValueError for a unit that is not one preferred and one rejected row."""
        self._batch = batch
        self._sign_R = _required(batch.sign, "sign")
        self._unit_R = _required(batch.unit, "unit")
        self._rows, self._units = len(self._sign_R), int(self._unit_R.max()) + 1
        for sign in (1, -1):
            found_U = torch.bincount(self._unit_R[self._sign_R == sign], minlength=self._units)
            if not bool((found_U == 1).all()):
                raise ValueError(
                    f"a pair is one row with sign +1 and one with −1, got {found_U.tolist()} rows with {sign:+d} by "
                    "unit; give both rows of a pair the same unit"
                )

    def sums(self, values: Tensor) -> Tensor:
        return row_sums(values, self._batch.row, self._rows)

    def means(self, values: Tensor) -> Tensor:
        return row_means(values, self._batch.row, self._rows)

    def difference(self, values_R: Tensor) -> Tensor:
        """Preferred minus rejected."""
        return row_sums(self._sign_R * values_R, self._unit_R, self._units)

    def preferred(self, values_R: Tensor) -> Tensor:
        return row_sums((self._sign_R > 0) * values_R, self._unit_R, self._units)

    def result(self, loss_U: Tensor, margin_U: Tensor, nll_U: Tensor) -> LossResult:
        weight_U = _largest(self._batch.credit, self._unit_R[self._batch.row], self._units)
        return LossResult(
            loss=(weight_U * loss_U).sum(),
            metrics={
                "tokens": torch.tensor(float(self._batch.row.numel())),
                "units": torch.tensor(float(self._units)),
                "preferred": (margin_U.detach() > 0).sum().float(),
                "margin": margin_U.detach().sum(),
                "nll_preferred": nll_U.detach().sum(),
            },
        )


def _largest(weight: Tensor, index: Tensor, count: int) -> Tensor:
    """The weight that all tokens with one index carry; 0 where there are no tokens, and so nothing to learn."""
    return weight.new_zeros(count).scatter_reduce(0, index, weight, "amax", include_self=False)


def _required(tensor: Tensor | None, name: str) -> Tensor:
    if tensor is None:
        raise ValueError(f"this preference loss needs LossBatch.{name}, got None")
    return tensor
