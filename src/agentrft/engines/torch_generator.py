"""The generator: continuous batching of all concurrent requests over a shared KV cache."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

import psutil
import torch
from torch import Tensor

from agentrft.engines.torch_cache import Block, KvCache, Tail, common_prefix
from agentrft.engines.torch_model import Attend, TorchModel
from agentrft.engines.torch_pass import CachedAttention, Feed, Layout, lay_out
from agentrft.engines.torch_sampling import draw
from agentrft.errors import EngineFault, UserError
from agentrft.protocols import Chunk, GenerateRequest

_MIN_SHARED_TOKENS = 8
"""Prefixes shorter than this are not worth a block of their own: a kernel call a layer costs about as much."""

FinishReason = Literal["stop", "length"]
AttentionOf = Callable[[Layout, KvCache], Attend]


@dataclass(slots=True, eq=False)
class _Sequence:
    """A request on its way through the engine."""

    request: GenerateRequest
    loop: asyncio.AbstractEventLoop
    tokens: list[int]
    uniforms: random.Random
    chunks: asyncio.Queue[Chunk | Exception] = field(default_factory=asyncio.Queue)
    tail: Tail | None = None
    done: int = 0
    """Tokens whose KV is in the cache."""
    cancelled: bool = False

    @property
    def new_tokens(self) -> int:
        return len(self.tokens) - len(self.request.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSettings:
    """How much a generator does at once."""

    max_sequences: int = 128
    """Requests that decode together; more wait."""
    max_pass_tokens: int = 2048
    """About how many rows one forward pass feeds."""
    max_cache_bytes: int = field(default_factory=lambda: psutil.virtual_memory().total // 8)
    """Keys and values; the oldest unused are evicted, and computed again when they are needed."""


class TorchGenerator:
    """Implements `protocols.Generator` on one TorchModel; every pass runs on the engine's thread."""

    def __init__(
        self,
        model: TorchModel,
        executor: Executor,
        settings: GeneratorSettings,
        *,
        attention: AttentionOf = CachedAttention,
        row_multiple: int = 1,
    ) -> None:
        """`attention` and `row_multiple` are how exact mode differs."""
        self._model = model
        self._executor = executor
        self._settings = settings
        self._attention = attention
        self._row_multiple = row_multiple
        self._cache = KvCache(
            n_layers=model.n_layers,
            kv_shape=model.kv_shape,
            dtype=model.dtype,
            device=model.device,
            max_bytes=settings.max_cache_bytes,
        )
        self._incoming: deque[_Sequence] = deque()
        self._waiting: list[_Sequence] = []
        self._active: list[_Sequence] = []
        self._driver: asyncio.Task[None] | None = None
        self._closed = False
        self.passes = 0
        """Forward passes so far."""
        self.fed_tokens = 0
        """Tokens computed so far, prefixes found in the cache not counted."""

    @property
    def context_tokens(self) -> int:
        return self._model.context_tokens

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """See `protocols.Generator`."""
        self._check(request)
        loop = asyncio.get_running_loop()
        sequence = _Sequence(
            request=request, loop=loop, tokens=list(request.tokens), uniforms=random.Random(request.seed)
        )
        self._incoming.append(sequence)
        if self._driver is None or self._driver.done():
            self._driver = loop.create_task(self._drive())
        try:
            while True:
                chunk = await sequence.chunks.get()
                if isinstance(chunk, Exception):
                    raise chunk
                yield chunk
                if chunk.finish_reason is not None:
                    return
        finally:
            sequence.cancelled = True

    async def close(self) -> None:
        """See `protocols.Generator`."""
        self._closed = True
        if self._driver is not None and not self._driver.done():
            await asyncio.wait([self._driver])

    def forget(self) -> None:
        """Drop all KV: the weights changed. Sequences under way are computed again under the new weights."""
        for sequence in self._active:
            self._unseat(sequence)
        self._cache.clear()
        self._waiting = self._active + self._waiting
        self._active = []

    def _check(self, request: GenerateRequest) -> None:
        if self._closed:
            raise EngineFault("the generator is closed")
        if not request.tokens:
            raise UserError("a request needs at least one token, got none", code="empty_prompt")
        total = len(request.tokens) + request.max_new_tokens
        if total > self.context_tokens:
            raise UserError(
                f"{len(request.tokens)} tokens of context and {request.max_new_tokens} to generate exceed the model's "
                f"context of {self.context_tokens}; shorten the prompt or lower the limits",
                param="agent.limits.max_episode_tokens",
                code="context_overflow",
            )
        highest = max(request.tokens)
        if highest >= self._model.vocabulary or min(request.tokens) < 0:
            raise UserError(
                f"token id {highest} is outside the model's vocabulary of {self._model.vocabulary}; the tokenizer "
                "belongs to another model",
                param="model",
                code="token_out_of_range",
            )

    async def _drive(self) -> None:
        """Run passes while there is work; the event loop is free in between (tools, graders)."""
        loop = asyncio.get_running_loop()
        while self._incoming or self._waiting or self._active:
            if self._closed:
                self._fail(EngineFault("the generator was closed"))
                return
            try:
                produced = await loop.run_in_executor(self._executor, self._step)
            except Exception as error:
                self._fail(_as_fault(error))
                return
            for sequence, chunk in produced:
                sequence.chunks.put_nowait(chunk)
            # Lets consumers act on what they got (start tools, send the next turn) before the next pass is planned.
            await asyncio.sleep(0)

    def _fail(self, error: Exception) -> None:
        for sequence in [*self._incoming, *self._waiting, *self._active]:
            sequence.chunks.put_nowait(error)
        self._incoming.clear()
        self._waiting, self._active = [], []
        self._cache.clear()

    # ---- on the engine's thread

    @torch.inference_mode()
    def _step(self) -> list[tuple[_Sequence, Chunk]]:
        """Admit what fits, run one pass, draw a token for every sequence whose context is complete."""
        self._admit()
        feeds = {id(s.tail): s for s in self._active}
        layout = lay_out([self._feed(s) for s in self._active], self._settings.max_pass_tokens)
        if not layout.ids:
            return []
        hidden = self._forward(layout)
        for block_feed in layout.block_feeds:
            block_feed.block.done = block_feed.end
        ready: list[tuple[_Sequence, int]] = []
        for feed in layout.feeds:
            sequence = feeds[id(feed.tail)]
            sequence.done += len(feed.tokens)
            if sequence.done == len(sequence.tokens):
                ready.append((sequence, feed.row + len(feed.tokens) - 1))
        return self._draw(ready, hidden)

    def _forward(self, layout: Layout) -> Tensor:
        self.passes += 1
        self.fed_tokens += len(layout.ids)
        device = self._model.device
        attend = self._attention(layout, self._cache)
        pad = -len(layout.ids) % self._row_multiple
        ids = torch.tensor(layout.ids + [0] * pad, device=device)
        positions = torch.tensor(layout.positions + [0] * pad, device=device)
        return self._model.forward(ids, positions, attend)

    def _draw(self, ready: Sequence[tuple[_Sequence, int]], hidden: Tensor) -> list[tuple[_Sequence, Chunk]]:
        if not ready:
            return []
        pad = -len(ready) % self._row_multiple
        rows = torch.tensor([row for _, row in ready] + [0] * pad, device=hidden.device)
        logits = self._model.logits(hidden[rows])[: len(ready)]
        uniforms = torch.tensor([s.uniforms.random() for s, _ in ready], device=hidden.device)
        temperatures = torch.tensor([s.request.temperature for s, _ in ready], device=hidden.device)
        tokens, log_probs = draw(logits, uniforms, temperatures)
        produced = []
        for (sequence, _), token, log_prob in zip(ready, tokens, log_probs, strict=True):
            sequence.tokens.append(token)
            reason: FinishReason | None = None
            if token in sequence.request.stop_ids:
                reason = "stop"
            elif sequence.new_tokens >= sequence.request.max_new_tokens:
                reason = "length"
            chunk = Chunk(
                tokens=(token,), log_probs=(log_prob,), finish_reason=reason, policy_version=self._model.version
            )
            produced.append((sequence, chunk))
            if reason is not None:
                self._park(sequence)
        return produced

    def _feed(self, sequence: _Sequence) -> Feed:
        assert sequence.tail is not None
        return Feed(tail=sequence.tail, tokens=sequence.tokens[sequence.done :], start=sequence.done)

    def _park(self, sequence: _Sequence) -> None:
        """Keep a finished sequence's KV idle in its slot, for its next turn."""
        assert sequence.tail is not None
        sequence.tail.tokens = sequence.tokens[: sequence.done]
        self._cache.park(sequence.tail)
        self._active.remove(sequence)

    def _unseat(self, sequence: _Sequence) -> None:
        if sequence.tail is not None:
            self._cache.release(sequence.tail)
        sequence.tail, sequence.done = None, 0

    # ---- admission

    def _admit(self) -> None:
        while self._incoming:
            self._waiting.append(self._incoming.popleft())
        for sequence in [s for s in self._active if s.cancelled]:
            self._park(sequence)
        self._waiting = [s for s in self._waiting if not s.cancelled]
        # Exact mode's results do not depend on this order; it only makes runs easier to compare.
        self._waiting.sort(key=lambda s: s.request.order)
        resumed = [s for s in self._waiting if self._resume(s)]
        fresh = [s for s in self._waiting if s.tail is None]
        self._active.extend(resumed)
        seated = self._seat(fresh)
        self._active.extend(seated)
        self._waiting = [s for s in self._waiting if s.tail is None]
        if self._active:
            self._make_room()

    def _resume(self, sequence: _Sequence) -> bool:
        """Take an idle slot over when all it holds is a prefix of this request."""
        best: Tail | None = None
        for tail in self._cache.idle.values():
            n = len(tail.tokens)
            if (
                (best is None or n > len(best.tokens))
                and n < len(sequence.tokens)
                and sequence.tokens[:n] == tail.tokens
            ):
                best = tail
        if best is None or len(best.tokens) == best.shared:
            return False
        self._cache.idle.pop(best.slot)
        sequence.tail, sequence.done = best, len(best.tokens)
        return True

    def _seat(self, sequences: Sequence[_Sequence]) -> list[_Sequence]:
        """Give slots to new sequences and put their common prefixes into blocks."""
        seated: list[_Sequence] = []
        for sequence in sequences:
            if len(self._active) + len(seated) >= self._settings.max_sequences:
                break
            slot = self._cache.take_slot(self._settings.max_sequences)
            if slot is None:
                break
            sequence.tail = Tail(slot=slot, block=None, shared=0, tokens=[])
            seated.append(sequence)
        for sequence in seated:
            self._reuse(sequence)
        by_block: dict[int, list[_Sequence]] = {}
        for sequence in seated:
            assert sequence.tail is not None
            by_block.setdefault(id(sequence.tail.block), []).append(sequence)
        for members in by_block.values():
            self._share(sorted(members, key=lambda s: s.tokens))
        return seated

    def _reuse(self, sequence: _Sequence) -> None:
        """Start from the longest prefix already computed, in a block or in an idle slot."""
        assert sequence.tail is not None
        limit = len(sequence.tokens) - 1
        block, shared = self._cache.match(sequence.tokens, limit)
        best, length = None, shared + _MIN_SHARED_TOKENS - 1
        for tail in self._cache.idle.values():
            n = min(common_prefix(tail.tokens, sequence.tokens), limit)
            if n > length and tail.shared <= shared:
                best, length = tail, n
        if best is not None and best.block is block:
            block, shared = self._cache.promote(best, length), length
        self._place(sequence, block, shared)

    def _share(self, members: list[_Sequence]) -> None:
        """Blocks for what `members` (under one block so far, sorted by tokens) have in common, level by level."""
        tail = members[0].tail
        assert tail is not None
        limit = min(len(s.tokens) for s in members) - 1
        common = min(common_prefix(members[0].tokens, members[-1].tokens), limit)
        if len(members) > 1 and common - tail.shared >= _MIN_SHARED_TOKENS:
            block = self._cache.new_block(tuple(members[0].tokens[tail.shared : common]), tail.block)
            for sequence in members:
                self._place(sequence, block, common)
        longer = [s for s in members if len(s.tokens) - 1 > common]
        for _, branch in groupby(longer, key=lambda s: s.tokens[common]):
            alike = list(branch)
            if len(alike) > 1:
                self._share(alike)

    def _place(self, sequence: _Sequence, block: Block | None, shared: int) -> None:
        assert sequence.tail is not None
        sequence.tail.block, sequence.tail.shared = block, shared
        sequence.done = max(sequence.done, shared)

    def _make_room(self) -> None:
        """Room for every active tail's next tokens; when the budget is short, the last to come wait again."""
        longest = max(len(s.tokens) - s.tail.shared for s in self._active if s.tail is not None)
        kept = self._cache.reserve(longest, [s.tail for s in self._active if s.tail is not None])
        for sequence in self._active[kept:]:
            sequence.tail, sequence.done = None, 0
        self._waiting = self._active[kept:] + self._waiting
        self._active = self._active[:kept]
        self._cache.evict_blocks({id(s.tail.block) for s in self._active if s.tail is not None})


def _as_fault(error: Exception) -> Exception:
    """Running out of memory is the machine's fault; anything else is a bug and keeps its type."""
    if isinstance(error, torch.OutOfMemoryError):
        fault = EngineFault(f"out of memory while generating: {error}")
        fault.__cause__ = error
        return fault
    return error
