"""The generator: continuous batching of all concurrent requests over a shared KV cache."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import AsyncGenerator, Callable
from collections.abc import Sequence as Listed
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import psutil
import torch
from torch import Tensor

from agentrft.engines.torch_adapters import Adapter, AdapterBank
from agentrft.engines.torch_cache import KvCache
from agentrft.engines.torch_choice import Drawn, choose
from agentrft.engines.torch_constraint import Constraints
from agentrft.engines.torch_model import Attend, TorchModel
from agentrft.engines.torch_pass import CachedAttention, Feed, Layout, lay_out, spans_of
from agentrft.engines.torch_seating import resume, seat
from agentrft.engines.torch_sequence import Sequence, by_tail, computed, join, leave, move, part
from agentrft.errors import EngineFault, UserError
from agentrft.protocols import Chunk, GenerateRequest

FinishReason = Literal["stop", "length"]
AttentionOf = Callable[[Layout, KvCache], Attend]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneratorSettings:
    """How much a generator does at once."""

    max_sequences: int = 128
    """Requests that decode together; more wait."""
    max_pass_tokens: int = 2048
    """About how many rows one forward pass feeds."""
    max_cache_bytes: int = field(default_factory=lambda: psutil.virtual_memory().total // 8)
    """Keys and values; the oldest unused are evicted, and computed again when they are needed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What a generator needs beside the model to play adapters and constraints."""

    bank: AdapterBank
    constraints: Constraints


class TorchGenerator:
    """Implements `protocols.Generator` on one TorchModel; every pass runs on the engine's thread."""

    def __init__(
        self,
        model: TorchModel,
        executor: Executor,
        settings: GeneratorSettings,
        *,
        attention: AttentionOf = CachedAttention,
        rows_of: Callable[[int], int] | None = None,
        serving: Serving | None = None,
    ) -> None:
        """`attention` and `rows_of` (with how many rows a pass of so many computes) are how exact mode differs.

        Without `serving` it plays `model` alone.
        """
        self._model = model
        self._executor = executor
        self._settings = settings
        self._attention = attention
        self._rows_of = rows_of or (lambda rows: rows)
        self._serving = serving
        self._adapters: dict[str, Adapter] = {}
        self._cache = KvCache(
            n_layers=model.n_layers,
            kv_shape=model.kv_shape,
            dtype=model.dtype,
            device=model.device,
            max_bytes=settings.max_cache_bytes,
        )
        self._incoming: deque[Sequence] = deque()
        self._waiting: list[Sequence] = []
        self._active: list[Sequence] = []
        self._driver: asyncio.Task[None] | None = None
        self._closed = False
        self.passes = 0
        """Forward passes so far."""
        self.fed_tokens = 0
        """Tokens computed so far, prefixes found in the cache not counted."""

    @property
    def context_tokens(self) -> int:
        return self._model.context_tokens

    async def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """See `protocols.Generator`."""
        self._check(request)
        loop = asyncio.get_running_loop()
        sequence = Sequence(
            request=request, loop=loop, tokens=list(request.tokens), uniforms=random.Random(request.seed)
        )
        if request.adapter is not None:
            sequence.adapter = self._adapters[request.adapter]
        if request.constraint is not None:
            assert self._serving is not None
            start = self._serving.constraints.start
            sequence.guide = await asyncio.to_thread(start, request.constraint, request.stop_ids)
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

    async def add_adapter(self, name: str, folder: Path) -> None:
        """Have requests that name `name` played with a PEFT adapter; requests under way keep the one they began with.

        Raises UserError when the adapter does not fit the model, or this generator plays its model alone.
        """
        if self._serving is None:
            raise UserError(
                "this engine plays the weights that it trains and takes no adapters", code="adapter_unknown"
            )
        loop = asyncio.get_running_loop()
        self._adapters[name] = await loop.run_in_executor(self._executor, self._serving.bank.load, name, folder)

    def remove_adapter(self, name: str) -> None:
        """Requests may no longer name it; those under way go on to their end. Nothing happens when there is none."""
        self._adapters.pop(name, None)

    async def close(self) -> None:
        """See `protocols.Generator`."""
        self._closed = True
        if self._driver is not None and not self._driver.done():
            await asyncio.wait([self._driver])
        if self._serving is not None:
            self._serving.constraints.close()

    def forget(self) -> None:
        """Drop all KV: the weights changed. Sequences under way are computed again under the new weights."""
        for sequence in self._active:
            leave(sequence, self._cache)
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
        if request.adapter is not None and request.adapter not in self._adapters:
            raise UserError(
                f"no adapter is named {request.adapter!r} here; expected one of {sorted(self._adapters)}: add it first",
                param="model",
                code="adapter_unknown",
            )
        if request.constraint is not None and self._serving is None:
            raise UserError(
                "this engine plays the weights that it trains and holds to no constraint", code="constraint_unsupported"
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
    def _step(self) -> list[tuple[Sequence, Chunk | Exception]]:
        """Admit what fits, run one pass, draw a token for every sequence whose context is complete."""
        self._admit()
        alike_by_tail = by_tail(self._active)
        feeds = [self._feed(alike[0]) for alike in alike_by_tail.values()]
        adapters = {s.policy: s.adapter for s in self._active if s.adapter is not None}
        if adapters:
            feeds.sort(key=lambda feed: feed.tail.policy or ("", 0))  # fewer and longer runs of rows
        layout = lay_out(feeds, self._settings.max_pass_tokens)
        if not layout.ids:
            return []
        if self._serving is not None:
            self._serving.bank.use(spans_of(layout, adapters))
        hidden = self._forward(layout)
        for block_feed in layout.block_feeds:
            block_feed.block.done = block_feed.end
        ready: list[tuple[list[Sequence], int]] = []
        for feed in layout.feeds:
            alike = alike_by_tail[id(feed.tail)]
            for sequence in alike:
                sequence.done += len(feed.tokens)
            if alike[0].done == len(alike[0].tokens):
                ready.append((alike, feed.row + len(feed.tokens) - 1))
        return self._draw(ready, hidden)

    def _forward(self, layout: Layout) -> Tensor:
        self.passes += 1
        self.fed_tokens += len(layout.ids)
        device = self._model.device
        attend = self._attention(layout, self._cache)
        pad = self._rows_of(len(layout.ids)) - len(layout.ids)
        ids = torch.tensor(layout.ids + [0] * pad, device=device)
        positions = torch.tensor(layout.positions + [0] * pad, device=device)
        return self._model.forward(ids, positions, attend)

    def _draw(
        self, ready: Listed[tuple[list[Sequence], int]], hidden: Tensor
    ) -> list[tuple[Sequence, Chunk | Exception]]:
        """A token for each sequence of `ready`: those that are alike, with the row that they draw from."""
        if not ready:
            return []
        device = hidden.device
        pad = self._rows_of(len(ready)) - len(ready)
        rows = torch.tensor([row for _, row in ready] + [0] * pad, device=device)
        logits = self._model.logits(hidden[rows])
        drawing = [(place, s) for place, (alike, _) in enumerate(ready) for s in alike]
        if len(drawing) > len(ready):
            logits = logits[torch.tensor([place for place, _ in drawing], device=device)]
        else:
            logits = logits[: len(ready)]
        sequences = [s for _, s in drawing]
        produced = [(s, self._drawn(s, drawn)) for s, drawn in zip(sequences, choose(logits, sequences), strict=True)]
        for alike, _ in ready:
            self._separate(alike)
        self._requeue()
        return produced

    def _drawn(self, sequence: Sequence, drawn: Drawn | Exception) -> Chunk | Exception:
        if isinstance(drawn, Exception):
            sequence.finished = sequence.failed = True
            return drawn
        sequence.tokens.append(drawn.token)
        reason: FinishReason | None = None
        if drawn.token in sequence.request.stop_ids:
            reason = "stop"
        elif sequence.new_tokens >= sequence.request.max_new_tokens:
            reason = "length"
        elif sequence.guide is not None:
            sequence.guide.advance(drawn.token)
        sequence.finished = reason is not None
        return Chunk(
            tokens=(drawn.token,),
            log_probs=(drawn.log_prob,),
            finish_reason=reason,
            policy_version=self._model.version if sequence.adapter is None else sequence.adapter.version,
            top_log_probs=() if drawn.top is None else (drawn.top,),
            cached_tokens=sequence.cached or 0,
        )

    def _separate(self, alike: Listed[Sequence]) -> None:
        """The finished ones keep an idle slot each, for their next turn; the others go on with those of their token."""
        for sequence in [s for s in alike if s.finished]:
            self._park(sequence)
        first: dict[int, Sequence] = {}
        for sequence in [s for s in alike if not s.finished]:
            other = first.setdefault(sequence.tokens[-1], sequence)
            if other is not sequence:
                move(sequence, other, self._cache)
            elif len(first) > 1:
                part(sequence, self._cache, self._settings.max_sequences)

    def _feed(self, sequence: Sequence) -> Feed:
        assert sequence.tail is not None
        return Feed(tail=sequence.tail, tokens=sequence.tokens[sequence.done :], start=sequence.done)

    def _park(self, sequence: Sequence) -> None:
        """Keep a finished sequence's KV idle in a slot, for its next turn."""
        if sequence.failed:
            assert sequence.tail is not None
            self._cache.scrub(sequence.tail)
            leave(sequence, self._cache)
        elif part(sequence, self._cache, self._settings.max_sequences):
            assert sequence.tail is not None
            sequence.tail.tokens = sequence.tokens[: sequence.done]
            self._cache.park(sequence.tail)

    def _requeue(self) -> None:
        """Let the finished ones go; those that lost their slot wait again and are computed anew."""
        running = [s for s in self._active if not s.finished]
        self._waiting = [s for s in running if s.tail is None] + self._waiting
        self._active = [s for s in running if s.tail is not None]

    # ---- admission

    def _admit(self) -> None:
        while self._incoming:
            self._waiting.append(self._incoming.popleft())
        for sequence in [s for s in self._active if s.cancelled]:
            sequence.finished = True
            if sequence.tail is not None and sequence.tail.holders > 1:
                leave(sequence, self._cache)
            else:
                self._park(sequence)
        self._requeue()
        self._waiting = [s for s in self._waiting if not s.cancelled]
        # Exact mode's results do not depend on this order; it only makes runs easier to compare.
        self._waiting.sort(key=lambda s: s.request.order)
        room = self._settings.max_sequences - len(self._active)
        resumed: list[Sequence] = []
        for sequence in self._waiting:
            if len(resumed) < room and resume(sequence, self._cache):
                resumed.append(sequence)
        fresh = [s for s in self._waiting if s.tail is None]
        self._active.extend(resumed)
        most = self._settings.max_sequences
        seated = seat(fresh, self._cache, room=most - len(self._active), max_slots=most)
        self._active.extend(seated)
        for sequence in [*resumed, *seated]:
            if sequence.cached is None:
                sequence.cached = computed(sequence)
        join([*resumed, *seated], self._cache)
        self._waiting = [s for s in self._waiting if s.tail is None]
        if self._active:
            self._make_room()

    def _make_room(self) -> None:
        """Room for every active tail's next tokens; when the budget is short, the last to come wait again."""
        longest = max(len(s.tokens) - s.tail.shared for s in self._active if s.tail is not None)
        tails = [alike[0].tail for alike in by_tail(self._active).values() if alike[0].tail is not None]
        kept = self._cache.reserve(longest, tails)
        lost = {id(tail) for tail in tails[kept:]}
        for sequence in self._active:
            if id(sequence.tail) in lost:
                sequence.tail, sequence.done = None, 0
        self._requeue()
        self._cache.evict_blocks({id(s.tail.block) for s in self._active if s.tail is not None})


def _as_fault(error: Exception) -> Exception:
    """Running out of memory is the machine's fault; anything else is a bug and keeps its type."""
    if isinstance(error, torch.OutOfMemoryError):
        fault = EngineFault(f"out of memory while generating: {error}")
        fault.__cause__ = error
        return fault
    return error
