"""Attention over a forest against one big masked softmax: outputs and gradients, windows, every kernel path."""

from __future__ import annotations

import pytest
import torch
from row_cases import CASES, group_rows
from torch import Tensor

from agentrft.engines.prefix_tree import lay_out
from agentrft.engines.torch_attention import ForestAttention, merge, piece_forward, visible
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


@pytest.mark.parametrize("causal", [True, False])
def test_both_kernels_give_the_same(causal: bool) -> None:
    """The one without a mask, and the one with a mask that hides nothing (what devices other than CPUs use)."""
    q, k, v = random(7, HEADS, WIDTH, seed=1), random(7, KV_HEADS, WIDTH, seed=2), random(7, KV_HEADS, WIDTH, seed=3)
    everything = torch.ones(7, 7, dtype=torch.bool)
    out, lse = piece_forward(q, k, v, scale=0.3, causal=causal)
    masked, masked_lse = piece_forward(
        q, k, v, scale=0.3, causal=causal, seen=everything.tril() if causal else everything
    )
    assert torch.allclose(out, masked, atol=1e-6)
    assert torch.allclose(lse, masked_lse, atol=1e-6)


def test_parts_merge_to_the_whole_even_when_one_sees_nothing() -> None:
    q, k, v = random(5, HEADS, WIDTH, seed=1), random(9, KV_HEADS, WIDTH, seed=2), random(9, KV_HEADS, WIDTH, seed=3)
    whole, whole_lse = piece_forward(q, k, v, scale=0.3, causal=False)
    out, lse = (part.clone() for part in piece_forward(q, k[:4], v[:4], scale=0.3, causal=False))
    nothing = torch.zeros(5, 9, dtype=torch.bool)
    empty, empty_lse = piece_forward(q, k, v, scale=0.3, causal=False, seen=nothing)
    assert bool((empty_lse == float("-inf")).all())
    merge(out, lse, empty, empty_lse)
    merge(out, lse, *piece_forward(q, k[4:], v[4:], scale=0.3, causal=False))
    assert torch.allclose(out, whole, atol=1e-6)
    assert torch.allclose(lse, whole_lse, atol=1e-6)


def test_a_mask_is_made_only_where_the_window_matters() -> None:
    at = torch.arange(10)
    assert visible(at, at, causal=True, window=None) is None
    assert visible(at, at, causal=True, window=10) is None
    seen = visible(at, at, causal=True, window=3)
    assert seen is not None
    assert seen.sum(1).tolist() == [1, 2, 3, 3, 3, 3, 3, 3, 3, 3]
    later = visible(at[8:], at[:8], causal=False, window=3)
    assert later is not None
    assert later.int().tolist() == [[0, 0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 0, 1]]
