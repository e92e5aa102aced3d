"""Attention over a forest of token segments, exact, without masks, padding or copies of shared keys.

Tokens of a pass are laid out depth first, so the descendants of a segment are one contiguous range. Every token
attends to its own segment causally and to each ancestor segment in full: 2 · segments calls of a plain attention
kernel ("pieces"), whose partial results are merged by their log-sum-exp. Handing the merged output and log-sum-exp
back to each piece's backward gives the exact gradient (the identity that ring attention uses).

Layout: queries [N, heads, D], keys and values [N, kv_heads, D]. Query heads that share a key head are folded into a
kernel's head dimension over an expanded (not copied) key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_FLASH = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_FLASH_BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, slots=True)
class Piece:
    """Queries [q0, q1) attend to keys [k0, k1): causally when the ranges are equal, in full otherwise."""

    q0: int
    q1: int
    k0: int
    k1: int

    @property
    def causal(self) -> bool:
        return self.q0 == self.k0


def heads_first(x: Tensor, kv_heads: int) -> Tensor:
    """[L, heads, D] → view [kv_heads, heads / kv_heads, L, D]."""
    length, heads, width = x.shape
    return x.view(length, kv_heads, heads // kv_heads, width).permute(1, 2, 0, 3)


def _expand(x: Tensor, repeats: int) -> Tensor:
    """[L, kv_heads, D] → view [kv_heads, repeats, L, D]."""
    return x.permute(1, 0, 2).unsqueeze(1).expand(-1, repeats, -1, -1)


def visible(q_positions: Tensor, k_positions: Tensor, *, causal: bool, window: int | None) -> Tensor | None:
    """Boolean [Lq, Lk] of the pairs that may attend, or None when all (or, causally, the usual triangle) may."""
    if window is None or int(q_positions.max()) - int(k_positions.min()) < window:
        return None
    distance = q_positions[:, None] - k_positions[None, :]
    seen = distance < window
    return seen & (distance >= 0) if causal else seen


def piece_forward(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float, causal: bool, seen: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Partial attention of q [Lq, heads, D] over k, v [Lk, kv_heads, D].

    Returns output [kv_heads, repeats, Lq, D] and log-sum-exp [kv_heads, repeats, Lq] (float32, −inf where a query
    sees none of these keys).
    """
    q4 = heads_first(q, k.shape[1])
    k4, v4 = _expand(k, q4.shape[1]), _expand(v, q4.shape[1])
    if q.device.type == "cpu" and seen is None:
        return _FLASH(q4, k4, v4, 0.0, causal, scale=scale)
    scores = _scores(q4, k4, scale, causal, seen)
    peak = scores.amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).min)
    weights = (scores - peak).exp()
    total = weights.sum(-1, keepdim=True)
    out = (weights / total.clamp_min(torch.finfo(torch.float32).tiny)).to(v.dtype) @ v4
    return out, (peak + total.log()).squeeze(-1)


def _piece_backward(
    qkv: tuple[Tensor, Tensor, Tensor],
    merged: tuple[Tensor, Tensor, Tensor],
    *,
    scale: float,
    causal: bool,
    seen: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of one piece: dq as q4, dk and dv summed over repeats, [kv, L, D].

    `merged` are, for the piece's queries: the gradient of the whole output, that output, and its log-sum-exp.
    """
    q, k, v = qkv
    grad, out, lse = merged
    q4 = heads_first(q, k.shape[1])
    k4, v4 = _expand(k, q4.shape[1]), _expand(v, q4.shape[1])
    if q.device.type == "cpu" and seen is None:
        dq, dk, dv = _FLASH_BACKWARD(grad, q4, k4, v4, out, lse, 0.0, causal, scale=scale)
        return dq, dk.sum(1), dv.sum(1)
    weights = (_scores(q4, k4, scale, causal, seen) - lse.unsqueeze(-1)).exp()
    grad32 = grad.float()
    grad_scores = weights * (grad32 @ v4.float().mT - (grad32 * out.float()).sum(-1, keepdim=True)) * scale
    dq = grad_scores @ k4.float()
    return dq, (grad_scores.mT @ q4.float()).sum(1), (weights.mT @ grad32).sum(1)


def _scores(q4: Tensor, k4: Tensor, scale: float, causal: bool, seen: Tensor | None) -> Tensor:
    scores = (q4.float() @ k4.float().mT) * scale
    if seen is None and causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril_()
    return scores if seen is None else scores.masked_fill(~seen, float("-inf"))


def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> None:
    """Fold a further partial result into `out` and `lse`, in place (all [kv_heads, repeats, L, …])."""
    total = torch.logaddexp(lse, more_lse)
    out.mul_((lse - total).exp_().unsqueeze(-1)).addcmul_(more, (more_lse - total).exp_().unsqueeze(-1).to(out.dtype))
    lse.copy_(total)


class _ForestAttention(Function):
    """Attention of a whole pass; pieces cover every token's own segment first, then its ancestors."""

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, pieces: Sequence[Piece], positions: Tensor, spec: tuple
    ) -> Tensor:
        scale, window = spec
        length, heads, width = q.shape
        kv_heads = k.shape[1]
        out = torch.empty(length, heads, width, dtype=torch.float32, device=q.device)
        lse = torch.empty(kv_heads, heads // kv_heads, length, dtype=torch.float32, device=q.device)
        out4 = heads_first(out, kv_heads)
        seen_by_piece: list[Tensor | None] = []
        for p in pieces:
            seen = visible(positions[p.q0 : p.q1], positions[p.k0 : p.k1], causal=p.causal, window=window)
            seen_by_piece.append(seen)
            part, part_lse = piece_forward(
                q[p.q0 : p.q1], k[p.k0 : p.k1], v[p.k0 : p.k1], scale=scale, causal=p.causal, seen=seen
            )
            if p.causal:
                out4[:, :, p.q0 : p.q1] = part
                lse[:, :, p.q0 : p.q1] = part_lse
            else:
                merge(out4[:, :, p.q0 : p.q1], lse[:, :, p.q0 : p.q1], part, part_lse)
        out = out.to(q.dtype)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.pieces, ctx.scale, ctx.seen = pieces, scale, seen_by_piece
        return out

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None, None]:
        (grad,) = grad_outputs
        q, k, v, out, lse = ctx.saved_tensors
        kv_heads = k.shape[1]
        dq, dk, dv = (torch.zeros(x.shape, dtype=torch.float32, device=x.device) for x in (q, k, v))
        dq4, out4, grad4 = (heads_first(x, kv_heads) for x in (dq, out, grad))
        for p, seen in zip(ctx.pieces, ctx.seen, strict=True):
            rows = slice(p.q0, p.q1)
            part_q, part_k, part_v = _piece_backward(
                (q[rows], k[p.k0 : p.k1], v[p.k0 : p.k1]),
                (grad4[:, :, rows], out4[:, :, rows], lse[:, :, rows]),
                scale=ctx.scale,
                causal=p.causal,
                seen=seen,
            )
            dq4[:, :, rows] += part_q
            dk[p.k0 : p.k1] += part_k.transpose(0, 1)
            dv[p.k0 : p.k1] += part_v.transpose(0, 1)
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None, None


class ForestAttention:
    """What a training pass hands to the model: attention over the segments of `pieces`."""

    def __init__(self, pieces: Sequence[Piece], positions: Tensor) -> None:
        """`pieces`: every token's causal piece before any full piece that touches it; `positions` [N] int64."""
        self._pieces = pieces
        self._positions = positions

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        """Attention output [N, heads, D] of queries [N, heads, D] and keys, values [N, kv_heads, D]."""
        return _ForestAttention.apply(q, k, v, self._pieces, self._positions, (scale, window))
