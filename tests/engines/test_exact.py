"""Exact mode: the same bits whatever shares the batch, however late requests come, whatever was evicted."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_cases import TOKEN_BYTES, Continuation, finish, finish_all, request, some_tokens, worst_gap
from oracle import plain_model
from row_cases import group_rows

from agentrft.engines.torch_engine import LoraSpec, TorchEngine
from agentrft.engines.torch_exact import check_rows
from agentrft.errors import UserError
from agentrft.losses import PolicyGradientLoss

Load = Callable[..., TorchEngine]
LORA = LoraSpec(rank=4, alpha=8)

RUNS: dict[str, dict[str, Any]] = {
    "at once": {},
    "late": {},
    "few places": {"max_sequences": 3},
    "tiny cache": {"max_cache_bytes": 150 * TOKEN_BYTES},
    "small passes": {"max_pass_tokens": 32},
}
"""Five ways to lay the same work out differently; all but the first also with random delays."""


@pytest.fixture(autouse=True)
def undo_deterministic_algorithms() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


async def play(engine: TorchEngine, delays: random.Random | None) -> list[list[Continuation]]:
    """Three groups of four episodes with three turns each, prompts from 20 to 100 tokens."""

    async def episode(group: int, member: int) -> list[Continuation]:
        tokens = [*some_tokens(0, 9), *some_tokens(50 + group, 11 + 40 * group)]
        turns = []
        for turn in range(3):
            if delays is not None:
                await asyncio.sleep(delays.random() * 0.02)
            wanted = request(tokens, n=10, seed=100 * group + 10 * member + turn, stop=[2, 3, 4], order=(group, member))
            turns.append(await finish(engine.generator, wanted))
            tokens = [*tokens, *turns[-1].tokens, *some_tokens(group + member + turn, 1 + 3 * member)]
        return turns

    async with asyncio.TaskGroup() as tasks:
        episodes = [tasks.create_task(episode(g, m)) for g in range(3) for m in range(4)]
    return [task.result() for task in episodes]


@pytest.mark.parametrize(("family", "dtype"), [("gemma3", "float32"), ("llama", "bfloat16")])
async def test_every_run_gives_the_same_bits(family: str, dtype: str, load: Load, tiny: Callable[[str], Path]) -> None:
    found, fed = {}, {}
    for number, (name, options) in enumerate(RUNS.items()):
        engine = load(family, lora=LORA, dtype=dtype, exact=True, **options)
        found[name] = await play(engine, random.Random(number) if number else None)
        fed[name] = engine.generator.fed_tokens
    assert all(run == found["at once"] for run in found.values())
    assert fed["tiny cache"] > 1.2 * fed["at once"]  # it did evict and compute again
    turns = [turn for episode in found["at once"] for turn in episode]
    assert len({turn.tokens for turn in turns}) > 30
    if dtype == "float32":
        assert worst_gap(turns, plain_model(tiny(family))) < 1e-5


async def test_training_on_it_gives_the_same_bits(load: Load, tmp_path: Path) -> None:
    saved = []
    for name, options in list(RUNS.items())[:3]:
        engine = load("llama", lora=LORA, dtype="bfloat16", exact=True, **options)
        for step in range(2):
            asked = asyncio.create_task(
                finish_all(engine.generator, [request([5, 6, step], n=9, seed=s) for s in "ab"])
            )
            await engine.learner.forward_backward(group_rows(seed=step), PolicyGradientLoss())
            await engine.learner.optim_step(1e-3)
            await asked
        (tmp_path / name).mkdir()
        await engine.learner.save(tmp_path / name)
        saved.append((tmp_path / name / "adapter_model.safetensors").read_bytes())
    assert saved[0] == saved[1] == saved[2]


async def test_without_it_the_batch_shows_in_the_bits(load: Load) -> None:
    """What exact mode is for: if this ever fails, plain mode has become exact and the mode can go."""
    wanted = [request(some_tokens(n, 20 + n), n=12, seed=n) for n in range(12)]
    engine = load("llama", dtype="float32")
    together = await finish_all(engine.generator, wanted)
    alone = [await finish(load("llama", dtype="float32").generator, one) for one in wanted]
    assert together != alone


def test_it_is_refused_off_the_cpu(tiny: Callable[[str], Path]) -> None:
    with pytest.raises(
        UserError, match="exact mode is for CPUs; got device meta; set device to cpu or exact"
    ) as refused:
        TorchEngine.load(tiny("llama"), dtype="float32", device="meta", exact=True)
    assert (refused.value.code, refused.value.param) == ("exact_unsupported", "training.exact")


class OtherMachine(torch.Tensor):
    """A weight on a machine whose products of more than 100 rows round differently."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            out = func(*args, **(kwargs or {}))
            if func is torch.nn.functional.linear and args[0].shape[0] > 100:
                out = out.nextafter(out + 1)
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_machine_on_which_rows_depend_on_their_number_is_refused(dtype: torch.dtype) -> None:
    weight = torch.randn(48, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    check_rows(weight)
    with pytest.raises(UserError, match="on this machine 112 rows round differently from 16 in torch") as refused:
        check_rows(weight.as_subclass(OtherMachine))
    assert (refused.value.code, refused.value.param) == ("exact_unsupported", "training.exact")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(64, 64), (128, 64), (300, 64), (576, 576), (1536, 576), (576, 1536)])
def test_where_a_row_depends_on_its_place_exact_mode_is_refused(dtype: torch.dtype, shape: tuple[int, int]) -> None:
    """With AMX the larger products in bfloat16 do; other rows and other places than those that `check_rows` tries."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.randn(shape, generator=generator).to(dtype)
    x = torch.randn(128, shape[1], generator=generator).to(dtype)
    whole = torch.nn.functional.linear(x, weight)
    places = [slice(start, start + 16) for start in (1, 5, 16, 31, 100)]
    if all(torch.equal(torch.nn.functional.linear(x[place], weight), whole[place]) for place in places):
        return
    with pytest.raises(UserError, match="exact mode needs matrix products"):
        check_rows(weight)
