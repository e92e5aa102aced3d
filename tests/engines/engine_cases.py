"""Rows, requests and comparisons that the engine tests share."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from oracle import padded_log_probs, plain_model
from row_cases import VOCABULARY
from torch import Tensor

from agentrft.protocols import GenerateRequest, Generator
from agentrft.types import Row

FAMILIES = ("llama", "llama_untied", "qwen2", "qwen3", "mistral", "gemma", "gemma3", "phi3")
TOKEN_BYTES = 2 * 3 * 2 * 16 * 4
"""KV of one token of a tiny model: keys and values · layers · key heads · width · float32."""


# ---- the oracle's side


def plain_peft(folder: Path, adapter: Path) -> Any:
    """The base model in plain transformers with a saved adapter on it in plain PEFT, trainable."""
    import peft

    return peft.PeftModel.from_pretrained(plain_model(folder), adapter, is_trainable=True)


def plain_gradients(model: Any) -> dict[str, Tensor]:
    """Gradients by the names that our engine uses."""
    return {
        name.replace("base_model.model.", "").replace(".default", ""): parameter.grad
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }


def relative_difference(mine: Mapping[str, Tensor], reference: Mapping[str, Tensor]) -> float:
    """The worst tensor's max |difference| / max |reference|; both must have the same tensors."""
    assert mine.keys() == reference.keys()
    return max(
        float((mine[name] - ref).abs().max() / ref.abs().max().clamp_min(1e-12)) for name, ref in reference.items()
    )


def largest_gap(log_probs: Sequence[Sequence[float]], rows: Sequence[Row], model: Any) -> float:
    """The largest |log-prob − plain transformers'| over trained tokens (nats)."""
    with torch.no_grad():
        expected = padded_log_probs(model, rows)
    return max(
        abs(log_probs[r][t] - float(expected[r][t - 1]))
        for r, one in enumerate(rows)
        for t in range(1, len(one.ids))
        if one.trained[t]
    )


def randomise_adapters(engine: Any, scale: float = 0.05, seed: int = 3) -> None:
    """Give every B random values: fresh adapters change nothing, which would hide mistakes."""
    source = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, adapted in engine.model.adapters():
            values = torch.empty(adapted.lora_b.shape).normal_(0.0, scale, generator=source)
            adapted.lora_b.copy_(values.to(adapted.lora_b.device))
    engine.model.merge()


# ---- requests


@dataclass(frozen=True, slots=True, kw_only=True)
class Continuation:
    """A finished request."""

    context: tuple[int, ...]
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    finish_reason: str | None
    versions: tuple[int, ...]

    @property
    def row(self) -> Row:
        """Context and reply, the reply trained."""
        ids = [*self.context, *self.tokens]
        trained = [t >= len(self.context) for t in range(len(ids))]
        log_probs = [0.0] * len(self.context) + list(self.log_probs)
        return Row(ids=ids, trained=trained, log_probs=log_probs, credit=[0.0] * len(ids), unit="u", group="g")


def request(tokens: Sequence[int], *, n: int = 12, seed: int = 0, stop: Iterable[int] = (), **fields: Any) -> Any:
    """A request for at most n tokens, by default without a stop token so that exactly n come."""
    return GenerateRequest(tokens=tuple(tokens), seed=seed, max_new_tokens=n, stop_ids=frozenset(stop), **fields)


async def finish(generator: Generator, wanted: GenerateRequest) -> Continuation:
    """Play one request to its end."""
    tokens: list[int] = []
    log_probs: list[float] = []
    versions: list[int] = []
    reason = None
    async for chunk in generator.generate(wanted):
        assert reason is None, "a chunk came after the last one"
        tokens += chunk.tokens
        log_probs += chunk.log_probs
        versions += [chunk.policy_version] * len(chunk.tokens)
        reason = chunk.finish_reason
    return Continuation(
        context=tuple(wanted.tokens),
        tokens=tuple(tokens),
        log_probs=tuple(log_probs),
        finish_reason=reason,
        versions=tuple(versions),
    )


async def finish_all(generator: Generator, wanted: Sequence[GenerateRequest]) -> list[Continuation]:
    """Play requests at the same time."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(finish(generator, one)) for one in wanted]
    return [task.result() for task in tasks]


async def reached(generator: Any, passes: int) -> None:
    """Wait until so many passes were run; looks once per turn of the event loop, so no pass is missed."""
    while generator.passes < passes:  # noqa: ASYNC110  (the engine tells nobody of its passes)
        await asyncio.sleep(0)


def worst_gap(continuations: Sequence[Continuation], model: Any) -> float:
    """The largest |generated log-prob − plain transformers'| (nats)."""
    rows = [c.row for c in continuations]
    return largest_gap([r.log_probs for r in rows], rows, model)


def some_tokens(seed: int, n: int) -> list[int]:
    """n random ids above the special ones."""
    rng = random.Random(seed)
    return [rng.randrange(3, VOCABULARY) for _ in range(n)]


def mixed_requests(count: int = 10, **fields: Any) -> list[GenerateRequest]:
    """Prompts of 1 to 60 tokens, some alike, some extending others; different lengths and seeds."""
    system = some_tokens(99, 12)
    prompts = [[5], some_tokens(1, 2), system, [*system, 7], *([*system, *some_tokens(n, 4 * n)] for n in range(2, 12))]
    return [request(prompts[i % len(prompts)], n=3 + 5 * (i % 4), seed=i, **fields) for i in range(count)]
