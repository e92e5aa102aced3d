"""Products with a weight kept in oneDNN's own layout: what makes the narrow products of decoding quick on a CPU.

With few rows a product spends as long on rearranging its weight as on multiplying. Here the weight is rearranged once
for each of its versions (the adapter is merged once a step) instead of once for each token.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import linear

_ROWS = 64
"""Rows that the layout is chosen for; other numbers of rows work too."""
_WORTH_IT = 1.05
"""Packing needs a second copy of the weight, so it has to be this many times faster."""


def few_shapes(rows: int) -> int:
    """`rows` rounded up to a number with three more binary digits behind its first: 50 → 52, 130 → 144, 260 → 288.

    oneDNN builds code for each new number of rows and keeps it, 0.7 MB for a weight of SmolLM2's. Rounded, there are
    eight of them for each doubling; it adds 12 % at most, and 4 % on average.
    """
    step = 1 << max(rows.bit_length() - 4, 0)
    return -(-rows // step) * step


class PackedLinear:
    """x Wᵀ + b, as torch's `linear`, without gradients."""

    def __init__(self, weight: Tensor) -> None:
        """`weight` [out, in] may change in place; it is packed again when it is next used."""
        self._weight = weight
        self._packed: Tensor | None = None
        self._version = -1

    def __call__(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """[..., in] → [..., out]."""
        if self._packed is None or self._version != self._weight._version:
            self._packed = None  # before the new copy is made
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._weight.detach(), _ROWS)
            self._version = self._weight._version
        return torch.ops.mkldnn._linear_pointwise(x, self._packed, bias, "none", [], "")


def is_packing_faster(dtype: torch.dtype, device: torch.device) -> bool:
    """Measure whether packed products of 64 rows are faster than plain ones here; False where there are none."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if dtype != torch.float32 and not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    x, weight = (torch.ones(n, 1024, dtype=dtype) for n in (_ROWS, 1024))
    packed = PackedLinear(weight)
    with torch.no_grad():
        return _seconds(lambda: linear(x, weight)) > _WORTH_IT * _seconds(lambda: packed(x))


def _seconds(work: Callable[[], Tensor]) -> float:
    """The fastest of a few runs, after one that does not count."""
    best = float("inf")
    for index in range(9):
        start = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - start) if index else best
    return best
