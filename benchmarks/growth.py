"""How much memory the generator takes while it answers questions that nobody has asked before.

    python benchmarks/growth.py                      # 20 rounds of 60 questions, 50 at a time; minutes
    python benchmarks/growth.py --rounds 8           # a quick look

One line a round: resident memory, and by how much it grew. Once the cache of keys and values has all its slots (from
round 3 on), what still grows is not ours to free: oneDNN keeps the code of up to 1,024 shapes (docs/log.md). No peer,
and no limit.
"""

from __future__ import annotations

import argparse
import asyncio
import random

import psutil

from agentrft.engines.models import resolve
from agentrft.engines.torch_engine import LoraSpec, TorchEngine
from agentrft.protocols import GenerateRequest

HEAD, TAIL, NEW, AT_ONCE, QUESTIONS = 30, (10, 40), 24, 50, 60
"""Tokens that all prompts share, further ones of each (from, below), tokens to generate; requests."""


async def ask(engine: TorchEngine, number: int, head: list[int], draws: random.Random, gate: asyncio.Semaphore) -> None:
    """One question, answered to its end."""
    tokens = [*head, *(draws.randrange(1000, engine.model.vocabulary) for _ in range(draws.randrange(*TAIL)))]
    request = GenerateRequest(tokens=tokens, max_new_tokens=NEW, stop_ids=frozenset({2}), seed=number)
    async with gate:
        async for _ in engine.generator.generate(request):
            pass


async def run(model: str, rounds: int) -> None:
    """Print one line a round."""
    engine, draws, gate = (
        TorchEngine.load(resolve(model), lora=LoraSpec()),
        random.Random(0),
        asyncio.Semaphore(AT_ONCE),
    )
    head = [draws.randrange(1000, engine.model.vocabulary) for _ in range(HEAD)]
    process, before = psutil.Process(), 0.0
    for number in range(rounds):
        first = number * QUESTIONS
        await asyncio.gather(*(ask(engine, first + n, head, draws, gate) for n in range(QUESTIONS)))
        now = process.memory_info().rss / 1e6
        print(f"round {number + 1}: {now:.0f} MB ({now - before if number else 0:+.0f})", flush=True)
        before = now
    await engine.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    asyncio.run(run(options.model, options.rounds))


if __name__ == "__main__":
    main()
