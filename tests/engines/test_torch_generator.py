"""Generation: the same tokens and log-probs as plain transformers, whatever shares the batch and whoever leaves."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_cases import (
    FAMILIES,
    TOKEN_BYTES,
    Continuation,
    finish,
    finish_all,
    mixed_requests,
    plain_peft,
    randomise_adapters,
    reached,
    request,
    some_tokens,
    worst_gap,
)
from oracle import greedy, plain_model

from agentrft.engines import torch_engine
from agentrft.engines.torch_engine import GeneratorSettings, LoraSpec, TorchEngine
from agentrft.engines.torch_generator import TorchGenerator
from agentrft.engines.torch_model import TorchModel, load_model
from agentrft.engines.torch_pass import CachedAttention
from agentrft.errors import EngineFault, UserError

Load = Callable[..., TorchEngine]


# ---- what comes out


@pytest.mark.parametrize("family", FAMILIES)
async def test_greedy_text_is_that_of_transformers(family: str, load: Load, tiny: Callable[[str], Path]) -> None:
    engine = load(family)
    reference = plain_model(tiny(family))
    prompts = [some_tokens(n, 3 + 7 * n) for n in range(5)]
    replies = await finish_all(engine.generator, [request(p, n=20, stop=[2], temperature=0.0) for p in prompts])
    assert [reply.tokens for reply in replies] == [greedy(reference, p, 20) for p in prompts]
    assert len({token for reply in replies for token in reply.tokens}) > 20  # not one token over and over


@pytest.mark.parametrize("family", FAMILIES)
async def test_log_probs_are_those_of_transformers(family: str, load: Load, tiny: Callable[[str], Path]) -> None:
    engine = load(family, lora=LoraSpec(rank=4, alpha=8))
    replies = await finish_all(engine.generator, mixed_requests(14))
    assert worst_gap(replies, plain_model(tiny(family))) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
async def test_packed_products_of_padded_passes_give_the_same_before_and_after_an_update(
    family: str, load: Load, tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_engine, "is_packing_faster", lambda dtype, device: True)
    engine = load(family, lora=LoraSpec(rank=4, alpha=8))
    before = await finish_all(engine.generator, mixed_requests(14))
    assert worst_gap(before, plain_model(tiny(family))) < 1e-5
    randomise_adapters(engine)
    engine.generator.forget()
    await engine.learner.save(tmp_path)
    after = await finish_all(engine.generator, mixed_requests(14))
    assert worst_gap(after, plain_peft(tiny(family), tmp_path)) < 1e-5
    assert [c.tokens for c in before] != [c.tokens for c in after]


async def test_a_reply_ends_after_a_stop_token_or_at_its_length(load: Load) -> None:
    engine = load("llama")
    whole = await finish(engine.generator, request([5, 6, 7], n=9, seed=4))
    assert (len(whole.tokens), whole.finish_reason) == (9, "length")
    cut = whole.tokens[4]
    first = whole.tokens.index(cut)
    stopped = await finish(engine.generator, request([5, 6, 7], n=9, seed=4, stop=[cut, 299]))
    assert stopped.tokens == whole.tokens[: first + 1]
    assert stopped.finish_reason == "stop"
    at_the_end = await finish(engine.generator, request([5, 6, 7], n=first + 1, seed=4, stop=[cut]))
    assert at_the_end.finish_reason == "stop"


async def test_temperature_shapes_the_distribution_that_log_probs_are_of(load: Load, plain: Any) -> None:
    engine = load("llama")
    prompt = some_tokens(3, 20)
    with torch.no_grad():
        logits = plain(input_ids=torch.tensor([prompt])).logits[0, -1]
    drawn = await finish_all(engine.generator, [request(prompt, n=1, seed=s, temperature=0.5) for s in range(8)])
    for reply in drawn:
        expected = (logits / 0.5).log_softmax(-1)[reply.tokens[0]]
        assert reply.log_probs[0] == pytest.approx(float(expected), abs=1e-5)
    likeliest = await finish(engine.generator, request(prompt, n=1, temperature=0.0))
    assert likeliest.tokens[0] == int(logits.argmax())
    assert likeliest.log_probs[0] == pytest.approx(float(logits.log_softmax(-1).max()), abs=1e-5)


async def test_the_seed_fixes_the_reply(load: Load) -> None:
    engine = load("llama")
    alone = await finish(engine.generator, request([5, 6, 7], n=20, seed=11))
    again, other, *_ = await finish_all(
        engine.generator, [request([5, 6, 7], n=20, seed=11), request([5, 6, 7], n=20, seed=12), *mixed_requests(6)]
    )
    assert again.tokens == alone.tokens
    assert other.tokens != alone.tokens


async def test_requests_join_while_others_are_under_way(load: Load, plain: Any) -> None:
    engine = load("llama")

    async def late(wanted: Any, after_passes: int) -> Continuation:
        await reached(engine.generator, after_passes)
        return await finish(engine.generator, wanted)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(late(wanted, 4 * i)) for i, wanted in enumerate(mixed_requests(8))]
        tasks.append(group.create_task(finish(engine.generator, request([9, 9], n=40))))
    replies = [task.result() for task in tasks]
    # Batched: together they take hardly more passes than the longest alone.
    assert engine.generator.passes < 60 < sum(len(reply.tokens) for reply in replies)
    assert worst_gap(replies, plain) < 1e-5


# ---- limits


@pytest.mark.parametrize("max_sequences", [1, 3])
async def test_fewer_places_than_requests(max_sequences: int, load: Load, plain: Any) -> None:
    engine = load("llama", max_sequences=max_sequences)
    wanted = mixed_requests(10)
    replies = await finish_all(engine.generator, wanted)
    assert [len(reply.tokens) for reply in replies] == [one.max_new_tokens for one in wanted]
    assert worst_gap(replies, plain) < 1e-5


@pytest.mark.parametrize("tokens", [1, 70, 150, 400])
async def test_a_tiny_cache_is_slow_but_right(tokens: int, load: Load, plain: Any) -> None:
    engine = load("llama", max_cache_bytes=tokens * TOKEN_BYTES)
    first = await finish_all(engine.generator, mixed_requests(14))
    nexts = [request([*f.context, *f.tokens, *some_tokens(i, 5)], n=6, seed=i) for i, f in enumerate(first)]
    second = await finish_all(engine.generator, nexts)
    assert [len(reply.tokens) for reply in second] == [6] * 14
    assert worst_gap([*first, *second], plain) < 1e-5


async def test_long_prompts_are_fed_in_pieces(load: Load, plain: Any) -> None:
    engine = load("llama", max_pass_tokens=16)
    system = some_tokens(1, 50)
    wanted = [request([*system, *some_tokens(n, 40 * n)], n=5, seed=n) for n in range(4) for _ in range(2)]
    replies = await finish_all(engine.generator, wanted)
    assert engine.generator.passes > (50 + 40 + 80 + 120) / 16
    assert worst_gap(replies, plain) < 1e-5


async def test_the_context_may_be_filled_to_its_end(load: Load, plain: Any) -> None:
    engine = load("llama")
    assert engine.generator.context_tokens == 512
    reply = await finish(engine.generator, request(some_tokens(1, 500), n=12))
    assert len(reply.tokens) == 12
    assert worst_gap([reply], plain) < 1e-5


@pytest.mark.parametrize(
    ("tokens", "n", "code", "message"),
    [
        (
            [5] * 500,
            13,
            "context_overflow",
            "500 tokens of context and 13 to generate exceed the model's context of 512",
        ),
        ([5, 300], 1, "token_out_of_range", "token id 300 is outside the model's vocabulary of 300"),
        ([5, -1], 1, "token_out_of_range", "outside the model's vocabulary of 300; the tokenizer belongs to another"),
        ([], 1, "empty_prompt", "needs at least one token, got none"),
    ],
)
async def test_a_request_that_cannot_be_served_is_refused(
    tokens: list[int], n: int, code: str, message: str, load: Load
) -> None:
    engine = load("llama")
    with pytest.raises(UserError, match=message) as refused:
        await finish(engine.generator, request(tokens, n=n))
    assert refused.value.code == code
    assert (await finish(engine.generator, request([5], n=1))).finish_reason == "length"


# ---- leaving early


async def test_closing_the_iterator_frees_the_place(load: Load, plain: Any) -> None:
    engine = load("llama", max_sequences=1)
    for seed in range(5):
        async with aclosing(engine.generator.generate(request([5, 6], n=500, seed=seed))) as chunks:
            async for _ in chunks:
                break
    passes = engine.generator.passes
    reply = await finish(engine.generator, request([7, 8], n=4))
    assert engine.generator.passes - passes <= 6  # nothing else runs
    assert worst_gap([reply], plain) < 1e-5


async def test_cancelling_tasks_at_any_moment_harms_nobody(load: Load, plain: Any) -> None:
    engine = load("llama", max_sequences=4, max_pass_tokens=16)
    generator = engine.generator
    system = some_tokens(1, 60)
    survivors = [request([*system, *some_tokens(n, 9)], n=12, seed=n) for n in range(4)]
    doomed = [request([*system, *some_tokens(n, 30)], n=40, seed=n) for n in range(40, 52)]
    async with asyncio.TaskGroup() as group:
        # Before they are admitted, while their shared prefix is half computed, while decoding.
        cut = [group.create_task(finish(generator, one)) for one in doomed]
        kept = [group.create_task(finish(generator, one)) for one in survivors]
        for number, task in enumerate(cut):
            await reached(generator, number)
            task.cancel()
    assert worst_gap([task.result() for task in kept], plain) < 1e-5
    after = await finish_all(generator, doomed[:4])
    assert worst_gap(after, plain) < 1e-5


async def test_close_ends_pending_requests_with_a_fault(load: Load) -> None:
    engine = load("llama", max_sequences=2)

    async def faulted(wanted: Any) -> str:
        with pytest.raises(EngineFault) as fault:
            await finish(engine.generator, wanted)
        return str(fault.value)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(faulted(request([5, n], n=500))) for n in range(3, 8)]
        await reached(engine.generator, 3)
        await engine.generator.close()
    assert [task.result() for task in tasks] == ["the generator was closed"] * 5
    await engine.generator.close()
    assert await faulted(request([5], n=1)) == "the generator is closed"


def test_an_engine_outlives_event_loops(tiny: Callable[[str], Path], plain: Any) -> None:
    engine = TorchEngine.load(
        tiny("llama"), dtype="float32", device="cpu", generator=GeneratorSettings(max_sequences=2)
    )

    async def abandon() -> None:
        """End the loop with requests under way."""
        asyncio.get_running_loop().create_task(finish(engine.generator, request([5, 6], n=400)))
        await finish(engine.generator, request([7, 8], n=3))

    async def ask() -> Continuation:
        return await finish(engine.generator, request([5, 6, 7], n=6, seed=1))

    first = asyncio.run(ask())
    asyncio.run(abandon())
    second = asyncio.run(ask())
    asyncio.run(engine.close())
    assert first.tokens == second.tokens
    assert worst_gap([first, second], plain) < 1e-5


# ---- one thread


def test_the_model_is_loaded_on_the_thread_that_computes(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second thread that computes gets a team of OpenMP threads too, and with more threads than cores all sleep."""
    threads: list[str] = []

    def watched(*args: Any, **options: Any) -> TorchModel:
        threads.append(threading.current_thread().name)
        return load_model(*args, **options)

    monkeypatch.setattr(torch_engine, "load_model", watched)
    engine = TorchEngine.load(tiny("llama"), device="cpu")
    threads.append(engine.executor.submit(lambda: threading.current_thread().name).result())
    asyncio.run(engine.close())
    assert threads[0] == threads[1] != threading.current_thread().name


def test_a_model_that_cannot_be_loaded_leaves_no_thread(tiny: Callable[[str], Path]) -> None:
    before = threading.active_count()
    with pytest.raises(UserError, match="bamba"):
        TorchEngine.load(tiny("bamba"))
    for _ in range(50):
        if threading.active_count() == before:
            break
        time.sleep(0.05)
    assert threading.active_count() == before


# ---- faults


class Exhausted:
    """Attention that runs out of memory in its third pass, like a machine would."""

    passes = 0

    def __init__(self, layout: Any, cache: Any) -> None:
        self._inner = CachedAttention(layout, cache)
        Exhausted.passes += 1

    def __call__(self, *args: Any) -> torch.Tensor:
        if Exhausted.passes == 3:
            raise torch.OutOfMemoryError("no memory left")
        return self._inner(*args)


@pytest.fixture
def exhausted() -> Iterator[type[Exhausted]]:
    Exhausted.passes = 0
    yield Exhausted
    Exhausted.passes = 0


@pytest.mark.timeout(60)
async def test_a_pass_that_runs_out_of_memory_faults_its_requests_and_no_later_ones(
    exhausted: type[Exhausted], load: Load, plain: Any
) -> None:
    engine = load("llama")
    generator = TorchGenerator(engine.model, engine.executor, GeneratorSettings(max_sequences=2), attention=exhausted)

    async def fault_of(wanted: Any) -> str:
        with pytest.raises(EngineFault) as fault:
            await finish(generator, wanted)
        return str(fault.value)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(fault_of(request([5, n], n=20))) for n in range(3, 7)]
    assert {task.result() for task in tasks} == {"out of memory while generating: no memory left"}
    replies = await finish_all(generator, mixed_requests(6))
    assert worst_gap(replies, plain) < 1e-5
    await generator.close()
