"""Generation: the same tokens and log-probs as plain transformers, whatever shares the batch, and nothing twice."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_cases import (
    FAMILIES,
    Continuation,
    finish,
    finish_all,
    plain_peft,
    randomise_adapters,
    reached,
    request,
    some_tokens,
    worst_gap,
)
from oracle import greedy, plain_model
from row_cases import group_rows

from agentrft.engines.torch_engine import GeneratorSettings, LoraSpec, TorchEngine
from agentrft.engines.torch_generator import TorchGenerator
from agentrft.engines.torch_pass import CachedAttention
from agentrft.errors import EngineFault, UserError
from agentrft.losses import SupervisedLoss

Load = Callable[..., TorchEngine]
TOKEN_BYTES = 2 * 3 * 2 * 16 * 4
"""KV of one token of a tiny model: keys and values · layers · key heads · width · float32."""


class FedTokens:
    """Counts what the generator computes: `with`-free, ask `since()`."""

    def __init__(self, engine: TorchEngine) -> None:
        self._generator = engine.generator
        self._last = engine.generator.fed_tokens

    def since(self) -> int:
        """Tokens computed since the last call."""
        before, self._last = self._last, self._generator.fed_tokens
        return self._last - before


@pytest.fixture(scope="module")
def plain(tiny: Callable[[str], Path]) -> Any:
    """The tiny Llama in plain transformers."""
    return plain_model(tiny("llama"))


def mixed_requests(count: int = 10, **fields: Any) -> list[Any]:
    """Prompts of 1 to 60 tokens, some alike, some extending others; different lengths and seeds."""
    system = some_tokens(99, 12)
    prompts = [[5], some_tokens(1, 2), system, [*system, 7], *([*system, *some_tokens(n, 4 * n)] for n in range(2, 12))]
    return [request(prompts[i % len(prompts)], n=3 + 5 * (i % 4), seed=i, **fields) for i in range(count)]


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


# ---- nothing twice


async def test_a_single_request_feeds_its_prompt_and_all_but_its_last_token(load: Load) -> None:
    engine = load("llama")
    await finish(engine.generator, request(some_tokens(1, 30), n=7))
    assert engine.generator.fed_tokens == 30 + 6
    assert engine.generator.passes == 7


async def test_a_groups_prompt_is_prefilled_once(load: Load, plain: Any) -> None:
    engine = load("llama")
    prompt = some_tokens(1, 30)
    replies = await finish_all(engine.generator, [request(prompt, n=5, seed=s) for s in range(8)])
    # 29 tokens shared; each member feeds the prompt's last token and four of its own five.
    assert engine.generator.fed_tokens == 29 + 8 * (1 + 4)
    assert len({reply.tokens for reply in replies}) == 8
    assert worst_gap(replies, plain) < 1e-5


async def test_a_common_system_prompt_is_computed_once(load: Load, plain: Any) -> None:
    engine = load("llama")
    system = some_tokens(1, 20)
    questions = [[10 * n + 3, *some_tokens(n, 4 + n)] for n in range(1, 4)]
    wanted = [request([*system, *q], n=3, seed=m) for q in questions for m in range(2)]
    replies = await finish_all(engine.generator, wanted)
    # The system prompt once; a question of 6, 7 or 8 tokens is below eight, too short for a block of its own.
    assert engine.generator.fed_tokens == 20 + 2 * sum(len(q) for q in questions) + 6 * 2
    assert worst_gap(replies, plain) < 1e-5


async def test_groups_under_a_system_prompt_share_on_both_levels(load: Load, plain: Any) -> None:
    engine = load("llama")
    system = some_tokens(1, 20)
    questions = [[10 * n + 3, *some_tokens(n, 14)] for n in range(1, 4)]
    wanted = [request([*system, *q], n=3, seed=m) for q in questions for m in range(4)]
    replies = await finish_all(engine.generator, wanted)
    # 20 once, then 14 of each question's 15 once, then per member: the last prompt token and 2 generated ones.
    assert engine.generator.fed_tokens == 20 + 3 * 14 + 12 * (1 + 2)
    assert worst_gap(replies, plain) < 1e-5


async def test_the_next_turn_feeds_only_what_is_new(load: Load, plain: Any) -> None:
    engine = load("llama")
    fed = FedTokens(engine)
    first = await finish(engine.generator, request(some_tokens(1, 30), n=6))
    assert fed.since() == 30 + 5
    result = some_tokens(2, 9)
    second = await finish(engine.generator, request([*first.context, *first.tokens, *result], n=4))
    # The first reply's last token has not been fed yet; then the tool result, then three of four generated tokens.
    assert fed.since() == 1 + 9 + 3
    third = await finish(engine.generator, request([*second.context, *second.tokens, 8], n=1))
    assert fed.since() == 1 + 1
    assert worst_gap([first, second, third], plain) < 1e-5


async def test_turns_of_a_whole_group_feed_only_what_is_new(load: Load, plain: Any) -> None:
    engine = load("llama")
    prompt = some_tokens(1, 30)
    firsts = await finish_all(engine.generator, [request(prompt, n=5, seed=s) for s in range(6)])
    fed = FedTokens(engine)
    nexts = [request([*f.context, *f.tokens, *some_tokens(i, 3 + i)], n=4) for i, f in enumerate(firsts)]
    seconds = await finish_all(engine.generator, nexts)
    assert fed.since() == sum(1 + 3 + i + 3 for i in range(6))
    assert worst_gap([*firsts, *seconds], plain) < 1e-5


async def test_a_later_request_takes_a_common_prefix_from_an_idle_one(load: Load, plain: Any) -> None:
    engine = load("llama")
    fed = FedTokens(engine)
    system = some_tokens(1, 20)
    one = await finish(engine.generator, request([*system, 40, 41], n=3))
    assert fed.since() == 22 + 2
    two = await finish(engine.generator, request([*system, 50, 51, 52], n=3))
    assert fed.since() == 3 + 2
    again = await finish(engine.generator, request([*system, 40, 41], n=3))
    assert fed.since() == 1 + 1 + 2  # 40 is known from the first, but one token is no block
    short = await finish(engine.generator, request(system[:5], n=3))
    assert fed.since() <= 5 + 2
    assert again.tokens == one.tokens
    assert worst_gap([one, two, again, short], plain) < 1e-5


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


# ---- weights that change


async def test_new_weights_take_over_in_the_middle_of_a_reply(
    load: Load, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    engine = load("llama", lora=LoraSpec(rank=4, alpha=8))
    randomise_adapters(engine)
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    await engine.learner.save(tmp_path / "old")
    wanted = [request([*some_tokens(1, 20), n], n=40, seed=n) for n in range(3, 6)]

    async def update() -> None:
        await reached(engine.generator, 10)
        await engine.learner.forward_backward(group_rows(), SupervisedLoss())
        await engine.learner.optim_step(0.05)

    async with asyncio.TaskGroup() as group:
        replies_task = group.create_task(finish_all(engine.generator, wanted))
        group.create_task(update())
    replies = replies_task.result()
    await engine.learner.save(tmp_path / "new")

    old, new = (plain_peft(tiny("llama"), tmp_path / name) for name in ("old", "new"))
    for reply in replies:
        change = reply.versions.index(1)
        assert 5 < change < 40
        assert reply.versions == (0,) * change + (1,) * (40 - change)
        before = Continuation(
            context=reply.context,
            tokens=reply.tokens[:change],
            log_probs=reply.log_probs[:change],
            finish_reason=None,
            versions=(),
        )
        # After the change the whole context is computed again: no old keys under new weights.
        after = Continuation(
            context=reply.context + reply.tokens[:change],
            tokens=reply.tokens[change:],
            log_probs=reply.log_probs[change:],
            finish_reason=None,
            versions=(),
        )
        assert worst_gap([before], old) < 1e-5
        assert worst_gap([after], new) < 1e-5
        assert worst_gap([after], old) > 0.01


async def test_idle_prefixes_are_forgotten_with_their_weights(
    load: Load, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    engine = load("llama", lora=LoraSpec(rank=4, alpha=8))
    wanted = [request([*some_tokens(1, 20), n], n=4) for n in range(3, 6)]
    await finish_all(engine.generator, wanted)
    await engine.learner.forward_backward(group_rows(), SupervisedLoss())
    await engine.learner.optim_step(0.05)
    fed = FedTokens(engine)
    replies = await finish_all(engine.generator, wanted)
    assert fed.since() == 20 + 3 * (1 + 3)
    await engine.learner.save(tmp_path)
    assert worst_gap(replies, plain_peft(tiny("llama"), tmp_path)) < 1e-5
    assert {version for reply in replies for version in reply.versions} == {1}


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
    generator = TorchGenerator(engine.model, engine._executor, GeneratorSettings(max_sequences=2), attention=exhausted)

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
