"""A generator that now and then says what it is told: behaviour injected into episodes of a real model."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from agentrft.protocols import Chunk, GenerateRequest, Generator

Force = Callable[[tuple[int, int], int, str | None], str | None]
"""((item, member), turn, what the model says or None before it was asked) → the reply in its place, or None."""


class Codec(Protocol):
    """Text and tokens."""

    def encode(self, text: str) -> Sequence[int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...


class ForcingGenerator:
    """`Generator` over another one. An episode is known by its request's `order`, its turn by counting."""

    def __init__(self, inner: Generator, codec: Codec, stop_id: int, force: Force) -> None:
        self._inner, self._codec, self._stop_id, self._force = inner, codec, stop_id, force
        self._turns: Counter[tuple[int, int]] = Counter()

    @property
    def context_tokens(self) -> int:
        return self._inner.context_tokens

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """As the inner generator, but for the replies that `force` replaces, before or after the model has spoken."""
        turn = self._turns[request.order]
        self._turns[request.order] += 1
        text = self._force(request.order, turn, None)
        if text is None:
            chunks = [chunk async for chunk in self._inner.generate(request)]
            said = self._codec.decode([token for chunk in chunks for token in chunk.tokens if token != self._stop_id])
            text = self._force(request.order, turn, said)
            if text is None:
                for chunk in chunks:
                    yield chunk
                return
        ids = [*self._codec.encode(text), self._stop_id][: request.max_new_tokens]
        reason = "stop" if ids[-1] == self._stop_id else "length"
        yield Chunk(tokens=ids, log_probs=[0.0] * len(ids), finish_reason=reason, policy_version=0)

    async def close(self) -> None:
        await self._inner.close()
