"""One forward pass over cached sequences: which tokens are fed, and what each of them attends to.

A pass is laid out depth first over the tree of shared blocks, so the rows below a block are contiguous and one kernel
call lets them all attend to it. Rows that feed a single token (decoding) attend to their tails together, in one padded
call; rows that feed several (a prompt's rest, a tool result) attend to theirs one sequence at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from agentrft.engines.torch_attention import heads_first, merge, piece_forward, visible
from agentrft.engines.torch_cache import Block, KvCache, Tail

_NEVER = -1.0e9
"""Added to the score of a position that may not be seen; finite, so that an unused slot's row stays a number."""


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
    over_blocks: list[tuple[int, int, Block, int, int]] = field(default_factory=list)
    """(first row, end row, block, how many of its tokens they attend to, position of its first token)."""

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
            layout.over_blocks.append((first, len(layout.ids), node, len(node.tokens), depth))

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
            layout.over_blocks.append((row, row + count, block, block.done, depth))
    return count == missing


def _feed_tail(layout: Layout, feed: Feed, max_tokens: int) -> None:
    if len(feed.tokens) > 1:
        room = max(max_tokens - len(layout.ids), 0 if layout.ids else 1)
        if room == 0:
            return
        feed.tokens = feed.tokens[:room]
    feed.row = layout.add(feed.tokens, feed.start)
    layout.feeds.append(feed)


class CachedAttention:
    """Attention of one pass: writes new keys and values into the cache, then attends to all a row may see."""

    def __init__(self, layout: Layout, cache: KvCache) -> None:
        device = cache.keys.device
        self._layout = layout
        self._cache = cache
        self._positions = torch.tensor(layout.positions, device=device)
        self._single = [f for f in layout.feeds if len(f.tokens) == 1]
        self._several = [f for f in layout.feeds if len(f.tokens) > 1]
        written = [
            (f.row + i, f.tail.slot * cache.capacity + f.past + i) for f in layout.feeds for i in range(len(f.tokens))
        ]
        self._written_rows = torch.tensor([row for row, _ in written], device=device, dtype=torch.int64)
        self._written_at = torch.tensor([at for _, at in written], device=device, dtype=torch.int64)
        self._masks: dict[int | None, Tensor] = {}
        if self._single:
            self._rows = torch.tensor([f.row for f in self._single], device=device)
            slots = [f.tail.slot for f in self._single]
            # Gathering copies KV; reading unused slots computes for nothing. Half full is where they cost alike.
            top = max(slots) + 1
            self._gather = torch.tensor(slots, device=device) if 2 * len(slots) < top else None
            self._lanes = (
                torch.arange(len(slots), device=device)
                if self._gather is not None
                else torch.tensor(slots, device=device)
            )
            self._n_lanes = len(slots) if self._gather is not None else top
            self._longest = max(f.past for f in self._single) + 1

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor, scale: float, window: int | None) -> Tensor:
        """See `torch_model.Attend`."""
        self._write(layer, k, v)
        rows, heads, width = q.shape
        kv_heads = k.shape[1]
        out = torch.empty(rows, heads, width, dtype=torch.float32, device=q.device)
        lse = torch.empty(kv_heads, heads // kv_heads, rows, dtype=torch.float32, device=q.device)
        out4 = heads_first(out, kv_heads)
        for start, end in self._own_ranges():
            seen = self._seen(start, end, self._positions[start:end], True, window)
            part = piece_forward(q[start:end], k[start:end], v[start:end], scale=scale, causal=True, seen=seen)
            out4[:, :, start:end], lse[:, :, start:end] = part
        if self._single:
            self._attend_single(layer, q, out, lse, scale, window)
        for feed in self._several:
            if feed.past:
                start, end = feed.row, feed.row + len(feed.tokens)
                keys = self._cache.keys[layer, feed.tail.slot, : feed.past]
                values = self._cache.values[layer, feed.tail.slot, : feed.past]
                self._fold(q, keys, values, feed.tail.shared, (start, end), (out4, lse), scale, window)
        for start, end, block, count, depth in self._layout.over_blocks:
            keys, values = block.keys[layer, :count], block.values[layer, :count]
            self._fold(q, keys, values, depth, (start, end), (out4, lse), scale, window)
        return out.to(q.dtype)

    def _own_ranges(self) -> list[tuple[int, int]]:
        """Rows that attend causally to each other: several tokens of one sequence or block."""
        tails = [(f.row, f.row + len(f.tokens)) for f in self._several]
        return tails + [(b.row, b.row + b.end - b.start) for b in self._layout.block_feeds]

    def _write(self, layer: int, k: Tensor, v: Tensor) -> None:
        if len(self._written_rows):
            flat = (-1, *k.shape[1:])
            self._cache.keys[layer].view(flat).index_copy_(0, self._written_at, k[self._written_rows])
            self._cache.values[layer].view(flat).index_copy_(0, self._written_at, v[self._written_rows])
        for feed in self._layout.block_feeds:
            rows = slice(feed.row, feed.row + feed.end - feed.start)
            feed.block.keys[layer, feed.start : feed.end] = k[rows]
            feed.block.values[layer, feed.start : feed.end] = v[rows]

    def _seen(self, start: int, end: int, keys_at: Tensor, causal: bool, window: int | None) -> Tensor | None:
        return visible(self._positions[start:end], keys_at, causal=causal, window=window)

    def _fold(
        self,
        q: Tensor,
        keys: Tensor,
        values: Tensor,
        first: int,
        span: tuple[int, int],
        into: tuple[Tensor, Tensor],
        scale: float,
        window: int | None,
    ) -> None:
        """Let rows `span` attend to `keys`, which start at position `first`, and merge the result."""
        start, end = span
        keys_at = torch.arange(first, first + len(keys), device=q.device)
        seen = self._seen(start, end, keys_at, False, window)
        part = piece_forward(q[start:end], keys, values, scale=scale, causal=False, seen=seen)
        out4, lse = into
        merge(out4[:, :, start:end], lse[:, :, start:end], *part)

    def _attend_single(self, layer: int, q: Tensor, out: Tensor, lse: Tensor, scale: float, window: int | None) -> None:
        """All decoding rows on their own tails, one padded call: slots are the batch, folded heads the queries."""
        kv_heads, repeats = lse.shape[0], lse.shape[1]
        keys = self._cache.keys[layer, : self._n_lanes, : self._longest]
        values = self._cache.values[layer, : self._n_lanes, : self._longest]
        if self._gather is not None:
            keys = self._cache.keys[layer, :, : self._longest][self._gather]
            values = self._cache.values[layer, :, : self._longest][self._gather]
        lanes = q.new_zeros(self._n_lanes, kv_heads, repeats, q.shape[-1])
        lanes[self._lanes] = q[self._rows].view(-1, kv_heads, repeats, q.shape[-1])
        mask = self._tail_mask(window, q.dtype)
        got, got_lse = _padded_attention(lanes, keys.transpose(1, 2), values.transpose(1, 2), mask, scale)
        out[self._rows] = got[self._lanes].reshape(-1, kv_heads * repeats, q.shape[-1]).float()
        lse[:, :, self._rows] = got_lse[self._lanes].permute(1, 2, 0)

    def _tail_mask(self, window: int | None, dtype: torch.dtype) -> Tensor:
        """Additive mask [lanes, 1, 1, longest]: each sequence sees its own tokens, as far back as the window goes."""
        if window not in self._masks:
            past = torch.zeros(self._n_lanes, dtype=torch.int64)
            past[self._lanes.cpu()] = torch.tensor([f.past for f in self._single])
            at = torch.arange(self._longest)
            hidden = at[None] > past[:, None]
            if window is not None:
                hidden |= past[:, None] - at[None] >= window
            mask = torch.zeros(self._n_lanes, 1, 1, self._longest, dtype=dtype)
            self._masks[window] = mask.masked_fill_(hidden[:, None, None], _NEVER).to(self._positions.device)
        return self._masks[window]


def _padded_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Output and log-sum-exp of q [S, kv, R, D] over k, v [S, kv, T, D] with an additive mask."""
    if q.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, False, attn_mask=mask.expand(-1, q.shape[1], q.shape[2], -1), scale=scale
        )
    scores = (q.float() @ k.float().mT) * scale + mask.float()
    lse = scores.logsumexp(-1)
    return ((scores - lse.unsqueeze(-1)).exp() @ v.float()).to(q.dtype), lse
