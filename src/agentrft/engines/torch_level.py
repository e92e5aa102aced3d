"""Attention to shared blocks a whole level of the tree at a time: one padded product instead of one for each block.

In decoding, a product over one block has a handful of rows, and starting it costs more than computing it. The blocks of
one level hang side by side, so no row attends to two of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from agentrft.engines.torch_attention import UNSEEN, weights_of
from agentrft.engines.torch_cache import Block, KvCache, Stack

_PADDING = 2.0
"""A padded batch may compute this many times what its blocks need; beyond, one product for each block is cheaper."""


def index_of(numbers: Sequence[int], device: torch.device) -> Tensor | slice:
    """What `taken` picks `numbers` by: a slice, which copies nothing, where they follow each other."""
    first, count = numbers[0], len(numbers)
    if list(numbers) == list(range(first, first + count)):
        return slice(first, first + count)
    return torch.tensor(numbers, device=device)


def taken(x: Tensor, dim: int, index: Tensor | slice) -> Tensor:
    """Entries of one dimension, in the order of `index`."""
    if isinstance(index, slice):
        return x.narrow(dim, index.start, index.stop - index.start)
    return x.index_select(dim, index)  # for one dimension twice as fast as indexing


class OverBlock(NamedTuple):
    """Rows [start, end) of a pass attend to the first `tokens` of `block`, which begin at position `first`."""

    start: int
    end: int
    block: Block
    tokens: int
    first: int

    @property
    def is_computed(self) -> bool:
        """All of the block was there before this pass."""
        return self.block.done == len(self.block.tokens)


def by_level(over_blocks: Sequence[OverBlock], cache: KvCache) -> tuple[list[list[OverBlock]], list[OverBlock]]:
    """Levels worth a batch, and what is better left alone."""
    found: dict[int, list[OverBlock]] = {}
    for over in over_blocks:
        if over.is_computed:
            found.setdefault(len(over.block.path()), []).append(over)
    levels = [
        level
        for level in found.values()
        if len(level) > 1 and _padding(level) <= _PADDING and cache.can_stack([over.block for over in level])
    ]
    batched = {id(over) for level in levels for over in level}
    return levels, [over for over in over_blocks if id(over) not in batched]


def _padding(level: Sequence[OverBlock]) -> float:
    most, longest = max(over.end - over.start for over in level), max(over.tokens for over in level)
    return len(level) * most * longest / sum((over.end - over.start) * over.tokens for over in level)


class Level:
    """The rows of a pass that attend to the blocks of one level, ready for every layer."""

    def __init__(self, level: Sequence[OverBlock], stack: Stack, positions: Tensor, device: torch.device) -> None:
        """`stack` holds the level's blocks, in order; `positions` of all rows of the pass, int64 on the CPU."""
        self._stack = stack
        most = max(over.end - over.start for over in level)
        rows_B_R = torch.tensor([[min(over.start + r, over.end - 1) for r in range(most)] for over in level])
        real = torch.tensor([[over.start + r < over.end for r in range(most)] for over in level])
        self._shape = rows_B_R.shape
        self._rows = index_of(rows_B_R.flatten().tolist(), device)
        self._real = real.flatten().nonzero()[:, 0].to(device)
        self._first = torch.tensor([over.first for over in level])
        self._counts = torch.tensor([over.tokens for over in level])
        self._positions = positions[rows_B_R]
        self._device = device
        self._biases: dict[int | None, Tensor | None] = {}
        self.spans: list[tuple[int, int]] = []
        """Rows [start, end) in the order of what `attend` gives."""
        for over in level:
            if self.spans and self.spans[-1][1] == over.start:
                self.spans[-1] = self.spans[-1][0], over.end
            else:
                self.spans.append((over.start, over.end))

    def attend(self, layer: int, queries: Tensor, n_rows: int, window: int | None) -> tuple[Tensor, Tensor]:
        """Output [kv, rows · repeats, D] and log-sum-exp [kv, rows · repeats, 1] of the level's rows.

        `queries` are all rows of the pass, folded and scaled: [kv, n_rows · repeats, D].
        """
        kv_heads, folded, width = queries.shape
        repeats = folded // n_rows
        blocks, most = self._shape
        picked = taken(queries.view(kv_heads, n_rows, repeats, width), 1, self._rows)
        picked = picked.view(kv_heads, blocks, -1, width).transpose(0, 1).reshape(blocks * kv_heads, -1, width)
        keys, values = self._stack.keys[layer], self._stack.values[layer]
        weights, lse = weights_of(picked, keys, self._bias(window), (blocks, kv_heads, most, repeats))
        out = torch.bmm(weights.to(values.dtype), values)
        return self._gathered(out, kv_heads), self._gathered(lse, kv_heads)

    def _gathered(self, x: Tensor, kv_heads: int) -> Tensor:
        """[blocks · kv, most · repeats, D] → [kv, rows · repeats, D], without padding."""
        blocks, most = self._shape
        width = x.shape[-1]
        by_head = x.view(blocks, kv_heads, most, -1).transpose(0, 1).reshape(kv_heads, blocks * most, -1)
        if len(self._real) < blocks * most:
            by_head = by_head.index_select(1, self._real)
        return by_head.reshape(kv_heads, -1, width)

    def _bias(self, window: int | None) -> Tensor | None:
        """[blocks, 1, most, 1, longest]: hides padding, and keys `window` or more before a row."""
        if window not in self._biases:
            at = torch.arange(int(self._counts.max()))
            hidden = (at >= self._counts[:, None])[:, None]
            if window is not None:
                distance = self._positions[:, :, None] - (self._first[:, None] + at)[:, None]
                hidden = hidden | (distance >= window)
            bias = torch.zeros(hidden.shape).masked_fill_(hidden, UNSEEN)[:, None, :, None]
            self._biases[window] = bias.to(self._device) if bool(hidden.any()) else None
        return self._biases[window]
