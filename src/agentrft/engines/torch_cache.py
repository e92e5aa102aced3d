"""Where keys and values live between tokens: shared blocks for common prefixes, one slot for each sequence's own tail.

A *block* holds the KV of a prefix that several sequences have in common (a group's prompt, a system prompt); blocks
form a tree and are never copied. A *slot* holds what only one sequence has. After a reply a sequence stays in its slot,
idle, so that the next turn feeds the tool result's tokens only. Idle slots and unused blocks are evicted, oldest use
first, when room is needed; whatever was evicted is simply computed again. KV belongs to a *policy*: a served adapter in
one version, or None for the model's own weights; no policy ever reads another's.

Layout: keys and values [layers, …, kv_heads, tokens, head_width]. Everything here runs on the engine's thread.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

_CAPACITY_STEP = 64
"""Tokens by which slots grow; doubling would leave half of a large cache empty."""

_STACK_SHARE = 8
"""A stack may take this part of the budget, on top of it."""

_MIN_SPLIT_TOKENS = 8
"""A shorter upper part is not worth a level of its own."""
_MAX_LEVELS = 64
"""Blocks on one path, but for the few that new requests add below; passes walk the tree by recursion."""


Policy = tuple[str, int] | None
"""Whose KV it is: an adapter's name and version, or None for the model's own weights."""


@dataclass(slots=True, eq=False)
class Block:
    """KV of a shared run of tokens; `done` of them are computed."""

    tokens: tuple[int, ...]
    parent: Block | None
    keys: Tensor
    values: Tensor
    done: int = 0
    children: list[Block] = field(default_factory=list)
    last_used: int = 0
    policy: Policy = None

    @property
    def depth(self) -> int:
        """Tokens before this block."""
        return sum(len(block.tokens) for block in self.path()) - len(self.tokens)

    @property
    def height(self) -> int:
        """Levels of blocks from this one down to its deepest leaf."""
        levels, row = 0, [self]
        while row:
            levels, row = levels + 1, [child for block in row for child in block.children]
        return levels

    def path(self) -> list[Block]:
        """Blocks from the root to this one."""
        path: list[Block] = []
        node: Block | None = self
        while node is not None:
            path.append(node)
            node = node.parent
        return path[::-1]


@dataclass(slots=True, eq=False)
class Tail:
    """One sequence's place in the slots: which tokens its KV stands for."""

    slot: int
    block: Block | None
    """Deepest shared block; the slot holds what follows it."""
    shared: int
    """Tokens covered by blocks."""
    tokens: list[int]
    """All tokens with KV, shared ones included, when idle; maintained by the generator while active."""
    last_used: int = 0
    holders: int = 1
    """Sequences that use it: those with the same tokens share one."""
    policy: Policy = None


@dataclass(frozen=True, slots=True)
class Stack:
    """Several computed blocks side by side, padded with zeros, in the form that attention works in."""

    keys: Tensor
    """[layers, blocks · kv_heads, longest, D] float32."""
    values: Tensor
    """[layers, blocks · kv_heads, longest, D]."""
    of: tuple[Tensor, ...]
    """The blocks' own keys: while they live no other tensor can have their id()."""


def common_prefix(a: tuple[int, ...] | list[int], b: tuple[int, ...] | list[int]) -> int:
    """Length of the common prefix of two token lists."""
    limit = min(len(a), len(b))
    for index in range(limit):
        if a[index] != b[index]:
            return index
    return limit


class KvCache:
    """Blocks and slots of one model under one memory budget."""

    def __init__(
        self, *, n_layers: int, kv_shape: tuple[int, int], dtype: torch.dtype, device: torch.device, max_bytes: int
    ) -> None:
        self._n_layers = n_layers
        self._kv_shape = kv_shape
        self._like = {"dtype": dtype, "device": device}
        per_value = torch.empty((), dtype=dtype).element_size()
        self._token_bytes = 2 * n_layers * kv_shape[0] * kv_shape[1] * per_value
        self._max_bytes = max_bytes
        self._clock = 0
        self.roots: list[Block] = []
        self.idle: dict[int, Tail] = {}
        self.n_slots = 0
        self.capacity = 0
        self.keys = self.values = torch.empty(0)
        self._free: list[int] = []
        self._stacks: dict[tuple[int, ...], Stack] = {}
        self._resize(1, 64)

    def _shape(self, n: int | None, tokens: int) -> tuple[int, ...]:
        """Of one block's keys, or of `n` slots' or blocks'."""
        kv_heads, width = self._kv_shape
        return (self._n_layers, *(() if n is None else (n,)), kv_heads, tokens, width)

    def tick(self) -> int:
        """A fresh time stamp for recency."""
        self._clock += 1
        return self._clock

    def clear(self) -> None:
        """Forget all cached KV (the weights changed, a pass failed); every slot is free, whoever held it."""
        self.roots.clear()
        self.idle.clear()
        self._stacks.clear()
        self._free = list(range(self.n_slots))
        # What diverged weights left in a slot would spread: a masked position still takes part in products. Whatever
        # stops being a number in some layer has stopped being one in the last. Shapes differ when memory ran out
        # between moving the keys and moving the values.
        shape = self._shape(self.n_slots, self.capacity)
        is_sound = self.keys.shape == self.values.shape == shape and bool(torch.isfinite(self.values[-1]).all())
        if not is_sound:
            self.keys, self.values = torch.zeros(shape, **self._like), torch.zeros(shape, **self._like)

    # ---- blocks

    def new_block(self, tokens: tuple[int, ...], parent: Block | None, policy: Policy = None) -> Block:
        """An empty block under `parent`, which has the same policy; `evict_blocks` sees to the budget."""
        shape = self._shape(None, len(tokens))
        keys, values = torch.empty(shape, **self._like), torch.empty(shape, **self._like)
        block = Block(tokens=tokens, parent=parent, keys=keys, values=values, policy=policy)
        block.last_used = self.tick()
        (self.roots if parent is None else parent.children).append(block)
        return block

    def match(self, tokens: list[int], limit: int, policy: Policy = None) -> tuple[Block | None, int]:
        """The policy's deepest computed block that is a prefix of tokens[:limit], and its end.

        Splits a block when that spares enough tokens; paths stay short, since every level costs each pass a call.
        """
        node: Block | None = None
        at = 0
        for level in range(_MAX_LEVELS):
            best, length = None, 0
            for child in self.roots if node is None else node.children:
                if child.policy != policy:
                    continue
                n = min(common_prefix(child.tokens, tokens[at:limit]), child.done)
                if n > length:
                    best, length = child, n
            if best is None:
                return node, at
            if length < len(best.tokens):
                is_worth_it = length >= _MIN_SPLIT_TOKENS and level + best.height < _MAX_LEVELS
                if best.done < len(best.tokens) or not is_worth_it:
                    return node, at
                best = self._split(best, length)
            best.last_used = self.tick()
            node, at = best, at + length
        return node, at

    def _split(self, block: Block, length: int) -> Block:
        """Cut a block in two; sequences keep holding the lower part, the upper part is returned.

        Both parts are copies: views would keep the whole block in memory after either part was evicted.
        """
        upper = Block(
            tokens=block.tokens[:length],
            parent=block.parent,
            keys=block.keys[:, :, :length].clone(),
            values=block.values[:, :, :length].clone(),
            done=length,
            children=[block],
            last_used=block.last_used,
            policy=block.policy,
        )
        siblings = self.roots if block.parent is None else block.parent.children
        siblings[siblings.index(block)] = upper
        block.parent = upper
        block.tokens, block.done = block.tokens[length:], block.done - length
        block.keys, block.values = block.keys[:, :, length:].clone(), block.values[:, :, length:].clone()
        return upper

    def promote(self, tail: Tail, length: int) -> Block:
        """Copy the first tokens of an idle tail, up to `length`, into a shared block below the tail's own."""
        tokens = tuple(tail.tokens[tail.shared : length])
        block = self.new_block(tokens, tail.block, tail.policy)
        block.keys.copy_(self.keys[:, tail.slot, :, : len(tokens)])
        block.values.copy_(self.values[:, tail.slot, :, : len(tokens)])
        block.done = len(tokens)
        return block

    def block_tokens(self) -> int:
        """Tokens held in blocks."""
        return sum(len(block.tokens) for block in self._blocks())

    def _blocks(self) -> Iterator[Block]:
        stack = list(self.roots)
        while stack:
            block = stack.pop()
            yield block
            stack.extend(block.children)

    def evict_blocks(self, in_use: set[int]) -> None:
        """Drop least recently used leaf blocks until the budget holds; `in_use` are ids() of blocks under sequences."""
        room = self._max_bytes - self.n_slots * self.capacity * self._token_bytes
        while self.block_tokens() * self._token_bytes > max(room, 0):
            held = in_use | {id(tail.block) for tail in self.idle.values()}
            leaves = [b for b in self._blocks() if not b.children and id(b) not in held]
            if not leaves:
                if not self.idle:
                    return
                self.release(min(self.idle.values(), key=lambda tail: tail.last_used))
                continue
            victim = min(leaves, key=lambda b: b.last_used)
            (self.roots if victim.parent is None else victim.parent.children).remove(victim)

    def can_stack(self, blocks: Sequence[Block]) -> bool:
        """Whether a stack of `blocks` is small beside the budget."""
        n_values = len(blocks) * max(len(block.tokens) for block in blocks) * self._n_layers * math.prod(self._kv_shape)
        return n_values * (4 + self.keys.element_size()) <= self._max_bytes // _STACK_SHARE

    def stacks(self, groups: Sequence[Sequence[Block]]) -> list[Stack]:
        """Each group of computed blocks as a stack; those of the call before are reused, all others dropped."""
        stacks: dict[tuple[int, ...], Stack] = {}
        keys = [tuple(id(block.keys) for block in blocks) for blocks in groups]
        for key, blocks in zip(keys, groups, strict=True):
            stacks[key] = self._stacks.get(key) or self._stack(blocks)
        self._stacks = stacks
        return [stacks[key] for key in keys]

    def _stack(self, blocks: Sequence[Block]) -> Stack:
        longest = max(len(block.tokens) for block in blocks)
        shape = self._shape(len(blocks), longest)
        keys = torch.zeros(shape, dtype=torch.float32, device=self._like["device"])
        values = torch.zeros(shape, **self._like)
        for index, block in enumerate(blocks):
            keys[:, index, :, : len(block.tokens)] = block.keys
            values[:, index, :, : len(block.tokens)] = block.values
        return Stack(keys.flatten(1, 2), values.flatten(1, 2), tuple(block.keys for block in blocks))

    # ---- slots

    def take_slot(self, max_slots: int) -> int | None:
        """A free slot: a spare one, a new one within budget, or the longest-idle sequence's."""
        if not self._free and self.n_slots < max_slots:
            affordable = self._max_bytes // (self.capacity * self._token_bytes)
            wanted = min(max_slots, self.n_slots * 2, affordable)
            if wanted > self.n_slots:
                self._resize(wanted, self.capacity)
        if not self._free and self.idle:
            self.release(min(self.idle.values(), key=lambda tail: tail.last_used))
        if not self._free:
            return None
        self._free.sort(reverse=True)
        return self._free.pop()

    def fork(self, tail: Tail, length: int, max_slots: int) -> Tail | None:
        """A copy of the first `length` tokens (those in blocks included) in a slot of its own; None without a slot."""
        slot = self.take_slot(max_slots)
        if slot is None:
            return None
        own = length - tail.shared
        for held in (self.keys, self.values):
            held[:, slot, :, :own] = held[:, tail.slot, :, :own]
        return Tail(slot=slot, block=tail.block, shared=tail.shared, tokens=[], policy=tail.policy)

    def scrub(self, tail: Tail) -> None:
        """Zero a slot that may hold no numbers: masked positions still take part in products."""
        self.keys[:, tail.slot].zero_()
        self.values[:, tail.slot].zero_()

    def park(self, tail: Tail) -> None:
        """Keep a sequence's KV for its next turn."""
        tail.last_used = self.tick()
        self.idle[tail.slot] = tail

    def release(self, tail: Tail) -> None:
        """Give a sequence's slot back."""
        self.idle.pop(tail.slot, None)
        self._free.append(tail.slot)

    def reserve(self, tokens: int, active: list[Tail]) -> int:
        """Make slots hold at least `tokens` each; returns how many of `active` keep their KV.

        Over budget, slots are given up: idle sequences first, then the last of `active` (one always stays).
        """
        if tokens <= self.capacity:
            return len(active)
        capacity = -(-tokens // _CAPACITY_STEP) * _CAPACITY_STEP
        affordable = self._max_bytes // (capacity * self._token_bytes)
        if self.n_slots <= affordable:
            self._resize(self.n_slots, capacity)
            return len(active)
        n_slots = max(1, min(self.n_slots, self._max_bytes // (tokens * self._token_bytes)))
        # A little more than needed now, so that not every further token moves all slots again.
        capacity = max(tokens, min(tokens + tokens // 4, self._max_bytes // (n_slots * self._token_bytes)))
        idle = sorted(self.idle.values(), key=lambda tail: -tail.last_used)
        keep = [*active, *idle][:n_slots]
        self._move([tail.slot for tail in keep], n_slots, capacity)
        for slot, tail in enumerate(keep):
            tail.slot = slot
        self._free = list(range(len(keep), n_slots))
        self.idle = {tail.slot: tail for tail in keep[len(active) :]}
        return min(len(active), len(keep))

    def _resize(self, n_slots: int, capacity: int) -> None:
        """More or longer slots; all stay where they are."""
        self._free.extend(range(self.n_slots, n_slots))
        self._move(list(range(self.n_slots)), n_slots, capacity)

    def _move(self, slots: list[int], n_slots: int, capacity: int) -> None:
        """Make `slots` the first of `n_slots` that hold `capacity` tokens each."""
        shape = self._shape(n_slots, capacity)
        for name in ("keys", "values"):  # one after the other, to need less memory meanwhile
            # Zeros, because a masked position still takes part in products and 0 · garbage may be NaN.
            new, old = torch.zeros(shape, **self._like), getattr(self, name)
            for slot, was in enumerate(slots):
                new[:, slot, :, : self.capacity] = old[:, was]
            setattr(self, name, new)
        self.n_slots, self.capacity = n_slots, capacity
