"""Weights: who turns tokens into tokens, who changes the weights, and how messages become tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from agentrft.types import Message, Row, ToolResult, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What a continuation's text must be, stop token aside; `stop` is only drawn once it is complete."""

    kind: Literal["json_schema", "lark"]
    source: str
    """A JSON Schema as JSON text, or a grammar in llguidance's Lark syntax, where `<[ID]>` stands for a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """One continuation to generate."""

    tokens: Sequence[int]
    """The whole context; engines reuse KV by longest cached prefix, callers stay stateless."""
    seed: int
    """Fixes the continuation: same tokens, seed and weights give the same draw (bit for bit only in exact mode)."""
    max_new_tokens: int
    stop_ids: frozenset[int]
    """Generation ends after the first of these; it is part of the output."""
    temperature: float = 1.0
    """0 means greedy. Log-probs are of the distribution drawn from; greedy reports temperature 1."""
    order: tuple[int, int] = (0, 0)
    """(item, member) within the step: the order in which exact mode admits and lays out requests."""
    adapter: str | None = None
    """Plays an adapter that the generator was given by this name; None plays the weights that it trains."""
    top_p: float = 1.0
    """Draws only from the likeliest tokens that together have this probability; log-probs stay those of all tokens."""
    top_logprobs: int = 0
    """How many of the likeliest tokens to report at each place."""
    constraint: Constraint | None = None
    """Narrows what is drawn; log-probs stay those of all tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Some newly generated tokens with their log-probs (nats), aligned."""

    tokens: Sequence[int]
    log_probs: Sequence[float]
    finish_reason: Literal["stop", "length"] | None
    """None until the last chunk."""
    policy_version: int
    top_log_probs: Sequence[Sequence[tuple[int, float]]] = ()
    """Per token, the likeliest (id, log-prob), most likely first; empty unless asked for."""
    cached_tokens: int = 0
    """Of the request's tokens, those whose KV was already there; the same on every chunk."""


class Generator(Protocol):
    """Generates tokens from tokens, many requests at once."""

    @property
    def context_tokens(self) -> int:
        """Longest context plus continuation the model accepts."""
        ...

    def generate(self, request: GenerateRequest) -> AsyncIterator[Chunk]:
        """Yield chunks until one carries a finish_reason.

        Closing the iterator early frees the slot. Concurrent requests are batched continuously.
        Raises UserError when tokens + max_new_tokens exceed `context_tokens`, for an adapter it does not have and for a
        constraint that it cannot hold to, EngineFault when the engine died.
        """
        ...

    async def close(self) -> None:
        """Stop; pending requests end with EngineFault. Safe to call twice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BackwardReport:
    """What one forward_backward did."""

    log_probs: Sequence[Sequence[float]]
    """The policy's log-probs per row, aligned with the row's ids (nats; 0.0 where not trained)."""
    gradients: Sequence[Sequence[float]]
    """d loss / d log-prob, aligned likewise: 0.0 where not trained, and for tokens that the loss left out."""
    loss: float
    metrics: Mapping[str, float]
    """Of the loss; names and units in `agentrft.train.metrics`."""
    unique_tokens: int
    """Tokens computed after prefix sharing."""
    row_tokens: int
    """Tokens there would have been without it."""
    micro_batches: int
    wall_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimReport:
    grad_norm: float
    """Before clipping."""
    policy_version: int
    """After the update."""


class Learner(Protocol):
    """Holds the trainable weights. Loops never touch tensors."""

    @property
    def policy_version(self) -> int:
        """Optimiser steps taken."""
        ...

    async def forward_backward(self, rows: Sequence[Row], loss: Any) -> BackwardReport:
        """Accumulate the exact gradient of `loss` (a `losses.spec` document) summed over all rows.

        `rows` is the whole optimiser step: the learner alone plans prefix trees and micro-batches, which never change
        the gradient beyond summation order. Credit arrives normalised, so the loss is a plain sum over units.
        """
        ...

    async def optim_step(self, lr: float) -> OptimReport:
        """Clip, apply AdamW, clear the gradient; generators see the new weights from their next request."""
        ...

    async def log_probs(self, rows: Sequence[Row], *, reference: bool = False) -> list[list[float]]:
        """Log-probs (nats) aligned with each row's ids, 0.0 where not trained; `reference`: those of the start."""
        ...

    async def save(self, folder: Path) -> None:
        """Write adapter (PEFT format) or weights, and the optimiser's state, as safetensors into `folder`."""
        ...

    async def load(self, folder: Path) -> None:
        """Restore what `save` wrote, bit for bit; raises UserError when it does not fit this model."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One assistant reply, from whichever actor."""

    message: Message
    tokens: Sequence[int] = ()
    """Exactly the generated ids, stop token included; empty for text-only actors."""
    log_probs: Sequence[float] = ()
    truncated: bool = False
    """The token limit came before the stop token."""
    malformed: str | None = None
    """Why the text is not a readable call, in words the model can act on."""
    policy_version: int = 0


class ChatFormat(Protocol):
    """Messages ↔ tokens for one model family, append-only: nothing decoded is ever encoded again."""

    name: str
    stop_ids: frozenset[int]

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """Ids of the conversation up to and including the opening of the next assistant reply."""
        ...

    def parse(self, ids: Sequence[int], tools: Sequence[ToolSpec]) -> tuple[Message, str | None]:
        """Read a generated reply (stop token included): the message, and why a call in it is malformed, or None."""
        ...

    def results(self, results: Sequence[ToolResult]) -> list[int]:
        """The suffix to append after a reply's stop token: tool results, then the opening of the next reply."""
        ...

    def reply(self, message: Message, tools: Sequence[ToolSpec]) -> list[int]:
        """Ids of a demonstrated assistant reply, stop token included: what a perfect policy would generate."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Readable text, special tokens shown; for transcripts only."""
        ...
