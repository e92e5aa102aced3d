"""Rows on the blocks of one level in one padded batch, against each block on its own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from agentrft.engines.torch_attention import bias_of, weights_of
from agentrft.engines.torch_cache import Block, KvCache
from agentrft.engines.torch_level import Level, OverBlock, by_level, index_of, taken

LAYERS, KV_HEADS, REPEATS, WIDTH = 2, 2, 3, 8
N_ROWS = 12


def cache(max_bytes: int = 1 << 20) -> KvCache:
    return KvCache(
        n_layers=LAYERS,
        kv_shape=(KV_HEADS, WIDTH),
        dtype=torch.float32,
        device=torch.device("cpu"),
        max_bytes=max_bytes,
    )


def block(kv: KvCache, length: int, parent: Block | None = None) -> Block:
    made = kv.new_block(tuple(range(length)), parent)
    noise = torch.Generator().manual_seed(length)
    made.keys.normal_(generator=noise)
    made.values.normal_(generator=noise)
    made.done = length
    return made


def over(start: int, end: int, on: Block) -> OverBlock:
    return OverBlock(start, end, on, len(on.tokens), on.depth)


def alone(queries: Tensor, one: OverBlock, positions: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
    """What the block's rows get without a batch."""
    at = torch.arange(one.first, one.first + one.tokens)
    bias = bias_of(positions[one.start : one.end], at, window)
    rows = queries[:, one.start * REPEATS : one.end * REPEATS]
    weights, lse = weights_of(rows, one.block.keys[1], bias, (KV_HEADS, -1, REPEATS))
    return weights @ one.block.values[1], lse


@pytest.mark.parametrize("window", [None, 25])
def test_a_level_is_its_blocks_whatever_their_sizes(window: int | None) -> None:
    kv = cache()
    root = block(kv, 9)
    level = [over(0, 3, block(kv, 20, root)), over(3, 4, block(kv, 31, root)), over(6, 11, block(kv, 25, root))]
    positions = torch.tensor([40 + 3 * n for n in range(N_ROWS)]) if window else torch.full((N_ROWS,), 60)
    queries = torch.randn(KV_HEADS, N_ROWS * REPEATS, WIDTH, generator=torch.Generator().manual_seed(1))
    (stack,) = kv.stacks([[one.block for one in level]])
    batch = Level(level, stack, positions, torch.device("cpu"))
    assert batch.spans == [(0, 4), (6, 11)]
    out, lse = batch.attend(1, queries, N_ROWS, window)
    expected = [alone(queries, one, positions, window) for one in level]
    seen = torch.cat([part for _, part in expected], 1) > -1e8  # rows that see nothing have weights of no meaning
    assert torch.allclose(out * seen, torch.cat([part for part, _ in expected], 1) * seen, atol=1e-6)
    assert torch.allclose(lse * seen, torch.cat([part for _, part in expected], 1) * seen, atol=1e-5)
    assert bool((lse[~seen] < -1e8).all())


def test_only_computed_blocks_of_like_size_go_together() -> None:
    kv = cache()
    root = block(kv, 10)
    near = [over(n, n + 1, block(kv, 20 + n, root)) for n in range(3)]
    below = over(3, 4, block(kv, 20, near[0].block))
    unfinished = over(4, 5, block(kv, 24, root))
    unfinished.block.done = 5
    everyone = over(0, 12, root)
    assert by_level([*near, below, unfinished, everyone], kv) == ([near], [below, unfinished, everyone])
    wide, long = over(5, 12, block(kv, 8, root)), over(4, 5, block(kv, 400, root))
    assert by_level([wide, long], kv) == ([], [wide, long])
    small = cache(max_bytes=8 * 3 * 22 * LAYERS * KV_HEADS * WIDTH * 8)
    assert by_level(near, small)[0] == [near]
    small = cache(max_bytes=8 * 3 * 22 * LAYERS * KV_HEADS * WIDTH * 8 - 8)
    assert by_level(near, small) == ([], near)


@pytest.mark.parametrize("numbers", [[0], [2, 3, 4], [4, 3], [0, 2], [1, 1]])
def test_what_follows_each_other_is_picked_without_a_copy(numbers: list[int]) -> None:
    x = torch.arange(30.0).view(3, 5, 2)
    got = taken(x, 1, index_of(numbers, x.device))
    assert torch.equal(got, x[:, numbers])
    shares = got.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
    assert shares == (numbers == list(range(numbers[0], numbers[0] + len(numbers))))
