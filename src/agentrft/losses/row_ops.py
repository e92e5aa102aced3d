"""Sums over the tokens of each row. `row` is [N], which row each token belongs to; results are [R]."""

from __future__ import annotations

import torch
from torch import Tensor


def row_count(row: Tensor) -> int:
    """R, going by the highest row that has a token; 0 without tokens."""
    return int(row.max()) + 1 if row.numel() else 0


def row_sums(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Σ over each row's tokens; 0 for a row without any."""
    return values.new_zeros(rows).index_add(0, row, values)


def row_means(values: Tensor, row: Tensor, rows: int) -> Tensor:
    """Mean over each row's tokens; 0 for a row without any."""
    return row_sums(values, row, rows) / row_sums(torch.ones_like(values), row, rows).clamp(min=1)
