"""The same code on a GPU gives what plain transformers gives on the CPU, and learner and generator agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engine_cases import (
    FAMILIES,
    TOKEN_BYTES,
    finish_all,
    largest_gap,
    mixed_requests,
    plain_gradients,
    plain_peft,
    randomise_adapters,
    relative_difference,
    request,
    some_tokens,
    worst_gap,
)
from oracle import plain_model, weighted_loss
from row_cases import group_rows

from agentrft.engines.torch_engine import LoraSpec, TorchEngine
from agentrft.errors import UserError
from agentrft.losses import PolicyGradientLoss, SupervisedLoss

pytestmark = pytest.mark.gpu
LORA = LoraSpec(rank=4, alpha=8)
Load = Callable[..., TorchEngine]


def gradients(engine: TorchEngine) -> dict[str, torch.Tensor]:
    return {name: p.grad.cpu() for name, p in engine.model.parameters().items() if p.grad is not None}


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
async def test_gradients_are_those_of_plain_transformers(
    family: str, lora: LoraSpec | None, load: Load, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = group_rows(seed=1)
    engine = load(family, lora=lora, dtype="float32", micro_batch_tokens=90)
    randomise_adapters(engine)
    report = await engine.learner.forward_backward(rows, SupervisedLoss())
    await engine.learner.save(tmp_path)
    reference = plain_model(tiny(family)) if lora is None else plain_peft(tiny(family), tmp_path)
    weighted_loss(reference, rows).backward()
    assert largest_gap(report.log_probs, rows, reference) < 1e-4
    assert relative_difference(gradients(engine), plain_gradients(reference)) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
async def test_log_probs_are_those_of_transformers(family: str, load: Load, tiny: Callable[[str], Path]) -> None:
    engine = load(family, lora=LORA, dtype="float32")
    replies = await finish_all(engine.generator, mixed_requests(14))
    assert worst_gap(replies, plain_model(tiny(family))) < 1e-4


async def test_a_groups_prompt_is_prefilled_once_and_turns_feed_only_what_is_new(load: Load) -> None:
    engine = load("llama", dtype="float32")
    prompt = some_tokens(1, 30)
    firsts = await finish_all(engine.generator, [request(prompt, n=5, seed=s) for s in range(8)])
    assert engine.generator.fed_tokens == 29 + 8 * (1 + 4)
    nexts = [request([*f.context, *f.tokens, *some_tokens(i, 4)], n=3) for i, f in enumerate(firsts)]
    await finish_all(engine.generator, nexts)
    assert engine.generator.fed_tokens == 29 + 8 * (1 + 4) + 8 * (1 + 4 + 2)


async def test_a_tiny_cache_is_right(load: Load, tiny: Callable[[str], Path]) -> None:
    engine = load("gemma3", dtype="float32", max_cache_bytes=150 * TOKEN_BYTES)
    replies = await finish_all(engine.generator, mixed_requests(14))
    assert worst_gap(replies, plain_model(tiny("gemma3"))) < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_learner_and_generator_agree_before_and_after_updates(dtype: str, load: Load) -> None:
    engine = load("llama", lora=LORA, dtype=dtype)
    for version in range(3):
        replies = await finish_all(engine.generator, mixed_requests(10))
        assert {v for reply in replies for v in reply.versions} == {version}
        recomputed = await engine.learner.log_probs([reply.row for reply in replies])
        bound = 1e-4 if dtype == "float32" else 0.1
        for reply, values in zip(replies, recomputed, strict=True):
            assert list(reply.log_probs) == pytest.approx(values[len(reply.context) :], abs=bound)
        await engine.learner.forward_backward(group_rows(seed=version), PolicyGradientLoss())
        assert (await engine.learner.optim_step(1e-2)).grad_norm > 0.0


@pytest.mark.parametrize("lora", [LORA, None], ids=["lora", "full"])
async def test_a_checkpoint_resumes_on_the_gpu_and_on_the_cpu(
    lora: LoraSpec | None, load: Load, tmp_path: Path
) -> None:
    first = load("qwen3", lora=lora, dtype="float32")
    await first.learner.forward_backward(group_rows(seed=1), SupervisedLoss())
    await first.learner.optim_step(1e-2)
    await first.learner.save(tmp_path)
    rows = group_rows(seed=2)
    expected = await first.learner.log_probs(rows)
    for options, bound in (({}, 0.0), ({"device": "cpu"}, 1e-4)):
        other = load("qwen3", lora=lora, dtype="float32", **options)
        await other.learner.load(tmp_path)
        assert other.learner.policy_version == 1
        for mine, theirs in zip(await other.learner.log_probs(rows), expected, strict=True):
            assert mine == pytest.approx(theirs, abs=bound)
        await other.learner.forward_backward(rows, SupervisedLoss())
        assert (await other.learner.optim_step(1e-2)).policy_version == 2


async def test_auto_takes_the_gpu(device: str, load: Load) -> None:
    assert load("llama", device="auto").device.startswith(device)


def test_exact_refuses_the_gpu(device: str, tiny: Callable[[str], Path]) -> None:
    with pytest.raises(UserError, match="exact mode is for CPUs") as refused:
        TorchEngine.load(tiny("llama"), device=device, exact=True)
    assert refused.value.code == "exact_unsupported"
