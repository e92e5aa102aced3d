"""What every generator must do, run over each kind. A new kind joins by one fixture and one line in `KINDS`."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import EngineFault, UserError
from agentrft.protocols import Chunk, GenerateRequest, Generator
from agentrft.testing import ScriptedGenerator

STOP = 2
VOCABULARY = 300
CONTEXT = 512


def some_reply(context: Sequence[int], rng: random.Random) -> list[int]:
    return [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(1, 30))] + [STOP]


KINDS = ["scripted", "torch", "torch exact"]


@pytest.fixture(params=KINDS)
async def generator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Any]:
    if request.param == "scripted":
        yield ScriptedGenerator(some_reply, context_tokens=CONTEXT, max_delay_s=0.001)
    else:
        engine = torch_engine(tmp_path_factory.mktemp("model"), exact=request.param == "torch exact")
        yield engine.generator
        await engine.close()


def torch_engine(folder: Path, *, exact: bool) -> Any:
    torch = pytest.importorskip("torch")
    from oracle import save_tiny_model

    from agentrft.engines.torch_engine import TorchEngine

    engine = TorchEngine.load(save_tiny_model("llama", folder), dtype="float32", device="cpu", exact=exact)
    torch.use_deterministic_algorithms(False)
    return engine


def request(tokens: Sequence[int] = (5, 6, 7), *, n: int = 12, seed: int = 0, **fields: Any) -> GenerateRequest:
    stops = fields.pop("stop_ids", frozenset({STOP}))
    return GenerateRequest(tokens=tokens, seed=seed, max_new_tokens=n, stop_ids=stops, **fields)


async def chunks_of(generator: Generator, wanted: GenerateRequest) -> list[Chunk]:
    return [chunk async for chunk in generator.generate(wanted)]


def tokens_of(chunks: Sequence[Chunk]) -> list[int]:
    return [token for chunk in chunks for token in chunk.tokens]


async def test_a_reply_is_whole_and_its_log_probs_are_aligned(generator: Generator) -> None:
    for seed in range(12):
        chunks = await chunks_of(generator, request(n=10, seed=seed))
        tokens = tokens_of(chunks)
        assert 1 <= len(tokens) <= 10
        assert all(len(chunk.tokens) == len(chunk.log_probs) > 0 for chunk in chunks)
        assert all(-50.0 < value <= 0.0 and math.isfinite(value) for chunk in chunks for value in chunk.log_probs)
        assert all(type(token) is int and 0 <= token < VOCABULARY for token in tokens)
        assert {type(value) for chunk in chunks for value in chunk.log_probs} == {float}
        assert STOP not in tokens[:-1]
        reasons = [chunk.finish_reason for chunk in chunks]
        assert reasons[:-1] == [None] * (len(chunks) - 1)
        assert reasons[-1] == ("stop" if tokens[-1] == STOP else "length")
        if reasons[-1] == "length":
            assert len(tokens) == 10
        assert {chunk.policy_version for chunk in chunks} == {0}


async def test_the_seed_fixes_the_reply_whoever_else_asks(generator: Generator) -> None:
    alone = [tokens_of(await chunks_of(generator, request(seed=seed))) for seed in range(6)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(chunks_of(generator, request(seed=seed, order=(0, 6 - seed)))) for seed in range(6)]
    assert [tokens_of(task.result()) for task in tasks] == alone
    assert len({tuple(tokens) for tokens in alone}) > 1


async def test_many_requests_at_once_all_end(generator: Generator) -> None:
    wanted = [request([3 + n, *range(3, 3 + n)], n=1 + n % 7, seed=n) for n in range(40)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(chunks_of(generator, one)) for one in wanted]
    assert all(task.result()[-1].finish_reason for task in tasks)


async def test_leaving_early_harms_nobody(generator: Generator) -> None:
    expected = tokens_of(await chunks_of(generator, request(seed=1, n=30)))

    async def leave() -> None:
        async with aclosing(generator.generate(request(seed=2, n=400, stop_ids=frozenset({STOP})))) as chunks:
            async for _ in chunks:
                return

    async with asyncio.TaskGroup() as group:
        kept = group.create_task(chunks_of(generator, request(seed=1, n=30)))
        for _ in range(3):
            group.create_task(leave())
        cancelled = group.create_task(chunks_of(generator, request(seed=3, n=400)))
        await asyncio.sleep(0)
        cancelled.cancel()
    assert tokens_of(kept.result()) == expected


async def test_the_context_may_be_filled_but_not_overflowed(generator: Generator) -> None:
    assert generator.context_tokens == CONTEXT
    assert (await chunks_of(generator, request([5] * (CONTEXT - 4), n=4)))[-1].finish_reason
    with pytest.raises(UserError) as refused:
        await chunks_of(generator, request([5] * (CONTEXT - 4), n=5))
    assert refused.value.code == "context_overflow"
    assert str(CONTEXT) in refused.value.message


async def test_close_ends_requests_with_a_fault(generator: Generator) -> None:
    under_way = asyncio.Event()

    async def consume() -> None:
        async for _ in generator.generate(request(n=400, stop_ids=frozenset({VOCABULARY - 1}))):
            under_way.set()

    async def ask() -> None:
        with pytest.raises(EngineFault):
            await consume()

    async with asyncio.TaskGroup() as group:
        group.create_task(ask())
        await under_way.wait()
        await generator.close()
    await generator.close()
    await ask()
