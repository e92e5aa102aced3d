"""The KV cache on its own: every key stands for exactly the prefix it was made from, through all moves."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from agentrft.engines.torch_cache import Block, KvCache, Tail, common_prefix

LAYERS, KV_HEADS, WIDTH = 2, 1, 2
TOKEN_BYTES = 2 * LAYERS * KV_HEADS * WIDTH * 4


def cache(max_tokens: int = 10_000) -> KvCache:
    return KvCache(
        n_layers=LAYERS,
        kv_shape=(KV_HEADS, WIDTH),
        dtype=torch.float32,
        device=torch.device("cpu"),
        max_bytes=max_tokens * TOKEN_BYTES,
    )


def code(prefix: Sequence[int]) -> float:
    """A number that stands for a prefix, as a key does."""
    return float(hash(tuple(prefix)) % 100_003)


def compute(block: Block) -> Block:
    """Fill a block as a pass would."""
    before = [token for b in block.path()[:-1] for token in b.tokens]
    for i in range(len(block.tokens)):
        block.keys[:, :, i] = code([*before, *block.tokens[: i + 1]])
        block.values[:, :, i] = -code([*before, *block.tokens[: i + 1]])
    block.done = len(block.tokens)
    return block


def held(block: Block | None) -> list[float]:
    """The codes along a path, in every layer alike."""
    parts = [] if block is None else block.path()
    for part in parts:
        assert part.done == len(part.tokens) == part.keys.shape[2] == part.values.shape[2]
        assert torch.equal(part.keys, -part.values)
        assert torch.equal(part.keys[0], part.keys[1])
    return [value for part in parts for value in part.keys[0, 0, :, 0].tolist()]


def codes(tokens: Sequence[int]) -> list[float]:
    return [code(tokens[: i + 1]) for i in range(len(tokens))]


def seat(kv: KvCache, tokens: Sequence[int], block: Block | None = None, shared: int = 0) -> Tail:
    """A sequence in a slot, all its own tokens computed."""
    slot = kv.take_slot(8)
    assert slot is not None
    tail = Tail(slot=slot, block=block, shared=shared, tokens=list(tokens))
    assert kv.reserve(len(tokens) - shared, [tail]) == 1
    for i in range(shared, len(tokens)):
        kv.keys[:, tail.slot, :, i - shared] = code(tokens[: i + 1])
        kv.values[:, tail.slot, :, i - shared] = -code(tokens[: i + 1])
    return tail


def own(kv: KvCache, tail: Tail) -> list[float]:
    length = len(tail.tokens) - tail.shared
    assert torch.equal(kv.keys[:, tail.slot, :, :length], -kv.values[:, tail.slot, :, :length])
    return kv.keys[1, tail.slot, 0, :length, 0].tolist()


A, B, C = list(range(10, 40)), list(range(50, 80)), list(range(80, 110))


def test_common_prefix() -> None:
    assert common_prefix([1, 2, 3], (1, 2, 4, 5)) == 2
    assert common_prefix([], [1]) == 0
    assert common_prefix([1, 2], [1, 2, 3]) == 2


def test_a_match_splits_a_block_and_keeps_what_hangs_on_it() -> None:
    kv = cache()
    root = compute(kv.new_block(tuple(A), None))
    child = compute(kv.new_block(tuple(B), root))
    upper, at = kv.match([*A[:12], 1, 2, 3], 15)
    assert (at, upper is not None and upper.tokens) == (12, tuple(A[:12]))
    assert held(upper) == codes(A[:12])
    # Who held the old block holds the lower part, at the same depth, and so does its child.
    assert root.tokens == tuple(A[12:])
    assert root.depth == 12
    assert held(root) == codes(A)
    assert held(child) == codes([*A, *B])
    assert kv.match([*A, *B, 7], 60) == (child, 60)
    assert kv.match([*A, *B[:20], 7], 51)[1] == 50
    assert held(child) == codes([*A, *B])
    assert kv.block_tokens() == len(A) + len(B)


def test_parts_of_a_split_block_own_their_memory() -> None:
    kv = cache()
    root = compute(kv.new_block(tuple(A), None))
    upper, _ = kv.match([*A[:10], 1], 11)
    assert upper is not None
    assert [b.keys.untyped_storage().nbytes() for b in (upper, root)] == [10 * 16, 20 * 16]


def test_a_match_stops_at_the_limit_and_at_what_is_not_computed() -> None:
    kv = cache()
    root = compute(kv.new_block(tuple(A), None))
    assert kv.match(A, 29) == (root.parent, 29)  # the limit splits: at least one token is left to feed
    assert kv.match([1, 2, 3], 2) == (None, 0)
    assert kv.match(A[:5], 4) == (None, 0)  # fewer than eight tokens spare less than another level costs
    half = kv.new_block(tuple(B), None)
    half.keys[:, :, :20], half.done = 1.0, 20
    assert kv.match([*B, 1], 31) == (None, 0)
    assert half.parent is None


@pytest.mark.parametrize("lengths", [range(1490, 10, -1), range(10, 1490)], ids=["falling", "rising"])
def test_paths_stay_short_however_many_prefixes_diverge(lengths: range) -> None:
    """Passes walk the tree by recursion, so a long path would end in a RecursionError."""
    kv = cache()
    long = [n % 97 for n in range(1500)]
    deepest = compute(kv.new_block(tuple(long), None))
    for length in lengths:
        kv.match([*long[:length], 999], length + 1)
    assert 60 < len(deepest.path()) <= 66
    assert held(deepest) == codes(long)


def test_an_idle_sequences_prefix_becomes_a_block() -> None:
    kv = cache()
    root = compute(kv.new_block(tuple(A), None))
    tail = seat(kv, [*A, *B], root, len(A))
    kv.park(tail)
    block = kv.promote(tail, len(A) + 12)
    assert block.parent is root
    assert held(block) == codes([*A, *B[:12]])
    assert own(kv, tail) == codes([*A, *B])[30:]  # it keeps its own copy


def test_slots_grow_without_moving_anyone() -> None:
    kv = cache()
    tails = [seat(kv, [*prompt, n]) for n, prompt in enumerate((A, B, C, A, B))]
    assert sorted(tail.slot for tail in tails) == [0, 1, 2, 3, 4]
    assert kv.reserve(500, tails) == 5
    assert kv.capacity >= 500
    for tail in tails:
        assert own(kv, tail) == codes(tail.tokens)


def test_over_budget_idle_sequences_go_first_the_longest_idle_before_the_others() -> None:
    kv = cache(max_tokens=400)
    tails = [seat(kv, prompt) for prompt in (A, B, C, [*A, 1], [*B, 2])]
    active, idle = tails[:2], tails[2:]
    for tail in idle:
        kv.park(tail)
    assert kv.n_slots == 6  # ⌊400 / 64⌋
    assert kv.reserve(100, active) == 2  # 4 slots of 100: two of the three idle ones stay
    assert kv.n_slots == 4
    assert sorted(kv.idle) == sorted(tail.slot for tail in idle[1:])
    for tail in [*active, *idle[1:]]:
        assert own(kv, tail) == codes(tail.tokens)
    assert kv.reserve(190, active) == 2  # 2 slots: nobody idle stays
    assert (kv.n_slots, kv.idle) == (2, {})
    assert kv.reserve(300, active) == 1  # the last to come gives way, one always stays
    assert own(kv, active[0]) == codes(A)
    assert kv.reserve(5000, active[:1]) == 1  # over budget rather than stuck
    assert own(kv, active[0]) == codes(A)


def test_a_slot_moves_its_own_when_others_are_given_up() -> None:
    kv = cache(max_tokens=400)
    tails = [seat(kv, prompt) for prompt in (A, B, C)]
    kv.release(tails[0])
    for tail in tails[1:]:
        kv.park(tail)
    kv.idle.pop(tails[2].slot)
    assert kv.reserve(200, [tails[2]]) == 1
    assert (tails[2].slot, tails[1].slot) == (0, 1)
    assert [own(kv, tails[2]), own(kv, tails[1])] == [codes(C), codes(B)]
    assert kv.take_slot(8) == 1  # the idle one is asked to leave
    assert kv.take_slot(8) is None


def test_a_full_cache_grows_in_steps() -> None:
    kv = cache(max_tokens=1000)
    tails = [seat(kv, A) for _ in range(8)]
    moves, last = 0, kv.capacity
    for tokens in range(64, 500):
        kept = kv.reserve(tokens, tails)
        tails = tails[:kept]
        moves += kv.capacity != last
        last = kv.capacity
        assert kv.n_slots * kv.capacity <= 1000
    assert moves < 25
    assert len(tails) == 2


def test_leaves_go_oldest_first_and_nothing_that_is_used() -> None:
    kv = cache(max_tokens=64 + 100)  # one slot of 64, 100 tokens of blocks
    root = compute(kv.new_block(tuple(A), None))
    old = compute(kv.new_block(tuple(B), root))
    used = compute(kv.new_block(tuple(C), root))
    other = compute(kv.new_block(tuple(range(200, 230)), None))
    assert kv.block_tokens() == 120
    kv.match([*A, *B], 60)  # `old` was just looked up, so `other` is the oldest unused leaf
    kv.evict_blocks({id(used)})
    assert [b for b in (old, used, other) if b in [*root.children, *kv.roots]] == [old, used]
    assert kv.block_tokens() == 90
    too_much = compute(kv.new_block(tuple(range(300, 390)), None))
    kv.evict_blocks({id(used), id(too_much)})
    assert kv.block_tokens() == 150  # over budget: the rest is in use, its parent included
    assert held(used) == codes([*A, *C])
    kv.evict_blocks(set())
    assert kv.block_tokens() <= 100


def test_idle_sequences_hold_their_blocks_until_memory_is_short() -> None:
    kv = cache(max_tokens=64 + 40)
    root = compute(kv.new_block(tuple(A), None))
    kv.park(seat(kv, [*A, 1, 2], root, len(A)))
    kv.evict_blocks(set())
    assert kv.roots == [root]
    second = compute(kv.new_block(tuple(B), None))
    kv.evict_blocks({id(second)})
    assert (kv.roots, kv.idle) == ([second], {})


def test_clear_forgets_everything_and_frees_every_slot() -> None:
    kv = cache()
    root = compute(kv.new_block(tuple(A), None))
    active, idle = seat(kv, [*A, 1], root, len(A)), seat(kv, B)
    kv.park(idle)
    kv.clear()
    assert (kv.roots, kv.idle, kv.block_tokens()) == ([], {}, 0)
    slots = [kv.take_slot(kv.n_slots) for _ in range(kv.n_slots)]
    assert sorted(slot for slot in slots if slot is not None) == list(range(kv.n_slots))
    assert active.slot in slots
    assert kv.take_slot(kv.n_slots) is None


def test_a_stack_is_blocks_side_by_side_remembered_while_it_is_asked_for() -> None:
    kv = cache()
    long, short = compute(kv.new_block(tuple(A), None)), compute(kv.new_block(tuple(B[:9]), None))
    (stack,) = kv.stacks([[long, short]])
    assert stack.keys.shape == (LAYERS, 2 * KV_HEADS, len(A), WIDTH)
    assert stack.keys[1, :, :, 0].tolist() == [codes(A), codes(B[:9]) + [0.0] * (len(A) - 9)]
    assert torch.equal(stack.values, -stack.keys)
    assert kv.stacks([[short], [long, short]])[1] is stack
    assert kv.stacks([[long, short]])[0] is stack
    upper, _ = kv.match([*A[:10], 1], 11)  # the lower part is the same object with other tokens
    assert upper is not None
    assert kv.stacks([[long, short]])[0].keys[1, 0, :, 0].tolist() == codes(A)[10:]
    assert kv.stacks([]) == []
    assert kv.stacks([[long, short]])[0] is not stack


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_clear_leaves_nothing_that_is_not_a_number(bad: float) -> None:
    kv = cache()
    tail = seat(kv, A)
    kv.keys[:, tail.slot, :, 3] = bad
    kv.values[:, tail.slot, :, 3] = bad
    kv.clear()
    assert bool(torch.isfinite(kv.keys).all())
    assert bool(torch.isfinite(kv.values).all())
