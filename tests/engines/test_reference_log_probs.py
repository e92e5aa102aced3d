"""The reference of a learner: the weights that training began with, at the price of one more merge."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from engine_cases import largest_gap, randomise_adapters
from oracle import plain_model
from row_cases import group_rows

from agentrft.engines.torch_engine import LoraSpec, TorchEngine
from agentrft.errors import UserError
from agentrft.losses import SupervisedLoss

LORA = LoraSpec(rank=4, alpha=8)
Load = Callable[..., TorchEngine]


def start(load: Load, family: str) -> TorchEngine:
    engine = load(family, lora=LORA)
    randomise_adapters(engine)
    return engine


async def test_reference_log_probs_are_the_base_models(load: Load, tiny: Callable[[str], Path]) -> None:
    rows = group_rows(seed=5)
    engine = start(load, "qwen2")
    before = await engine.learner.log_probs(rows)
    reference = await engine.learner.log_probs(rows, reference=True)
    assert largest_gap(reference, rows, plain_model(tiny("qwen2"))) < 1e-5
    assert max(abs(a - b) for x, y in zip(before, reference, strict=True) for a, b in zip(x, y, strict=True)) > 0.1
    assert await engine.learner.log_probs(rows) == before  # the adapter is back, bit for bit
    assert all(parameter.grad is None for parameter in engine.model.parameters().values())


async def test_the_reference_is_the_adapter_that_training_began_with(load: Load, tmp_path: Path) -> None:
    rows = group_rows(seed=5)
    folder, checkpoint = tmp_path / "supervised", tmp_path / "checkpoint"
    for each in (folder, checkpoint):
        each.mkdir()
    await start(load, "llama").learner.save(folder)
    engine = load("llama", lora=LORA)
    await engine.learner.load_weights(folder)
    began = await engine.learner.log_probs(rows)
    assert await engine.learner.log_probs(rows, reference=True) == began
    await engine.learner.forward_backward(rows, SupervisedLoss())
    await engine.learner.optim_step(1e-2)
    after = await engine.learner.log_probs(rows)
    assert after != began
    assert await engine.learner.log_probs(rows, reference=True) == began
    assert await engine.learner.log_probs(rows) == after
    await engine.learner.save(checkpoint)
    resumed = load("llama", lora=LORA)
    await resumed.learner.load_weights(folder)
    await resumed.learner.load(checkpoint)
    assert await resumed.learner.log_probs(rows, reference=True) == began
    assert await resumed.learner.log_probs(rows) == after


async def test_reference_log_probs_need_an_adapter(load: Load) -> None:
    engine = load("llama")
    with pytest.raises(UserError, match="need an adapter to switch off") as refusal:
        await engine.learner.log_probs(group_rows(), reference=True)
    assert (refusal.value.code, refusal.value.param) == ("reference_needs_adapter", "training.lora")
