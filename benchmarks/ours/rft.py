"""Our engine as a worker: one RFT step for each request.

A step is what `agentrft.train.rft` makes the engine do, with the same rewards as the peer's: generate all members of
all items at once, hash rewards, centre them within each group, one `forward_backward` over all rows, one `optim_step`.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrft.engines.torch_engine import LearnerSettings, LoraSpec, TorchEngine
from agentrft.losses.spec import PolicyGradientLoss
from agentrft.protocols import GenerateRequest, Generator
from agentrft.types import Row
from harness.pipe import Pipe, serve
from harness.prompts import hash_reward, token_prompts

LEARNING_RATE = 1e-5


@dataclass(frozen=True, slots=True)
class Continuation:
    """One member's generated tokens with the generator's log-probs."""

    tokens: list[int]
    log_probs: list[float]


async def continuation(generator: Generator, request: GenerateRequest) -> Continuation:
    """All chunks of one request put together."""
    tokens: list[int] = []
    log_probs: list[float] = []
    async for chunk in generator.generate(request):
        tokens.extend(chunk.tokens)
        log_probs.extend(chunk.log_probs)
    return Continuation(tokens, log_probs)


async def roll_out(
    generator: Generator, prompts: Sequence[Sequence[int]], *, members: int, new: int, seed: int
) -> list[list[Continuation]]:
    """`members` continuations of exactly `new` tokens for each prompt, all concurrent: [I][G]."""
    async with asyncio.TaskGroup() as together:
        tasks_I_G = [
            [
                together.create_task(
                    continuation(
                        generator,
                        GenerateRequest(
                            tokens=prompt,
                            seed=hash((seed, item, member)) & (2**63 - 1),
                            max_new_tokens=new,
                            stop_ids=frozenset(),
                            order=(item, member),
                        ),
                    )
                )
                for member in range(members)
            ]
            for item, prompt in enumerate(prompts)
        ]
    return [[task.result() for task in tasks_G] for tasks_G in tasks_I_G]


def rows_of(prompts: Sequence[Sequence[int]], continuations_I_G: Sequence[Sequence[Continuation]]) -> list[Row]:
    """Learner rows; credit is the hash reward less its group's mean, divided by the step's trained tokens."""
    trained = sum(len(c.tokens) for continuations_G in continuations_I_G for c in continuations_G)
    rows = []
    for item, (prompt, continuations_G) in enumerate(zip(prompts, continuations_I_G, strict=True)):
        rewards_G = [hash_reward(c.tokens) for c in continuations_G]
        mean = sum(rewards_G) / len(rewards_G)
        for member, (c, reward) in enumerate(zip(continuations_G, rewards_G, strict=True)):
            before = len(prompt)
            rows.append(
                Row(
                    ids=[*prompt, *c.tokens],
                    trained=[False] * before + [True] * len(c.tokens),
                    log_probs=[0.0] * before + c.log_probs,
                    credit=[0.0] * before + [(reward - mean) / trained] * len(c.tokens),
                    unit=f"{item}/{member}",
                    group=str(item),
                )
            )
    return rows


class Stepper:
    """Keeps the engine and counts the steps."""

    def __init__(self, engine: TorchEngine, options: argparse.Namespace) -> None:
        self._engine = engine
        self._options = options
        self._prompts = token_prompts(options.items, options.prompt, vocabulary=engine.model.vocabulary)
        self._step = 0

    async def step(self) -> dict[str, Any]:
        """One step; seconds of its parts and the learner's own counts."""
        started = time.perf_counter()
        continuations_I_G = await roll_out(
            self._engine.generator,
            self._prompts,
            members=self._options.members,
            new=self._options.new,
            seed=self._step,
        )
        rolled_out = time.perf_counter()
        rows = rows_of(self._prompts, continuations_I_G)
        report = await self._engine.learner.forward_backward(rows, PolicyGradientLoss())
        await self._engine.learner.optim_step(LEARNING_RATE)
        ended = time.perf_counter()
        self._step += 1
        return {
            "step_s": ended - started,
            "rollout_s": rolled_out - started,
            "train_s": ended - rolled_out,
            "new_tokens": sum(len(c.tokens) for continuations_G in continuations_I_G for c in continuations_G),
            "unique_tokens": report.unique_tokens,
            "row_tokens": report.row_tokens,
            "micro_batches": report.micro_batches,
            "dtype": self._engine.dtype,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--exact", action="store_true")
    parser.add_argument("--micro-batch-tokens", type=int, default=1024)
    for name in ("items", "members", "prompt", "new"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    pipe = Pipe()
    engine = TorchEngine.load(
        options.model,
        lora=LoraSpec(rank=16, alpha=32),
        dtype=options.dtype,
        exact=options.exact,
        learner=LearnerSettings(micro_batch_tokens=options.micro_batch_tokens),
    )
    stepper = Stepper(engine, options)
    pipe.reply({"ready": True, "dtype": engine.dtype})
    with asyncio.Runner() as runner:
        serve({"step": lambda _: runner.run(stepper.step())}, pipe)
        runner.run(engine.close())


if __name__ == "__main__":
    main()
