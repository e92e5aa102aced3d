"""One forward pass over cached sequences: which tokens are fed, and what each of them attends to.

A pass is laid out depth first over the tree of shared blocks, so the rows below a block are contiguous and one kernel
call lets them all attend to it. Rows that feed a single token (decoding) attend to their tails together, in one padded
call; rows that feed several (a prompt's rest, a tool result) attend to theirs one sequence at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agentrft.engines.torch_adapters import Adapter, Span
from agentrft.engines.torch_attention import UNSEEN, Piece, bias_of, fold, merge, row_blocks, unfold, weights_of
from agentrft.engines.torch_cache import Block, KvCache, Policy, Tail
from agentrft.engines.torch_level import Level, OverBlock, by_level, index_of, taken

_LANES, _KEYS = 8, 16
"""The padded batch of decoding rows grows in such steps. oneDNN builds code for each new shape, which takes as long as
ten products and about a megabyte that it keeps for the next thousand shapes."""


@dataclass(slots=True, eq=False)
class Feed:
    """New tokens of one sequence in this pass."""

    tail: Tail
    tokens: Sequence[int]
    start: int
    """Position of the first of them in the sequence."""
    row: int = 0
    """First row in the pass; set when the pass is laid out."""

    @property
    def past(self) -> int:
        """Tokens the slot holds before this pass."""
        return self.start - self.tail.shared


@dataclass(slots=True, eq=False)
class BlockFeed:
    """New tokens [start, end) of a shared block in this pass."""

    block: Block
    start: int
    end: int
    row: int


@dataclass(slots=True, eq=False)
class Layout:
    """Rows of a pass in order."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    feeds: list[Feed] = field(default_factory=list)
    block_feeds: list[BlockFeed] = field(default_factory=list)
    over_blocks: list[OverBlock] = field(default_factory=list)

    def add(self, tokens: Sequence[int], position: int) -> int:
        """Append rows; returns the first row's index."""
        row = len(self.ids)
        self.ids.extend(tokens)
        self.positions.extend(range(position, position + len(tokens)))
        return row


def lay_out(feeds: Sequence[Feed], max_tokens: int) -> Layout:
    """Order `feeds`, and what their blocks still need, into one pass of about `max_tokens` rows.

    A block comes before all that hangs on it; sequences whose blocks are not complete wait for the next pass, and
    long feeds are cut or left for later. Decoding rows always take part, and at least one row is fed.
    """
    feeds_below: dict[Block | None, list[Feed]] = {}
    children: dict[Block | None, list[Block]] = {}
    for feed in feeds:
        feeds_below.setdefault(feed.tail.block, []).append(feed)
        node = feed.tail.block
        while node is not None and node not in children.setdefault(node.parent, []):
            children[node.parent].append(node)
            node = node.parent
    layout = Layout()

    def visit(node: Block | None, depth: int) -> None:
        """Rows of what hangs on `node`, whose tokens start at `depth`."""
        below = depth
        if node is not None:
            if not _feed_block(layout, node, depth, max_tokens):
                return
            below = depth + len(node.tokens)
        first = len(layout.ids)
        for child in children.get(node, ()):
            visit(child, below)
        for feed in feeds_below.get(node, ()):
            _feed_tail(layout, feed, max_tokens)
        if node is not None and len(layout.ids) > first:
            layout.over_blocks.append(OverBlock(first, len(layout.ids), node, len(node.tokens), depth))

    visit(None, 0)
    return layout


def _feed_block(layout: Layout, block: Block, depth: int, max_tokens: int) -> bool:
    """Add the rows a block still needs, as far as there is room; False while it stays incomplete."""
    missing = len(block.tokens) - block.done
    if missing == 0:
        return True
    count = min(missing, max(max_tokens - len(layout.ids), 0 if layout.ids else 1))
    if count:
        end = block.done + count
        row = layout.add(block.tokens[block.done : end], depth + block.done)
        layout.block_feeds.append(BlockFeed(block=block, start=block.done, end=end, row=row))
        if block.done:
            layout.over_blocks.append(OverBlock(row, row + count, block, block.done, depth))
    return count == missing


def _feed_tail(layout: Layout, feed: Feed, max_tokens: int) -> None:
    if len(feed.tokens) > 1:
        room = max(max_tokens - len(layout.ids), 0 if layout.ids else 1)
        if room == 0:
            return
        feed.tokens = feed.tokens[:room]
    feed.row = layout.add(feed.tokens, feed.start)
    layout.feeds.append(feed)


def spans_of(layout: Layout, adapters: Mapping[Policy, Adapter]) -> list[Span]:
    """Which rows of a pass belong to which adapter, neighbours joined; rows of the model's own weights are in none."""
    runs = [(feed.row, feed.row + len(feed.tokens), feed.tail.policy) for feed in layout.feeds]
    runs += [(feed.row, feed.row + feed.end - feed.start, feed.block.policy) for feed in layout.block_feeds]
    spans: list[Span] = []
    for start, end, policy in sorted(runs, key=lambda run: run[0]):
        if policy is None:
            continue
        if spans and spans[-1].end == start and spans[-1].adapter is adapters[policy]:
            start = spans.pop().start
        spans.append(Span(start, end, adapters[policy]))
    return spans


class CachedAttention:
    """Attention of one pass: writes new keys and values into the cache, then attends to all a row may see."""

    def __init__(self, layout: Layout, cache: KvCache) -> None:
        device = cache.keys.device
        self._layout = layout
        self._cache = cache
        self._device = device
        self._positions = torch.tensor(layout.positions)
        self._single = [f for f in layout.feeds if len(f.tokens) == 1]
        self._several = [f for f in layout.feeds if len(f.tokens) > 1]
        written = [(f.row + i, f.tail.slot, f.past + i) for f in layout.feeds for i in range(len(f.tokens))]
        rows, slots, at = torch.tensor(written, dtype=torch.int64).view(-1, 3).unbind(1)
        _, _, kv_heads, capacity, _ = cache.keys.shape
        # Places of a layer's [slots · kv_heads · capacity, D]: writing to them is one plain operation.
        places = (slots[:, None] * kv_heads + torch.arange(kv_heads)) * capacity + at[:, None]
        self._written = (None if len(rows) == len(layout.ids) else rows.to(device)), places.to(device)
        levels, self._alone = by_level(layout.over_blocks, cache)
        stacks = cache.stacks([[over.block for over in level] for level in levels])
        self._levels = [
            Level(level, stack, self._positions, device) for level, stack in zip(levels, stacks, strict=True)
        ]
        self._tail_biases: dict[int | None, Tensor] = {}
        self._biases: dict[tuple[int, int, int, int, int | None], Tensor | None] = {}
        if self._single:
            self._rows = index_of([f.row for f in self._single], device)
            slots = [f.tail.slot for f in self._single]
            # Gathering copies KV; reading unused slots computes for nothing. Half full is where they cost alike.
            first = min(slots)
            span = max(slots) + 1 - first
            is_sparse = 2 * len(slots) < span
            n_lanes = min(_rounded(len(slots) if is_sparse else span, _LANES), cache.n_slots)
            first = min(first, cache.n_slots - n_lanes)
            padded = slots + slots[:1] * (n_lanes - len(slots))
            self._held = torch.tensor(padded, device=device) if is_sparse else slice(first, first + n_lanes)
            lanes = list(range(len(slots))) if is_sparse else [slot - first for slot in slots]
            self._lanes = index_of(lanes, device)
            self._past = torch.zeros(n_lanes, dtype=torch.int64)
            self._past[lanes] = torch.tensor([f.past for f in self._single])
            self._longest = min(_rounded(int(self._past.max()) + 1, _KEYS), cache.capacity)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        """See `torch_model.Attend`; padding rows get zeros."""
        padded, rows = None, len(self._positions)
        if len(q) > rows:
            padded, q, k, v = len(q), q[:rows], k[:rows], v[:rows]
        self._write(layer, k, v)
        heads = q.shape[1]
        kv_heads = k.shape[1]
        queries = fold(q, kv_heads, torch.float32).mul_(scale)
        if len(self._single) == rows:
            so_far = self._attend_single(layer, queries, window)
        else:
            so_far = self._attend_own(layer, queries, k, v, window)
        for span, held, first in self._earlier(layer):
            for start, end in row_blocks(*span, held[0].shape[1], heads):
                part = self._attend(queries, (start, end), held, first, window)
                merge(*_rows_of(so_far, start, end, heads // kv_heads), *part)
        for level in self._levels:
            out, lse = level.attend(layer, queries, rows, window)
            at = 0
            for start, end in level.spans:
                part = slice(at, at := at + (end - start) * (heads // kv_heads))
                merge(*_rows_of(so_far, start, end, heads // kv_heads), out[:, part], lse[:, part])
        return unfold(so_far[0], rows, q.dtype, padded=padded)

    def _attend_own(
        self, layer: int, queries: Tensor, k: Tensor, v: Tensor, window: int | None
    ) -> tuple[Tensor, Tensor]:
        """Every row on the rows of its own sequence or block, decoding ones on their tails."""
        kv_heads, folded, _ = queries.shape
        rows = len(self._positions)
        repeats = folded // rows
        so_far = torch.empty_like(queries), torch.empty(kv_heads, folded, 1, device=queries.device)
        for piece in self._own_pieces(kv_heads * repeats):
            into = _rows_of(so_far, piece.q0, piece.q1, repeats)
            keys = slice(piece.k0, piece.k1)
            first = int(self._positions[piece.k0])
            part = self._attend(
                queries, (piece.q0, piece.q1), (k[keys].transpose(0, 1), v[keys].transpose(0, 1)), first, window
            )
            for whole, value in zip(into, part, strict=True):
                whole.copy_(value)
        if self._single:
            for whole, part in zip(so_far, self._attend_single(layer, queries, window), strict=True):
                by_row = whole.view(kv_heads, rows, repeats, -1)
                by_row[:, self._rows] = part.view(kv_heads, len(self._single), repeats, -1)
        return so_far

    def _own_pieces(self, heads: int) -> Iterator[Piece]:
        """Rows that attend causally to each other: several tokens of one sequence or block."""
        for feed in self._several:
            yield from Piece(feed.row, feed.row + len(feed.tokens), feed.row, feed.row + len(feed.tokens)).split(heads)
        for b in self._layout.block_feeds:
            yield from Piece(b.row, b.row + b.end - b.start, b.row, b.row + b.end - b.start).split(heads)

    def _earlier(self, layer: int) -> Iterator[tuple[tuple[int, int], tuple[Tensor, Tensor], int]]:
        """What rows attend to beyond their own run: the rows, keys and values [kv, T, D], position of the first."""
        for feed in self._several:
            if feed.past:
                slot, past = feed.tail.slot, feed.past
                held = self._cache.keys[layer, slot, :, :past], self._cache.values[layer, slot, :, :past]
                yield (feed.row, feed.row + len(feed.tokens)), held, feed.tail.shared
        for start, end, block, count, depth in self._alone:
            yield (start, end), (block.keys[layer, :, :count], block.values[layer, :, :count]), depth

    def _attend(
        self, queries: Tensor, rows: tuple[int, int], held: tuple[Tensor, Tensor], first: int, window: int | None
    ) -> tuple[Tensor, Tensor]:
        """Rows of folded queries over keys and values [kv, T, D] that start at position `first`."""
        keys, values = held
        repeats = queries.shape[1] // len(self._positions)
        span = (*rows, first, keys.shape[1], window)
        if span not in self._biases:
            at = torch.arange(first, first + keys.shape[1])
            bias = bias_of(self._positions[rows[0] : rows[1]], at, window)
            self._biases[span] = None if bias is None else bias.to(self._device)
        folded = queries[:, rows[0] * repeats : rows[1] * repeats]
        weights, lse = weights_of(folded, keys.float(), self._biases[span], (len(folded), -1, repeats))
        return torch.bmm(weights.to(values.dtype), values), lse

    def _write(self, layer: int, k: Tensor, v: Tensor) -> None:
        rows, places = self._written
        for held, new in ((self._cache.keys, k), (self._cache.values, v)):
            held[layer].view(-1, held.shape[-1]).index_put_((places,), new if rows is None else new[rows])
        for feed in self._layout.block_feeds:
            rows = slice(feed.row, feed.row + feed.end - feed.start)
            feed.block.keys[layer, :, feed.start : feed.end] = k[rows].transpose(0, 1)
            feed.block.values[layer, :, feed.start : feed.end] = v[rows].transpose(0, 1)

    def _attend_single(self, layer: int, queries: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        """All decoding rows on their own tails, one padded batch of slots: output [kv, single · repeats, D] and
        log-sum-exp, in the order of the rows."""
        kv_heads, folded, width = queries.shape
        n_rows = len(self._positions)
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys, values = (x[self._held, :, : self._longest].flatten(0, 1) for x in (keys, values))
        n_lanes = len(self._past)
        lanes = queries.new_zeros(n_lanes, kv_heads, folded // n_rows, width)
        lanes[self._lanes] = taken(queries.view(kv_heads, n_rows, -1, width), 1, self._rows).transpose(0, 1)
        weights, got_lse = weights_of(
            lanes.flatten(0, 1), keys.float(), self._tail_bias(window), (n_lanes, kv_heads, folded // n_rows)
        )
        got = torch.bmm(weights.to(values.dtype), values)

        def in_order(x: Tensor) -> Tensor:
            by_row = taken(x.view(n_lanes, kv_heads, -1, x.shape[-1]), 0, self._lanes).transpose(0, 1)
            ordered = torch.empty(by_row.shape, dtype=torch.float32, device=x.device).copy_(by_row)
            return ordered.view(kv_heads, -1, x.shape[-1])

        return in_order(got), in_order(got_lse)

    def _tail_bias(self, window: int | None) -> Tensor:
        """[lanes, 1, 1, longest]: each sequence sees its own tokens, as far back as the window goes."""
        if window not in self._tail_biases:
            at = torch.arange(self._longest)
            hidden = at[None] > self._past[:, None]
            if window is not None:
                hidden |= self._past[:, None] - at[None] >= window
            bias = torch.zeros(hidden.shape).masked_fill_(hidden, UNSEEN)[:, None, None]
            self._tail_biases[window] = bias.to(self._device)
        return self._tail_biases[window]


def _rounded(number: int, step: int) -> int:
    """Up to a multiple of `step`; numbers below it stay as they are, since one sequence alone should be quick."""
    return number if number < step else -(-number // step) * step


def _rows_of(so_far: tuple[Tensor, Tensor], start: int, end: int, repeats: int) -> tuple[Tensor, Tensor]:
    """Views of output and log-sum-exp of some rows."""
    out, lse = so_far
    return out[:, start * repeats : end * repeats], lse[:, start * repeats : end * repeats]
