"""Where a request's KV starts: an idle slot that holds its beginning, a shared block, or nothing.

Only KV of the same policy counts: what one adapter computed is never another's.
"""

from __future__ import annotations

from collections.abc import Sequence as Listed
from itertools import groupby

from agentrft.engines.torch_cache import Block, KvCache, Tail, common_prefix
from agentrft.engines.torch_sequence import Sequence

_MIN_SHARED_TOKENS = 8
"""Prefixes shorter than this are not worth a block of their own: a kernel call a layer costs about as much."""


def resume(sequence: Sequence, cache: KvCache) -> bool:
    """Take an idle slot over when all it holds is a prefix of this request."""
    best: Tail | None = None
    for tail in cache.idle.values():
        n = len(tail.tokens)
        if (
            tail.policy == sequence.policy
            and (best is None or n > len(best.tokens))
            and n < len(sequence.tokens)
            and sequence.tokens[:n] == tail.tokens
        ):
            best = tail
    if best is None or len(best.tokens) == best.shared:
        return False
    cache.idle.pop(best.slot)
    sequence.tail, sequence.done = best, len(best.tokens)
    return True


def seat(sequences: Listed[Sequence], cache: KvCache, *, room: int, max_slots: int) -> list[Sequence]:
    """Give slots to at most `room` new sequences and put their common prefixes into blocks."""
    seated: list[Sequence] = []
    for sequence in sequences[: max(room, 0)]:
        slot = cache.take_slot(max_slots)
        if slot is None:
            break
        sequence.tail = Tail(slot=slot, block=None, shared=0, tokens=[], policy=sequence.policy)
        seated.append(sequence)
    for sequence in seated:
        _reuse(sequence, cache)
    by_block: dict[tuple[int, object], list[Sequence]] = {}
    for sequence in seated:
        assert sequence.tail is not None
        by_block.setdefault((id(sequence.tail.block), sequence.policy), []).append(sequence)
    for members in by_block.values():
        _share(sorted(members, key=lambda s: s.tokens), cache)
    return seated


def _reuse(sequence: Sequence, cache: KvCache) -> None:
    """Start from the longest prefix already computed, in a block or in an idle slot."""
    assert sequence.tail is not None
    limit = len(sequence.tokens) - 1
    block, shared = cache.match(sequence.tokens, limit, sequence.policy)
    best, length = None, shared + _MIN_SHARED_TOKENS - 1
    for tail in cache.idle.values():
        if tail.policy != sequence.policy:
            continue
        n = min(common_prefix(tail.tokens, sequence.tokens), limit)
        if n > length and tail.shared <= shared:
            best, length = tail, n
    if best is not None and best.block is block:
        block, shared = cache.promote(best, length), length
    _place(sequence, block, shared)


def _share(members: list[Sequence], cache: KvCache) -> None:
    """Blocks for what `members` (under one block so far, sorted by tokens) have in common, level by level."""
    tail = members[0].tail
    assert tail is not None
    limit = min(len(s.tokens) for s in members) - 1
    common = min(common_prefix(members[0].tokens, members[-1].tokens), limit)
    if len(members) > 1 and common - tail.shared >= _MIN_SHARED_TOKENS:
        block = cache.new_block(tuple(members[0].tokens[tail.shared : common]), tail.block, tail.policy)
        for sequence in members:
            _place(sequence, block, common)
    longer = [s for s in members if len(s.tokens) - 1 > common]
    for _, branch in groupby(longer, key=lambda s: s.tokens[common]):
        alike = list(branch)
        if len(alike) > 1:
            _share(alike, cache)


def _place(sequence: Sequence, block: Block | None, shared: int) -> None:
    assert sequence.tail is not None
    sequence.tail.block, sequence.tail.shared = block, shared
    sequence.done = max(sequence.done, shared)
