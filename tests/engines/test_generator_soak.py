"""Thousands of requests over a cache far too small for them: right to the end, and nothing grows."""

from __future__ import annotations

import asyncio
import gc
import random
from collections.abc import Callable
from typing import Any

import pytest
from engine_cases import TOKEN_BYTES, Continuation, finish, randomise_adapters, request, some_tokens, worst_gap

from agentrft.engines.torch_cache import Block
from agentrft.engines.torch_engine import LoraSpec, TorchEngine

REQUESTS = 3000
AT_ONCE = 24
BUDGET_TOKENS = 600


class Workload:
    """Random short requests: fresh prompts, known ones, longer and shorter ones, next turns, some abandoned."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)
        self._systems = [some_tokens(n, 10 + 7 * n) for n in range(4)]
        self.replies: list[Continuation] = []

    def prompt(self) -> list[int]:
        rng = self._rng
        kind = rng.random()
        if self.replies and kind < 0.4:  # the next turn of one of the last
            last = rng.choice(self.replies[-40:])
            if len(last.context) < 150:
                return [*last.context, *last.tokens, *(rng.randrange(3, 300) for _ in range(rng.randint(1, 6)))]
        if self.replies and kind < 0.6:  # part of a known one, and on from there
            known = rng.choice(self.replies[-200:]).context
            known = known[: rng.randint(1, len(known))]
            return [*known, *(rng.randrange(3, 300) for _ in range(rng.randint(0, 9)))]
        system = rng.choice(self._systems)
        return [*system[: rng.choice([3, len(system)])], *some_tokens(rng.randrange(60), rng.randint(1, 30))]

    async def play_one(self, generator: Any, number: int) -> None:
        wanted = request(self.prompt(), n=self._rng.randint(1, 6), seed=number, stop=[2])
        if self._rng.random() < 0.1:
            abandoned = asyncio.create_task(finish(generator, wanted))
            for _ in range(self._rng.randint(0, 5)):
                await asyncio.sleep(0)
            abandoned.cancel()
        else:
            self.replies.append(await finish(generator, wanted))


async def play(workload: Workload, generator: Any, count: int) -> None:
    """`count` requests, at most AT_ONCE at a time."""
    places = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with places:
            await workload.play_one(generator, number)

    async with asyncio.TaskGroup() as group:
        for number in range(count):
            group.create_task(one(number))


def blocks_alive() -> int:
    gc.collect()
    return sum(type(thing) is Block for thing in gc.get_objects())


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_thousands_of_requests_stay_right_and_leave_nothing_behind(
    load: Callable[..., TorchEngine], plain: Any
) -> None:
    engine = load("llama", max_sequences=16, max_pass_tokens=64, max_cache_bytes=BUDGET_TOKENS * TOKEN_BYTES)
    workload = Workload(seed=1)
    cache = engine.generator._cache
    before = blocks_alive()
    for _ in range(10):
        await play(workload, engine.generator, REQUESTS // 10)
        # Every slot is spare or idle, none lost and none given twice.
        assert sorted([*cache._free, *cache.idle]) == list(range(cache.n_slots))
        assert cache.n_slots * cache.capacity <= BUDGET_TOKENS
        # Blocks may pass the budget only while requests use them; one more admission clears the rest.
        await finish(engine.generator, request([5], n=1))
        assert cache.n_slots * cache.capacity + cache.block_tokens() <= BUDGET_TOKENS
        assert blocks_alive() - before <= BUDGET_TOKENS
    assert len(workload.replies) > 0.85 * REQUESTS
    for part in range(0, len(workload.replies), 200):
        assert worst_gap(workload.replies[part : part + 20], plain) < 1e-5


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_weights_that_change_all_the_time_never_mix(load: Callable[..., TorchEngine]) -> None:
    """Every token's log-prob is that of the one version it says, with no key of another version in between."""
    engine = load("llama", lora=LoraSpec(rank=4, alpha=8), max_sequences=8, max_cache_bytes=400 * TOKEN_BYTES)
    randomise_adapters(engine)
    workload = Workload(seed=2)
    for version in range(20):
        await play(workload, engine.generator, 20)
        fresh = [reply for reply in workload.replies[-15:] if set(reply.versions) == {version}]
        assert len(fresh) == 15
        recomputed = await engine.learner.log_probs([reply.row for reply in fresh])
        for reply, values in zip(fresh, recomputed, strict=True):
            assert list(reply.log_probs) == pytest.approx(values[len(reply.context) :], abs=1e-5)
        randomise_adapters(engine, seed=version)
        await engine.learner.optim_step(0.0)
