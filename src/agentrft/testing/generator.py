"""A generator that plays a function."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Literal

from agentrft.errors import EngineFault, UserError
from agentrft.protocols import Chunk, GenerateRequest

Policy = Callable[[Sequence[int], random.Random], Sequence[int]]
"""(context, randomness seeded by the request) → the reply's tokens."""


class ScriptedGenerator:
    """Answers every request with what `policy` says, in random pieces after random, seeded delays.

    A reply without a stop token gets one; one longer than the request allows is cut there (finish_reason "length").
    Log-probs depend on position and token only. `outputs` collects (request, tokens, log_probs) of finished replies.
    """

    def __init__(
        self,
        policy: Policy,
        *,
        context_tokens: int = 4096,
        max_delay_s: float = 0.0,
        fails: Callable[[GenerateRequest], bool] = lambda request: False,
    ) -> None:
        self.context_tokens = context_tokens
        self.outputs: list[tuple[GenerateRequest, list[int], list[float]]] = []
        self._policy = policy
        self._max_delay_s = max_delay_s
        self._fails = fails
        self._closed = False

    async def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Raises EngineFault where `fails` says so and after `close`, UserError when the context is too long."""
        if len(request.tokens) + request.max_new_tokens > self.context_tokens:
            raise UserError(
                f"The request wants {len(request.tokens)} + {request.max_new_tokens} tokens; "
                f"expected at most {self.context_tokens}.",
                code="context_overflow",
            )
        rng = random.Random(request.seed)
        tokens, finish_reason = _cut(self._policy(request.tokens, rng), request)
        log_probs = [scripted_log_prob(len(request.tokens) + i, token) for i, token in enumerate(tokens)]
        position = 0
        while position < len(tokens):
            await asyncio.sleep(rng.random() * self._max_delay_s)
            if self._closed or self._fails(request):
                raise EngineFault("closed" if self._closed else "scripted fault")
            piece = slice(position, position + rng.randint(1, 4))
            position = min(piece.stop, len(tokens))
            done = finish_reason if position == len(tokens) else None
            yield Chunk(tokens=tokens[piece], log_probs=log_probs[piece], finish_reason=done, policy_version=0)
        self.outputs.append((request, tokens, log_probs))

    async def close(self) -> None:
        """Requests after this, and those in flight, end with EngineFault."""
        self._closed = True


def scripted_log_prob(position: int, token: int) -> float:
    """The log-prob that a ScriptedGenerator reports: −0.1 … −0.7 nats."""
    return -0.1 * (1 + (position + token) % 7)


def _cut(reply: Sequence[int], request: GenerateRequest) -> tuple[list[int], Literal["stop", "length"]]:
    tokens = list(reply)
    end = next((i for i, token in enumerate(tokens) if token in request.stop_ids), None)
    tokens = [*tokens, min(request.stop_ids)] if end is None else tokens[: end + 1]
    if len(tokens) > request.max_new_tokens:
        return tokens[: request.max_new_tokens], "length"
    return tokens, "stop"
