"""What is computed once stays computed: prompts, turns, prefixes of others; until the weights change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from engine_cases import (
    TOKEN_BYTES,
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
from row_cases import group_rows

from agentrft.engines.torch_engine import LoraSpec, TorchEngine
from agentrft.errors import EngineFault
from agentrft.losses import SupervisedLoss

Load = Callable[..., TorchEngine]


class FedTokens:
    """Counts what the generator computes: `with`-free, ask `since()`."""

    def __init__(self, engine: TorchEngine) -> None:
        self._generator = engine.generator
        self._last = engine.generator.fed_tokens

    def since(self) -> int:
        """Tokens computed since the last call."""
        before, self._last = self._last, self._generator.fed_tokens
        return self._last - before


def tree_size(replies: Iterable[Continuation]) -> int:
    """Tokens to be computed when everything that any two replies have in common is computed once."""
    rows = [(*reply.context, *reply.tokens) for reply in replies]
    return len({row[:n] for row in rows for n in range(1, len(row))})


async def test_a_single_request_feeds_its_prompt_and_all_but_its_last_token(load: Load) -> None:
    engine = load("llama")
    await finish(engine.generator, request(some_tokens(1, 30), n=7))
    assert engine.generator.fed_tokens == 30 + 6
    assert engine.generator.passes == 7


async def test_a_groups_prompt_is_prefilled_once(load: Load, plain: Any) -> None:
    engine = load("llama")
    prompt = some_tokens(1, 30)
    replies = await finish_all(engine.generator, [request(prompt, n=5, seed=s) for s in range(8)])
    # The prompt once, then four of each member's own five: the last is drawn, not fed.
    assert len({reply.tokens[0] for reply in replies}) == 8
    assert engine.generator.fed_tokens == tree_size(replies) == 30 + 8 * 4
    assert worst_gap(replies, plain) < 1e-5


async def test_a_common_system_prompt_is_computed_once(load: Load, plain: Any) -> None:
    engine = load("llama")
    system = some_tokens(1, 20)
    questions = [[10 * n + 3, *some_tokens(n, 4 + n)] for n in range(1, 4)]
    wanted = [request([*system, *q], n=3, seed=m) for q in questions for m in range(2)]
    replies = await finish_all(engine.generator, wanted)
    # The system prompt once, each question once (too short for a block, but its members share a slot), then the rest.
    assert engine.generator.fed_tokens == tree_size(replies) == 20 + sum(len(q) for q in questions) + 6 * 2
    assert worst_gap(replies, plain) < 1e-5


async def test_groups_under_a_system_prompt_share_on_both_levels(load: Load, plain: Any) -> None:
    engine = load("llama")
    system = some_tokens(1, 20)
    questions = [[10 * n + 3, *some_tokens(n, 14)] for n in range(1, 4)]
    wanted = [request([*system, *q], n=3, seed=m) for q in questions for m in range(4)]
    replies = await finish_all(engine.generator, wanted)
    # 20 once, each question's 15 once, then per member two generated ones.
    assert engine.generator.fed_tokens == tree_size(replies) == 20 + 3 * 15 + 12 * 2
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


# ---- members that do alike


async def test_members_that_go_on_alike_are_computed_once_over_turns(load: Load, plain: Any) -> None:
    engine = load("llama")
    fed = FedTokens(engine)
    prompt, result = some_tokens(1, 30), some_tokens(2, 9)
    alike = [request(prompt, n=6, seed=s, temperature=0.0) for s in range(5)]
    firsts = await finish_all(engine.generator, alike)
    assert len({reply.tokens for reply in firsts}) == 1
    assert fed.since() == 30 + 5
    nexts = [request([*f.context, *f.tokens, *result], n=4, seed=s, temperature=0.0) for s, f in enumerate(firsts)]
    seconds = await finish_all(engine.generator, nexts)
    assert fed.since() == 1 + 9 + 3
    # One that was told something else goes on from the same point by itself.
    others = [request([*s.context, *s.tokens, 7 + (m == 2)], n=3, seed=m) for m, s in enumerate(seconds)]
    thirds = await finish_all(engine.generator, others)
    # Its first new token, the last of the reply, is one that the others feed as well.
    assert fed.since() == tree_size(thirds) - tree_size(seconds) + 1
    assert worst_gap([*firsts, *seconds, *thirds], plain) < 1e-5


@pytest.mark.parametrize("slots", [1, 3, 100])
async def test_members_part_when_they_draw_differently_however_few_slots_there_are(load: Load, slots: int) -> None:
    engine = load("llama", max_cache_bytes=slots * 64 * TOKEN_BYTES)
    wanted = [request(some_tokens(1, 20), n=n, seed=s, temperature=0.2) for s, n in enumerate([12, 3, 12, 7, 12, 12])]
    replies = await finish_all(engine.generator, wanted)
    alone = [await finish(engine.generator, one) for one in wanted]
    assert [reply.tokens for reply in replies] == [reply.tokens for reply in alone]
    assert 1 < len({reply.tokens[0] for reply in replies}) < len(replies)  # some part at once, some later
    for reply, by_itself in zip(replies, alone, strict=True):
        assert reply.log_probs == pytest.approx(by_itself.log_probs, abs=1e-5)


async def test_a_member_that_leaves_takes_nothing_from_those_like_it(load: Load, plain: Any) -> None:
    engine = load("llama")
    prompt = some_tokens(1, 20)
    alike = [request(prompt, n=10, seed=s, temperature=0.0) for s in range(3)]
    async with aclosing(engine.generator.generate(alike[0])) as leaving:
        rest = asyncio.create_task(finish_all(engine.generator, alike[1:]))
        await anext(leaving)
        await anext(leaving)
    replies = await rest
    assert replies[0].tokens == replies[1].tokens
    assert len(replies[0].tokens) == 10
    assert worst_gap(replies, plain) < 1e-5


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


async def test_diverged_weights_are_a_fault_that_the_next_weights_mend(load: Load, plain: Any, tmp_path: Path) -> None:
    engine = load("llama", lora=LoraSpec(rank=4, alpha=8))
    await engine.learner.save(tmp_path)
    for _, adapted in engine.model.adapters():
        adapted.lora_b.data.fill_(float("nan"))
    engine.model.merge()
    wanted = [request([5, 6, n], n=3 + 4 * n, seed=n) for n in range(8)]
    with pytest.raises(ExceptionGroup) as faults:
        await finish_all(engine.generator, wanted)
    assert {type(fault) for fault in faults.value.exceptions} == {EngineFault}
    await engine.learner.load(tmp_path)
    # Slots are used again; what the bad weights left in them must not show.
    assert worst_gap(await finish_all(engine.generator, wanted), plain) < 1e-5
