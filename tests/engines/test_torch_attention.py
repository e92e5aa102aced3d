"""Attention over a forest against one big masked softmax: outputs and gradients, windows, every kernel path."""

from __future__ import annotations

import pytest
import torch
from row_cases import CASES, group_rows
from torch import Tensor

from agentrft.engines import torch_attention
from agentrft.engines.prefix_tree import lay_out
from agentrft.engines.torch_attention import (
    UNSEEN,
    ForestAttention,
    Piece,
    bias_of,
    fold,
    merge,
    unfold,
    weights_of,
)
from agentrft.engines.torch_learner import pieces_of
from agentrft.types import Row

HEADS, KV_HEADS, WIDTH = 6, 2, 8


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def dense(q: Tensor, k: Tensor, v: Tensor, seen: Tensor, scale: float) -> Tensor:
    """Plain masked attention of q [N, heads, D] over k, v [N, kv_heads, D]."""
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = torch.einsum("qhd,khd->hqk", q, k) * scale
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~seen, float("-inf")).softmax(-1), v)


def ancestry(rows: list[Row], positions: Tensor, window: int | None) -> Tensor:
    """[N, N]: which token may see which, from the layout's segments alone."""
    segments = lay_out(rows).segments
    size = len(positions)
    seen = torch.zeros(size, size, dtype=torch.bool)
    for s in segments:
        own = torch.ones(s.end - s.start, s.end - s.start, dtype=torch.bool).tril()
        seen[s.start : s.end, s.start : s.end] = own
        seen[s.end : s.subtree_end, s.start : s.end] = True
    if window is not None:
        seen &= positions[:, None] - positions[None, :] < window
    return seen


@pytest.mark.parametrize("window", [None, 1, 5, 40])
@pytest.mark.parametrize("case", ["groups", *CASES])
def test_a_forest_is_one_masked_softmax(case: str, window: int | None) -> None:
    rows = group_rows(seed=1) if case == "groups" else CASES[case]
    forest = lay_out(rows)
    positions = torch.from_numpy(forest.positions)
    shapes = ((len(positions), heads, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS))
    q, k, v = (random(*shape, seed=n).requires_grad_() for n, shape in enumerate(shapes))
    weights = random(len(positions), HEADS, WIDTH, seed=9)

    expected = dense(q, k, v, ancestry(rows, positions, window), 0.3)
    wanted = torch.autograd.grad((expected * weights).sum(), (q, k, v))
    got = ForestAttention(pieces_of(forest), positions)(0, q, k, v, 0.3, window)
    found = torch.autograd.grad((got * weights).sum(), (q, k, v))
    assert torch.allclose(got, expected, atol=1e-5)
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("window", [None, 3])
def test_long_segments_are_computed_in_blocks_and_twice(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    length = 23
    shapes = ((length, heads, WIDTH) for heads in (HEADS, KV_HEADS, KV_HEADS))
    q, k, v = (random(*shape, seed=n).requires_grad_() for n, shape in enumerate(shapes))
    weights = random(length, HEADS, WIDTH, seed=9)
    pieces, positions = [Piece(0, length, 0, length)], torch.arange(length)
    whole = ForestAttention(pieces, positions)(0, q, k, v, 0.3, window)
    wanted = torch.autograd.grad((whole * weights).sum(), (q, k, v))
    monkeypatch.setattr(torch_attention, "_SCORES", 4 * HEADS * length)
    monkeypatch.setattr(torch_attention, "_KEPT", 0)
    assert [(p.q0, p.q1, p.k1) for p in pieces[0].split(HEADS)] == [
        *((at, at + 4, at + 4) for at in range(0, 20, 4)),
        (20, 23, 23),
    ]
    blocks = ForestAttention(pieces, positions)(0, q, k, v, 0.3, window)
    found = torch.autograd.grad((blocks * weights).sum(), (q, k, v))
    assert torch.allclose(blocks, whole, atol=1e-6)
    for mine, theirs in zip(found, wanted, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)


def test_folding_and_back() -> None:
    x = random(5, HEADS, WIDTH, seed=1)
    folded = fold(x, KV_HEADS, torch.float32)
    assert torch.equal(folded[1, 4], x[1, 4])  # token 1, second of three heads of the second key head
    assert torch.equal(unfold(folded, 5, torch.float32), x)


def test_parts_merge_to_the_whole_even_when_one_sees_nothing() -> None:
    q, k, v = random(2, 15, WIDTH, seed=1), random(2, 9, WIDTH, seed=2), random(2, 9, WIDTH, seed=3)

    def part(keys: slice, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
        weights, lse = weights_of(q, k[:, keys], bias, (2, -1, 3))
        return weights @ v[:, keys], lse

    whole, whole_lse = part(slice(9))
    out, lse = part(slice(4))
    merge(out, lse, *part(slice(9), torch.full((5, 1, 9), UNSEEN)))
    merge(out, lse, *part(slice(4, 9)))
    assert torch.allclose(out, whole, atol=1e-6)
    assert torch.allclose(lse, whole_lse, atol=1e-6)


def test_a_bias_is_made_only_where_something_is_hidden() -> None:
    at = torch.arange(10)
    assert bias_of(at[8:], at[:8], None) is None
    assert bias_of(at[8:], at[:8], 10) is None
    causal = bias_of(at, at, None)
    assert causal is not None
    assert ((causal == 0)[:, 0] == torch.ones(10, 10).tril()).all()
    windowed = bias_of(at, at, 3)
    assert windowed is not None
    assert (windowed == 0).sum(2)[:, 0].tolist() == [1, 2, 3, 3, 3, 3, 3, 3, 3, 3]
    later = bias_of(at[8:], at[:8], 3)
    assert later is not None
    assert (later == 0).int().tolist() == [[[0, 0, 0, 0, 0, 0, 1, 1]], [[0, 0, 0, 0, 0, 0, 0, 1]]]
