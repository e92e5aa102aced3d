"""Members that act alike share a slot: nobody hangs, nothing is lost, and limits hold when they part or join."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import torch
from engine_cases import finish, finish_all, reached, request, some_tokens, worst_gap

from agentrft.engines.torch_engine import TorchEngine
from agentrft.errors import EngineFault

Load = Callable[..., TorchEngine]


@pytest.mark.timeout(60)
async def test_memory_that_runs_out_while_members_part_faults_them_all(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load("llama", max_sequences=8).generator

    async def fault_of(wanted: Any) -> str:
        with pytest.raises(EngineFault) as fault:
            await finish(generator, wanted)
        return str(fault.value)

    def refuse(*_: Any) -> None:
        raise torch.OutOfMemoryError("no memory left")

    # Three alike hold one slot of four, two others come; when the three finish, two need copies and one slot is free.
    alike = [request(some_tokens(1, 20), n=4, seed=s, temperature=0.0) for s in range(3)]
    tasks = [asyncio.create_task(fault_of(one)) for one in alike]
    await reached(generator, 1)
    tasks += [asyncio.create_task(fault_of(request(some_tokens(50 + k, 20), n=30, seed=k))) for k in range(2)]
    await reached(generator, 2)
    monkeypatch.setattr(generator._cache, "_resize", refuse)
    assert set(await asyncio.gather(*tasks)) == {"out of memory while generating: no memory left"}


async def test_memory_that_runs_out_between_keys_and_values_spoils_nothing_later(
    load: Load, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load("llama", max_sequences=8).generator
    await finish_all(generator, [request(some_tokens(k, 30), n=10) for k in (11, 12)])
    zeros, longer = torch.zeros, []

    def second_time_out(*shape: Any, **like: Any) -> torch.Tensor:
        if isinstance(shape[0], tuple) and len(shape[0]) == 5 and shape[0][3] > 64:
            longer.append(shape)
            if len(longer) == 2:
                raise torch.OutOfMemoryError("no memory left")
        return zeros(*shape, **like)

    with monkeypatch.context() as patched:
        patched.setattr(torch, "zeros", second_time_out)
        with pytest.raises(EngineFault, match="no memory left"):
            await finish(generator, request(some_tokens(2, 100), n=40))
    assert len(longer) == 2
    replies = await finish_all(generator, [request(some_tokens(k, 30), n=10, seed=3) for k in (1, 7)])
    assert worst_gap(replies, plain) < 1e-5


async def test_those_without_a_copy_left_join_the_one_that_has_it(load: Load) -> None:
    generator = load("llama").generator
    first = await finish(generator, request(some_tokens(1, 100), n=6, temperature=0.0))
    before = generator.fed_tokens
    told = [*first.context, *first.tokens, *some_tokens(3, 9)]
    await finish_all(generator, [request(told, n=1, temperature=0.0, seed=s) for s in range(3)])
    assert generator.fed_tokens - before == 1 + 9  # the reply's last token and the tool result, once


async def test_returning_members_wait_for_room_among_those_that_decode(
    load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = load("llama", max_sequences=8).generator
    most, step = 0, generator._step

    def watched() -> Any:
        nonlocal most
        produced = step()
        most = max(most, len(generator._active))
        return produced

    monkeypatch.setattr(generator, "_step", watched)
    alike = [request(some_tokens(1, 20), n=n, seed=s, temperature=0.0) for s, n in enumerate([60] * 4 + [2] * 4)]
    tasks = [asyncio.create_task(finish(generator, one)) for one in alike]
    short = await asyncio.gather(*tasks[4:])
    tasks += [asyncio.create_task(finish(generator, request(some_tokens(9, 20), n=60, seed=k))) for k in range(4)]
    await reached(generator, generator.passes + 3)
    back = [request([*f.context, *f.tokens, 5], n=30, temperature=0.0) for f in short]
    replies = await finish_all(generator, back)
    await asyncio.gather(*tasks)
    assert len({reply.tokens for reply in replies}) == 1
    assert most == 8
