"""Many adapters over one base model: each request's log-probs are plain PEFT's, whatever shares the batch and cache."""

from __future__ import annotations

import asyncio
import gc
import random
import weakref
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chat_models import save_lora
from engine_cases import (
    TOKEN_BYTES,
    Continuation,
    finish,
    finish_all,
    mixed_requests,
    plain_peft,
    reached,
    request,
    some_tokens,
    worst_gap,
)
from safetensors.torch import load_file, save_file

from agentrft.engines.torch_generator import TorchGenerator
from agentrft.engines.torch_serving import ServingEngine
from agentrft.errors import EngineFault, UserError

Serve = Callable[..., ServingEngine]


async def add(generator: TorchGenerator, folders: Sequence[Path]) -> list[str]:
    names = [f"adapter {k}" for k in range(len(folders))]
    for name, folder in zip(names, folders, strict=True):
        await generator.add_adapter(name, folder)
    return names


@pytest.mark.parametrize("family", ["llama", "qwen2", "gemma3", "phi3"])
async def test_a_mixed_batch_is_that_of_plain_peft(
    family: str, serving: Serve, adapters: Callable[[str], list[Path]], tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    engine = serving(family)
    targets = {"phi3": ["qkv_proj", "gate_up_proj"]}
    folders = (
        [save_lora(tiny(family), tmp_path / str(k), k, r=4, target_modules=targets[family]) for k in range(3)]
        if family in targets
        else adapters(family)
    )
    names = [None, *await add(engine.generator, folders)]
    wanted = [replace(one, adapter=names[k % 4]) for k, one in enumerate(mixed_requests(16))]
    wanted += [replace(one, adapter=names[(k + 1) % 4]) for k, one in enumerate(mixed_requests(16))]
    together = await finish_all(engine.generator, wanted)
    from oracle import plain_model

    references = {None: plain_model(tiny(family))}
    references |= {name: plain_peft(tiny(family), folder) for name, folder in zip(names[1:], folders, strict=True)}
    gaps = []
    for name, reference in references.items():
        own = [reply for reply, one in zip(together, wanted, strict=True) if one.adapter == name]
        gaps.append(worst_gap(own, reference))
        others = [reference for other, reference in references.items() if other != name]
        assert min(worst_gap(own, other) for other in others) > 0.05  # they do differ
    assert max(gaps) < 2e-5


async def test_packed_products_are_those_of_plain_peft(
    serving: Serve, adapters: Callable[[str], list[Path]], tiny: Callable[[str], Path]
) -> None:
    engine = serving("qwen2")  # with biases
    assert engine.generator._serving is not None
    for projection in engine.generator._serving.bank._projections:
        projection.pack()
    folders = adapters("qwen2")
    names = await add(engine.generator, folders)
    for name, folder in zip(names, folders, strict=True):
        replies = await finish_all(engine.generator, [replace(one, adapter=name) for one in mixed_requests(6)])
        assert worst_gap(replies, plain_peft(tiny("qwen2"), folder)) < 2e-5


async def test_alone_or_together_is_the_same(serving: Serve, adapters: Callable[[str], list[Path]]) -> None:
    folders = adapters("llama")
    one_by_one = serving().generator
    together = serving().generator
    names = [None, *await add(one_by_one, folders)]
    await add(together, folders)
    wanted = [replace(one, adapter=names[k % 4]) for k, one in enumerate(mixed_requests(14))]
    alone = [await finish(one_by_one, one) for one in wanted]
    batched = await finish_all(together, wanted)
    assert [r.tokens for r in batched] == [r.tokens for r in alone]
    for a, b in zip(alone, batched, strict=True):
        assert a.log_probs == pytest.approx(b.log_probs, abs=1e-4)
    assert together.passes < one_by_one.passes / 4


async def test_prefixes_are_reused_within_a_policy_and_never_across(
    serving: Serve, adapters: Callable[[str], list[Path]], tiny: Callable[[str], Path]
) -> None:
    generator = serving().generator
    folders = adapters("llama")
    names = await add(generator, folders)
    prompt = some_tokens(5, 60)

    async def cached(adapter: str | None, seed: int) -> int:
        async with aclosing(generator.generate(request(prompt, n=2, seed=seed, adapter=adapter))) as chunks:
            return [chunk.cached_tokens async for chunk in chunks][-1]

    for adapter in (None, names[0], names[1]):
        assert await cached(adapter, 1) == 0
        assert await cached(adapter, 2) == len(prompt) - 1
    both = await finish_all(generator, [request(prompt, n=8, adapter=a) for a in (names[0], names[1])])
    for reply, folder in zip(both, folders, strict=False):
        assert worst_gap([reply], plain_peft(tiny("llama"), folder)) < 2e-5


async def test_an_adapter_under_the_same_name_starts_anew(
    serving: Serve, adapters: Callable[[str], list[Path]], tiny: Callable[[str], Path]
) -> None:
    generator = serving().generator
    folders = adapters("llama")
    await generator.add_adapter("mine", folders[0])
    wanted = request(some_tokens(5, 40), n=30, adapter="mine")
    passes = generator.passes
    first = asyncio.create_task(finish(generator, wanted))
    await reached(generator, passes + 4)
    await generator.add_adapter("mine", folders[1])
    second = await finish(generator, wanted)
    # What was under way went on with the weights it began with.
    assert worst_gap([await first], plain_peft(tiny("llama"), folders[0])) < 2e-5
    assert worst_gap([second], plain_peft(tiny("llama"), folders[1])) < 2e-5
    assert (set((await first).versions), set(second.versions)) == ({1}, {2})


async def test_an_adapter_that_is_removed_serves_its_requests_out_and_leaves_memory(
    serving: Serve, adapters: Callable[[str], list[Path]], tiny: Callable[[str], Path]
) -> None:
    generator = serving().generator
    folder = adapters("llama")[0]
    await generator.add_adapter("mine", folder)
    gone = weakref.ref(next(part[0] for part in generator._adapters["mine"].parts if part))
    passes = generator.passes
    under_way = asyncio.create_task(finish(generator, request(some_tokens(5, 40), n=30, adapter="mine")))
    await reached(generator, passes + 4)
    generator.remove_adapter("mine")
    generator.remove_adapter("mine")
    with pytest.raises(UserError, match="no adapter is named 'mine'"):
        await finish(generator, request([5], adapter="mine"))
    assert worst_gap([await under_way], plain_peft(tiny("llama"), folder)) < 2e-5
    await finish(generator, request([5], n=2))
    gc.collect()
    assert gone() is None


async def test_who_leaves_or_waits_costs_the_others_nothing(
    serving: Serve, adapters: Callable[[str], list[Path]], tiny: Callable[[str], Path]
) -> None:
    generator = serving(max_sequences=3).generator
    folders = adapters("llama")
    names = await add(generator, folders)
    lone = request(some_tokens(9, 30), n=40, adapter=names[0])
    staying = asyncio.create_task(finish(generator, lone))
    leaving = [asyncio.create_task(finish(generator, request([k, 7], n=400, adapter=names[k % 3]))) for k in range(6)]
    await reached(generator, generator.passes + 5)
    for task in leaving[::2]:
        task.cancel()
    await reached(generator, generator.passes + 5)
    for task in leaving:
        task.cancel()
    reply = await staying
    assert worst_gap([reply], plain_peft(tiny("llama"), folders[0])) < 2e-5
    await asyncio.wait(leaving)
    assert len(generator._active) == 0
    assert len((await finish(generator, request([5], n=4))).tokens) == 4


async def test_the_cache_stays_within_its_budget_with_many_policies(
    serving: Serve, adapters: Callable[[str], list[Path]], tiny: Callable[[str], Path]
) -> None:
    budget = 1500 * TOKEN_BYTES  # 12 turns of 6 prompts of 60 tokens would need more than twice as many
    generator = serving(max_cache_bytes=budget, max_sequences=8).generator
    folders = adapters("llama")
    names = [None, *await add(generator, folders)]
    replies: dict[str | None, list[Continuation]] = {name: [] for name in names}
    for turn in range(12):
        wanted = [request([*some_tokens(turn, 60), k], n=6, adapter=names[(k + turn) % 4]) for k in range(6)]
        for one, reply in zip(wanted, await finish_all(generator, wanted), strict=True):
            replies[one.adapter].append(reply)
        cache = generator._cache
        held = cache.block_tokens() + cache.n_slots * cache.capacity
        assert held * TOKEN_BYTES <= budget
    for name, folder in zip(names[1:], folders, strict=True):
        assert worst_gap(replies[name], plain_peft(tiny("llama"), folder)) < 2e-5


async def test_weights_that_diverged_cost_only_their_own_requests(
    serving: Serve, adapters: Callable[[str], list[Path]], plain: Any, tmp_path: Path
) -> None:
    generator = serving(max_sequences=4).generator
    good, bad = adapters("llama")[:2]
    tensors = {key: value * 1e30 for key, value in load_file(bad / "adapter_model.safetensors").items()}
    save_file(tensors, bad / "adapter_model.safetensors")
    await add(generator, [good, bad])
    tasks = [asyncio.create_task(finish(generator, request(some_tokens(k, 20), n=12))) for k in range(3)]
    tasks += [
        asyncio.create_task(finish(generator, request(some_tokens(8, 40), n=12, adapter="adapter 1", seed=k)))
        for k in range(2)
    ]
    replies = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(r, EngineFault) and "diverged" in str(r) for r in replies[3:])
    assert worst_gap([r for r in replies if isinstance(r, Continuation)], plain) < 1e-5
    # The slot they had is as good as new for whoever comes next.
    later = await finish_all(generator, [request(some_tokens(k, 9), n=30, seed=k) for k in range(4)])
    assert worst_gap(later, plain) < 1e-5


# ---- for long


@pytest.mark.soak
@pytest.mark.timeout(900)
async def test_hundreds_of_requests_on_changing_adapters_never_mix(
    serving: Serve, adapters: Callable[[str], list[Path]], tiny: Callable[[str], Path], plain: Any
) -> None:
    """Short requests with much in common over a cache too small for them, some abandoned, names given anew."""
    generator = serving(max_sequences=12, max_cache_bytes=600 * TOKEN_BYTES).generator
    references = [plain, *(plain_peft(tiny("llama"), folder) for folder in adapters("llama"))]
    folders = [tiny("llama"), *adapters("llama")]
    rng = random.Random(7)
    holds = {"x": 1, "y": 2}
    for name, which in holds.items():
        await generator.add_adapter(name, folders[which])
    replies: dict[int, list[Continuation]] = {k: [] for k in range(4)}

    async def one(number: int) -> None:
        name = rng.choice([None, *holds])
        which = 0 if name is None else holds[name]
        prompt = [*some_tokens(rng.randrange(3), 30), *some_tokens(rng.randrange(40), rng.randint(1, 20))]
        wanted = request(prompt, n=rng.randint(1, 8), seed=number, adapter=name)
        playing = asyncio.create_task(finish(generator, wanted))
        if rng.random() < 0.15:
            for _ in range(rng.randint(0, 9)):
                await asyncio.sleep(0)
            playing.cancel()
        else:
            replies[which].append(await playing)

    for _ in range(40):
        async with asyncio.TaskGroup() as group:
            for number in range(15):
                group.create_task(one(number))
        name = rng.choice(list(holds))
        holds[name] = rng.randint(1, 3)
        await generator.add_adapter(name, folders[holds[name]])
        cache = generator._cache
        assert sorted([*cache._free, *cache.idle]) == list(range(cache.n_slots))
    for which, own in replies.items():
        assert len(own) > 50
        for part in range(0, len(own), 40):
            assert worst_gap(own[part : part + 10], references[which]) < 2e-5
