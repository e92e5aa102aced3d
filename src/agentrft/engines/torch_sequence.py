"""Requests on their way through the generator, and the slots that they share while they are alike.

The members of a group start alike, and often go on alike: the same first call, the same tool result. Sequences with the
same tokens share one slot and are computed once; each draws from the same logits with its own seed. Once they draw
different tokens they part, each with a copy of the slot.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence as Listed
from dataclasses import dataclass, field

from agentrft.engines.torch_adapters import Adapter
from agentrft.engines.torch_cache import KvCache, Policy, Tail
from agentrft.engines.torch_constraint import Guide
from agentrft.protocols import Chunk, GenerateRequest


@dataclass(slots=True, eq=False)
class Sequence:
    """One request: its tokens so far, and where their keys and values are."""

    request: GenerateRequest
    loop: asyncio.AbstractEventLoop
    tokens: list[int]
    uniforms: random.Random
    chunks: asyncio.Queue[Chunk | Exception] = field(default_factory=asyncio.Queue)
    tail: Tail | None = None
    """None while it waits."""
    done: int = 0
    """Tokens whose KV is in the cache."""
    cancelled: bool = False
    finished: bool = False
    """Its last token is drawn, or it failed."""
    failed: bool = False
    adapter: Adapter | None = None
    guide: Guide | None = None
    """Holds it to its constraint."""
    cached: int | None = None
    """Tokens of the request whose KV was there when it was first seated; None before."""

    @property
    def policy(self) -> Policy:
        return None if self.adapter is None else (self.adapter.name, self.adapter.version)

    @property
    def new_tokens(self) -> int:
        return len(self.tokens) - len(self.request.tokens)


def by_tail(sequences: Listed[Sequence]) -> dict[int, list[Sequence]]:
    """Sequences that share a slot, by id() of their tail, in order."""
    alike: dict[int, list[Sequence]] = {}
    for sequence in sequences:
        alike.setdefault(id(sequence.tail), []).append(sequence)
    return alike


def join(newcomers: Listed[Sequence], cache: KvCache) -> None:
    """Let newcomers with the same tokens share the slot of the one that has the most of them computed."""
    first: dict[tuple[Policy, tuple[int, ...]], Sequence] = {}
    for sequence in sorted(newcomers, key=computed, reverse=True):
        other = first.setdefault((sequence.policy, tuple(sequence.tokens)), sequence)
        if other is not sequence:
            move(sequence, other, cache)


def computed(sequence: Sequence) -> int:
    """Tokens whose KV is there already; a block that was only just made counts as computed in `done`."""
    block = None if sequence.tail is None else sequence.tail.block
    path = [] if block is None else block.path()
    return sequence.done - sum(len(part.tokens) - part.done for part in path)


def part(sequence: Sequence, cache: KvCache, max_slots: int) -> bool:
    """A slot of its own for `sequence`, with the same content; False, and no slot, when there is none."""
    tail = sequence.tail
    assert tail is not None
    if tail.holders == 1:
        return True
    done = sequence.done
    copy = cache.fork(tail, done, max_slots)
    leave(sequence, cache)
    if copy is not None:
        sequence.tail, sequence.done = copy, done
    return copy is not None


def move(sequence: Sequence, other: Sequence, cache: KvCache) -> None:
    """Leave the slot for that of `other`, which has the same tokens."""
    leave(sequence, cache)
    sequence.tail, sequence.done = other.tail, other.done
    if other.tail is not None:
        other.tail.holders += 1


def leave(sequence: Sequence, cache: KvCache) -> None:
    """Give the slot up; it is free once nobody holds it."""
    if sequence.tail is not None:
        sequence.tail.holders -= 1
        if sequence.tail.holders == 0:
            cache.release(sequence.tail)
    sequence.tail, sequence.done = None, 0
