"""Exact mode: every token's numbers depend on its own sequence alone, bit for bit, whatever shares the batch.

Continuous batching changes the shapes of matrix products from pass to pass, and a product's rows may then round
differently. Here all shapes that matter are fixed: linear layers see a multiple of 16 rows, attention runs sequence by
sequence in blocks of 16 queries and 128 keys, folded in order of position, in float32. Slower; `check_rows` refuses on
a machine where the premise does not hold. Attention pieces and slots stay as in `torch_pass`; only the arithmetic
differs. CPU only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from agentrft.engines.torch_cache import Block, KvCache
from agentrft.engines.torch_pass import Layout
from agentrft.errors import UserError

ROWS = 16
"""Rows that linear layers and attention work in."""
_KEYS = 128
"""Keys folded at a time."""


def whole_blocks(rows: int) -> int:
    """`rows` rounded up to a multiple of ROWS."""
    return -(-rows // ROWS) * ROWS


class ExactAttention:
    """Implements `torch_model.Attend` for one pass."""

    def __init__(self, layout: Layout, cache: KvCache) -> None:
        self._layout = layout
        self._cache = cache
        self._spans: list[tuple[int, int, int, Block | None, int | None]] = []
        """(row, tokens, position of the first, block under the tail or block itself, slot or None)."""
        for feed in layout.feeds:
            self._spans.append((feed.row, len(feed.tokens), feed.start, feed.tail.block, feed.tail.slot))
        for block_feed in layout.block_feeds:
            start = block_feed.block.depth + block_feed.start
            self._spans.append((block_feed.row, block_feed.end - block_feed.start, start, block_feed.block, None))

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        """Attention output [N, heads, D]; padding rows get zeros."""
        out = torch.zeros_like(q)
        self._write(layer, k, v)
        for row, count, start, block, slot in self._spans:
            keys, values = self._context(layer, block, slot, start + count)
            part = _blockwise(q[row : row + count], keys, values, start, scale, window)
            out[row : row + count] = part.to(out.dtype)
        return out

    def _write(self, layer: int, k: Tensor, v: Tensor) -> None:
        for feed in self._layout.feeds:
            rows, at = slice(feed.row, feed.row + len(feed.tokens)), slice(feed.past, feed.past + len(feed.tokens))
            self._cache.keys[layer, feed.tail.slot, :, at] = k[rows].transpose(0, 1)
            self._cache.values[layer, feed.tail.slot, :, at] = v[rows].transpose(0, 1)
        for feed in self._layout.block_feeds:
            rows = slice(feed.row, feed.row + feed.end - feed.start)
            feed.block.keys[layer, :, feed.start : feed.end] = k[rows].transpose(0, 1)
            feed.block.values[layer, :, feed.start : feed.end] = v[rows].transpose(0, 1)

    def _context(self, layer: int, block: Block | None, slot: int | None, length: int) -> tuple[Tensor, Tensor]:
        """Keys and values [⌈length / 128⌉ · 128, kv, D] of the sequence's first `length` tokens, zero-padded."""
        path = block.path() if block is not None else []
        padded = -(-length // _KEYS) * _KEYS
        gathered = []
        for name in ("keys", "values"):
            parts = [getattr(b, name)[layer] for b in path]
            if slot is not None:
                parts.append(getattr(self._cache, name)[layer, slot])
            joined = torch.cat(parts, dim=1)[:, :length].transpose(0, 1).float()
            full = joined.new_zeros(padded, *joined.shape[1:])
            full[:length] = joined
            gathered.append(full)
        return gathered[0], gathered[1]


def _blockwise(q: Tensor, keys: Tensor, values: Tensor, start: int, scale: float, window: int | None) -> Tensor:
    """Causal attention of q [n, heads, D], at positions start…, over padded keys [T, kv, D]; [n, heads, D] float32."""
    count, heads, width = q.shape
    kv_heads = keys.shape[1]
    rows = -(-count // ROWS) * ROWS
    padded = torch.zeros(rows, heads, width)
    padded[:count] = q.float()
    blocks = rows // ROWS
    # [blocks, kv, repeats · 16, D]: every product below is 48 (for three repeats) × D × 128, never another shape.
    q5 = padded.view(blocks, ROWS, kv_heads, heads // kv_heads, width).permute(0, 2, 3, 1, 4)
    q4 = q5.reshape(blocks, kv_heads, -1, width)
    at = start + torch.arange(rows).view(blocks, 1, 1, ROWS)
    best = torch.full((*q4.shape[:3], 1), float("-inf"))
    total = torch.zeros_like(best)
    acc = torch.zeros_like(q4)
    for first in range(0, keys.shape[0], _KEYS):
        k = keys[first : first + _KEYS].permute(1, 2, 0).contiguous().expand(blocks, -1, -1, -1)
        v = values[first : first + _KEYS].transpose(0, 1).contiguous().expand(blocks, -1, -1, -1)
        scores = torch.matmul(q4, k).mul_(scale)
        distance = at.unsqueeze(-1) - (first + torch.arange(_KEYS))
        hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
        shape = (blocks, kv_heads, heads // kv_heads, ROWS, _KEYS)
        scores = scores.view(shape).masked_fill(hidden, float("-inf")).view(scores.shape)
        peak = torch.maximum(best, scores.amax(-1, keepdim=True))
        finite = peak.clamp_min(torch.finfo(torch.float32).min)
        weights = (scores - finite).exp_()
        shrink = (best - finite).exp_()
        total = total * shrink + weights.sum(-1, keepdim=True)
        acc = acc * shrink + torch.matmul(weights, v)
        best = peak
    out = (acc / total).view(blocks, kv_heads, heads // kv_heads, ROWS, width)
    return out.permute(0, 3, 1, 2, 4).reshape(rows, heads, width)[:count]


def check_rows(weight: Tensor) -> None:
    """Check on a real weight [out, in] that a product's rows depend on nothing but themselves: not on how many rows
    there are, nor on where they stand among them.

    Raises UserError where they do: exact mode cannot be had on this machine with this build.
    """
    x = torch.randn(256, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight.dtype)
    expected = torch.cat([torch.nn.functional.linear(part, weight) for part in x.split(ROWS)])
    for rows in range(ROWS, len(x) + 1, ROWS):
        got = torch.nn.functional.linear(x[:rows], weight)
        if not torch.equal(got, expected[:rows]):
            raise UserError(
                f"exact mode needs matrix products whose rows do not depend on their number; on this machine {rows} "
                f"rows round differently from {ROWS} in {weight.dtype}; run without exact, in another dtype, or "
                "(where AMX is the reason) with ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 in the environment",
                param="training.exact",
                code="exact_unsupported",
            )
