"""Attention over a forest of token segments, exact, without padding or copies of shared keys.

Tokens of a pass are laid out depth first, so the descendants of a segment are one contiguous range. Every token
attends to its own segment causally and to each ancestor segment in full: 2 · segments pieces of plain attention, whose
partial results are merged by their log-sum-exp. Backward goes piece by piece too, with each piece's weights scaled by
its part of the whole (the identity that ring attention uses), which gives the exact gradient.

Layout: the model's queries are [N, heads, D], keys and values [N, kv_heads, D]. Here the query heads that share a key
head are *folded* into rows, [kv_heads, N · heads / kv_heads, D], so that a run of tokens is a view of a plain batched
product. Scores are float32, the other products in the model's own type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_SCORES = 4 << 20
"""Scores computed at once: 16 MB, about a processor's cache."""
_CAUSAL_ROWS = 256
"""Queries of a causal block: half of what it computes is hidden, so long segments are cut."""
_KEPT = 2 << 20
"""Weights of one layer kept for backward instead of computed again: up to 8 MB in float32."""
UNSEEN = -1.0e9
"""Added to the score of a pair that may not attend; finite, so that a row that sees nothing stays a number."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Queries [q0, q1) attend to keys [k0, k1): causally where the ranges overlap, in full otherwise."""

    q0: int
    q1: int
    k0: int
    k1: int

    @property
    def is_causal(self) -> bool:
        return self.k1 > self.q0

    def split(self, heads: int) -> list[Piece]:
        """The same in blocks of queries; no block has keys that none of its queries may see."""
        if not self.is_causal:
            return [Piece(*rows, self.k0, self.k1) for rows in row_blocks(self.q0, self.q1, self.k1 - self.k0, heads)]
        rows_at_most = row_blocks(self.q0, self.q1, self.k1 - self.k0, heads, _CAUSAL_ROWS)
        return [Piece(q0, q1, self.k0, q1) for q0, q1 in rows_at_most]


def row_blocks(q0: int, q1: int, keys: int, heads: int, most: int = _SCORES) -> list[tuple[int, int]]:
    """Queries [q0, q1) in blocks of at most `most`, with no more than `_SCORES` scores each if it can be helped."""
    step = min(max(1, _SCORES // (heads * keys)), most)
    return [(start, min(start + step, q1)) for start in range(q0, q1, step)]


def fold(x: Tensor, kv_heads: int, dtype: torch.dtype) -> Tensor:
    """[N, heads, D] → [kv_heads, N · heads / kv_heads, D], a contiguous copy."""
    length, heads, width = x.shape
    folded = torch.empty(kv_heads, length, heads // kv_heads, width, dtype=dtype, device=x.device)
    folded.copy_(x.view(length, kv_heads, -1, width).transpose(0, 1))
    return folded.view(kv_heads, -1, width)


def unfold(x: Tensor, length: int, dtype: torch.dtype, *, padded: int | None = None) -> Tensor:
    """The opposite of `fold`; with `padded` that many rows, zeros behind the last."""
    kv_heads, rows, width = x.shape
    unfolded = torch.empty(padded or length, kv_heads, rows // length, width, dtype=dtype, device=x.device)
    unfolded[:length].copy_(x.view(kv_heads, length, -1, width).transpose(0, 1))
    if padded is not None:
        unfolded[length:].zero_()
    return unfolded.view(len(unfolded), -1, width)


def bias_of(q_positions: Tensor, k_positions: Tensor, window: int | None) -> Tensor | None:
    """What to add to scores so that no query sees later keys or keys `window` or more before it.

    [queries, 1, keys] float32, or None where every query may see every key. Positions are int64 on the CPU.
    """
    longest = int(q_positions.max()) - int(k_positions.min())
    is_earlier = int(q_positions.min()) >= int(k_positions.max())
    if is_earlier and (window is None or longest < window):
        return None
    distance = q_positions[:, None] - k_positions[None, :]
    hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
    return torch.zeros(distance.shape).masked_fill_(hidden, UNSEEN).unsqueeze(1)


def weights_of(q: Tensor, k: Tensor, bias: Tensor | None, rows: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Softmax of folded, scaled queries q [B, M, D] over keys k [B, T, D], both float32.

    `bias` is added to the scores seen as [*rows, T]. Returns weights [B, M, T] and their log-sum-exp [B, M, 1].
    """
    scores = torch.bmm(q, k.mT)
    if bias is not None:
        scores.view(*rows, scores.shape[-1]).add_(bias)
    weights = torch.softmax(scores, -1)
    return weights, scores.amax(-1, keepdim=True) - weights.amax(-1, keepdim=True).log_()


def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> None:
    """Fold a further partial result into `out` [kv, rows, D] and `lse` [kv, rows, 1], in place."""
    out.lerp_(more.float(), (more_lse - lse).sigmoid_())
    torch.logaddexp(lse, more_lse, out=lse)


_Block = tuple[Piece, "Tensor | None", bool]
"""A piece in one block, its bias, and whether its rows' results start with it."""


class _ForestAttention(Function):
    """Attention of a whole pass, block by block; what starts a row's result comes before what adds to it."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, blocks: Sequence[_Block], scale: float) -> Tensor:
        length, kv_heads = k.shape[:2]
        repeats = q.shape[1] // kv_heads
        q32, k32 = fold(q, kv_heads, torch.float32).mul_(scale), fold(k, kv_heads, torch.float32)
        values = fold(v, kv_heads, v.dtype)
        out = torch.empty_like(q32)
        lse = torch.empty(*q32.shape[:2], 1, dtype=torch.float32, device=q.device)
        keep = q.shape[1] * sum((p.q1 - p.q0) * (p.k1 - p.k0) for p, _, _ in blocks) <= _KEPT
        ctx.kept = []
        for p, bias, is_first in blocks:
            rows, keys = slice(p.q0 * repeats, p.q1 * repeats), slice(p.k0, p.k1)
            weights, part_lse = weights_of(q32[:, rows], k32[:, keys], bias, (kv_heads, -1, repeats))
            weights = weights.to(v.dtype)
            part = torch.bmm(weights, values[:, keys])
            if keep:
                ctx.kept.append((weights, part_lse))
            if is_first:
                out[:, rows], lse[:, rows] = part, part_lse
            else:
                merge(out[:, rows], lse[:, rows], part, part_lse)
        merged = unfold(out, length, q.dtype)
        ctx.save_for_backward(q, k, v, merged, lse)
        ctx.blocks, ctx.scale = blocks, scale
        return merged

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (grad,) = grad_outputs
        q, k, v, merged, lse = ctx.saved_tensors
        length, kv_heads = k.shape[:2]
        repeats, dtype = q.shape[1] // kv_heads, q.dtype
        q32, k32 = fold(q, kv_heads, torch.float32).mul_(ctx.scale), fold(k, kv_heads, torch.float32)
        q_own, k_own, v_own = q32.to(dtype), k32.to(dtype), fold(v, kv_heads, dtype)
        kept = iter(ctx.kept)
        ctx.kept = []
        grad32 = fold(grad, kv_heads, torch.float32)
        dot = (grad32 * fold(merged, kv_heads, torch.float32)).sum(-1, keepdim=True)
        dq, dk, dv = torch.zeros_like(q32), torch.zeros_like(k32), torch.zeros_like(k32)
        for p, bias, _ in ctx.blocks:
            rows, keys = slice(p.q0 * repeats, p.q1 * repeats), slice(p.k0, p.k1)
            weights, part_lse = next(kept, None) or weights_of(
                q32[:, rows], k32[:, keys], bias, (kv_heads, -1, repeats)
            )
            share = (part_lse - lse[:, rows]).exp_()
            part_grad = (grad32[:, rows] * share).to(dtype)
            dv[:, keys] += torch.bmm(weights.to(dtype).mT, part_grad)
            grad_scores = torch.bmm(part_grad, v_own[:, keys].mT) - dot[:, rows] * share
            grad_scores = grad_scores.mul_(weights).to(dtype)
            dq[:, rows] += torch.bmm(grad_scores, k_own[:, keys])
            dk[:, keys] += torch.bmm(grad_scores.mT, q_own[:, rows])
        dq, dk, dv = (unfold(x, length, dtype) for x in (dq.mul_(ctx.scale), dk, dv))
        return dq, dk, dv, None, None


class ForestAttention:
    """What a training pass hands to the model: attention over the segments of `pieces`."""

    def __init__(self, pieces: Sequence[Piece], positions: Tensor) -> None:
        """`pieces`: every token's own segment before its ancestors; `positions` [N] int64."""
        self._pieces = pieces
        self._positions = positions.cpu()
        self._device = positions.device
        self._blocks: dict[int | None, list[_Block]] = {}

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        """Attention output [N, heads, D] of queries [N, heads, D] and keys, values [N, kv_heads, D]."""
        if window not in self._blocks:
            self._blocks[window] = self._prepare(q.shape[1], window)
        return _ForestAttention.apply(q, k, v, self._blocks[window], scale)

    def _prepare(self, heads: int, window: int | None) -> list[_Block]:
        blocks: list[_Block] = []
        for piece in [block for whole in self._pieces for block in whole.split(heads)]:
            bias = bias_of(self._positions[piece.q0 : piece.q1], self._positions[piece.k0 : piece.k1], window)
            blocks.append((piece, None if bias is None else bias.to(self._device), piece.is_causal))
        return blocks
