"""Packed training computes what plain transformers computes on padded rows: log-probs, gradients, updates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_cases import (
    FAMILIES,
    largest_gap,
    plain_gradients,
    plain_peft,
    randomise_adapters,
    relative_difference,
)
from oracle import padded_log_probs, plain_model, weighted_loss
from row_cases import CASES, PROMPT, group_rows, row
from safetensors.torch import load_file

from agentrft.engines.torch_engine import LoraSpec, TorchEngine
from agentrft.errors import EngineFault, UserError
from agentrft.losses import LOSSES, LossBatch, PolicyGradientLoss, SupervisedLoss
from agentrft.types import Row

LORA = LoraSpec(rank=4, alpha=8)
Load = Callable[..., TorchEngine]


def gradients(engine: TorchEngine) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in engine.model.parameters().items() if p.grad is not None}


def weights(engine: TorchEngine) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in engine.model.parameters().items()}


def start(load: Load, family: str | Path, lora: LoraSpec | None, **options: Any) -> TorchEngine:
    engine = load(family, lora=lora, **options)
    if lora is not None:
        randomise_adapters(engine)
    return engine


async def plain(engine: TorchEngine, folder: Path, saved: Path) -> Any:
    """The engine's present weights in plain transformers, with plain PEFT where it has an adapter, in float64.

    In float32 transformers itself is up to 6e-6 off, and a limit of 1e-5 would be on the sum of two errors.
    """
    if engine.model.lora is None:
        return plain_model(folder).double()
    await engine.learner.save(saved)
    return plain_peft(folder, saved).double()


@pytest.fixture(params=[LORA, None], ids=["lora", "full"])
def lora(request: pytest.FixtureRequest) -> LoraSpec | None:
    return request.param


# ---- log-probs and gradients


@pytest.mark.parametrize("family", FAMILIES)
async def test_gradients_and_log_probs_are_those_of_plain_transformers(
    family: str, lora: LoraSpec | None, load: Load, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    rows = group_rows(seed=1)
    engine = start(load, family, lora, micro_batch_tokens=90)
    report = await engine.learner.forward_backward(rows, SupervisedLoss())
    reference = await plain(engine, tiny(family), tmp_path)
    loss = weighted_loss(reference, rows)
    loss.backward()
    assert report.micro_batches > 1
    assert report.unique_tokens < 0.75 * report.row_tokens
    assert report.loss == pytest.approx(float(loss.detach()), abs=1e-5)
    assert largest_gap(report.log_probs, rows, reference) < 1e-5
    assert relative_difference(gradients(engine), plain_gradients(reference)) < 1e-5


@pytest.mark.parametrize("rows", CASES.values(), ids=CASES.keys())
async def test_case(
    rows: list[Row], lora: LoraSpec | None, load: Load, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    engine = start(load, "llama", lora)
    report = await engine.learner.forward_backward(rows, SupervisedLoss())
    reference = await plain(engine, tiny("llama"), tmp_path)
    weighted_loss(reference, rows).backward()
    assert largest_gap(report.log_probs, rows, reference) < 1e-5
    assert relative_difference(gradients(engine), plain_gradients(reference)) < 1e-5
    assert [len(values) for values in report.log_probs] == [len(one.ids) for one in rows]
    assert all(v == 0.0 for one, vs in zip(rows, report.log_probs, strict=True) for v in untrained(one, vs))


def untrained(one: Row, values: Any) -> list[float]:
    """What a report says of tokens that were not trained, or that nothing precedes."""
    return [v for t, (v, mark) in enumerate(zip(values, one.trained, strict=True)) if not mark or t == 0]


@pytest.mark.parametrize("family", ["llama", "gemma3"])
async def test_micro_batches_and_sharing_never_change_the_gradient(
    family: str, lora: LoraSpec | None, load: Load
) -> None:
    rows = group_rows(seed=2)
    found = {}
    for name, options in {
        "one": {"micro_batch_tokens": 10_000},
        "two": {"micro_batch_tokens": 200},
        "many": {"micro_batch_tokens": 1},
        "padded": {"micro_batch_tokens": 200, "share_prefixes": False},
    }.items():
        engine = start(load, family, lora, **options)
        report = await engine.learner.forward_backward(rows, PolicyGradientLoss())
        found[name] = (gradients(engine), report)
    counts = {name: report.micro_batches for name, (_, report) in found.items()}
    assert counts == {"one": 1, "two": 2, "many": len(rows), "padded": 2}
    one, report = found["one"]
    for other, other_report in found.values():
        assert relative_difference(other, one) < 1e-5
        assert other_report.loss == pytest.approx(report.loss, abs=1e-5)
        assert other_report.metrics == pytest.approx(report.metrics, abs=1e-5)
        assert other_report.row_tokens == report.row_tokens
    assert report.unique_tokens < found["many"][1].unique_tokens
    assert found["padded"][1].unique_tokens == report.row_tokens


async def test_the_policy_gradient_loss_gets_what_it_asks_for(
    load: Load, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    rows, spec = group_rows(seed=3), PolicyGradientLoss(mask_delta=0.01, weight_cap=2.0)
    engine = start(load, "llama", LORA, micro_batch_tokens=90)
    report = await engine.learner.forward_backward(rows, spec)
    reference = await plain(engine, tiny("llama"), tmp_path)
    expected = padded_log_probs(reference, rows)
    terms = [(r, t) for r, one in enumerate(rows) for t in range(1, len(one.ids)) if one.trained[t]]
    batch = LossBatch(
        log_probs=torch.stack([expected[r][t - 1] for r, t in terms]),
        generator_log_probs=torch.tensor([rows[r].log_probs[t] for r, t in terms]),
        credit=torch.tensor([rows[r].credit[t] for r, t in terms]),
        row=torch.tensor([r for r, _ in terms]),
    )
    result = LOSSES["pg_tv"](batch, spec)
    result.loss.backward()
    assert relative_difference(gradients(engine), plain_gradients(reference)) < 1e-5
    assert report.loss == pytest.approx(float(result.loss.detach()), abs=1e-5)
    means = {k: float(v) / len(terms) for k, v in result.metrics.items() if k != "tokens"}
    assert report.metrics == pytest.approx(means, rel=1e-4)
    assert 0.0 < report.metrics["masked_frac"] < 1.0


async def test_the_report_says_which_tokens_the_loss_left_out(load: Load) -> None:
    engine = load("llama", lora=LORA)
    rows = group_rows(seed=4)
    own = await engine.learner.log_probs(rows)
    # To the generator every second token was almost impossible: credit above 0 may not push those any further.
    apart = [
        [value - 20.0 * (t % 2) * one.trained[t] for t, value in enumerate(values)]
        for one, values in zip(rows, own, strict=True)
    ]
    given = [
        replace(one, log_probs=log_probs, credit=[0.5 * trained for trained in one.trained])
        for one, log_probs in zip(rows, apart, strict=True)
    ]
    loss = PolicyGradientLoss(mask_delta=1e-4)
    report = await engine.learner.forward_backward(given, loss)
    for one, gradient_T in zip(given, report.gradients, strict=True):
        assert len(gradient_T) == len(one.ids)
        for t in range(1, len(one.ids)):
            # Weight 1 on policy, nothing where it was left out.
            expected = -one.credit[t] if one.trained[t] and not t % 2 else 0.0
            assert gradient_T[t] == pytest.approx(expected, rel=1e-4)
    masked = sum(t % 2 for one in given for t, trained in enumerate(one.trained) if trained and t)
    trained = sum(sum(one.trained[1:]) for one in given)
    assert report.metrics["masked_frac"] == pytest.approx(masked / trained)


async def test_a_supervised_report_has_the_share_of_tokens_that_no_other_is_likelier_than(
    load: Load, tiny: Callable[[str], Path]
) -> None:
    engine, model, ids = load("llama", lora=None, micro_batch_tokens=8), plain_model(tiny("llama")), list(PROMPT)
    for _ in range(3):
        ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    least = int(model(torch.tensor([ids])).logits[0, -1].argmin())
    trained = [False] * len(PROMPT) + [True] * 4
    rows = [
        Row(
            ids=[*ids, least],
            trained=trained,
            log_probs=[0.0] * len(trained),
            credit=[0.25 if is_trained else 0.0 for is_trained in trained],
            unit=f"u{n}",
            group="g",
        )
        for n in range(2)
    ]
    report = await engine.learner.forward_backward(rows, SupervisedLoss())
    assert report.metrics["token_accuracy"] == 0.75  # in one micro-batch or in two
    assert "token_accuracy" not in (await engine.learner.forward_backward(rows, PolicyGradientLoss())).metrics


async def test_gradients_add_up_over_calls(load: Load) -> None:
    rows = group_rows(seed=4)
    whole, parts = start(load, "llama", LORA), start(load, "llama", LORA)
    await whole.learner.forward_backward(rows, SupervisedLoss())
    await parts.learner.forward_backward(rows[:5], SupervisedLoss())
    await parts.learner.forward_backward(rows[5:], SupervisedLoss())
    assert relative_difference(gradients(parts), gradients(whole)) < 1e-5


async def test_rows_without_trained_tokens_leave_no_gradient(load: Load) -> None:
    engine = load("llama", lora=LORA)
    for rows in ([], [row(PROMPT, [])]):
        report = await engine.learner.forward_backward(rows, SupervisedLoss())
        assert (report.loss, report.unique_tokens, report.row_tokens) == (0.0, 0, 0)
        assert [list(values) for values in report.log_probs] == [[0.0] * len(one.ids) for one in rows]
    assert gradients(engine) == {}


async def test_a_row_longer_than_the_context_is_refused(load: Load) -> None:
    engine = load("llama", lora=LORA)
    assert engine.model.context_tokens == 512
    await engine.learner.log_probs([row([5] * 512, [511])])
    with pytest.raises(UserError, match="a row has 513 tokens, the model's context is 512; lower") as refusal:
        await engine.learner.forward_backward([row([5] * 513, [512])], SupervisedLoss())
    assert refusal.value.code == "context_overflow"
    assert refusal.value.param == "agent.limits.max_episode_tokens"


# ---- updates


async def test_two_updates_are_those_of_plain_adamw_with_clipping(
    lora: LoraSpec | None, load: Load, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    lr, options = 1e-3, {"betas": (0.8, 0.9), "weight_decay": 0.1}
    engine = start(load, "llama", lora, max_grad_norm=1e-3, **options)
    reference = await plain(engine, tiny("llama"), tmp_path)
    trainable = [p for p in reference.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=lr, **options)
    for seed in (6, 7):
        rows = group_rows(seed=seed)
        await engine.learner.forward_backward(rows, SupervisedLoss())
        report = await engine.learner.optim_step(lr)
        optimizer.zero_grad()
        weighted_loss(reference, rows).backward()
        norm = torch.nn.utils.clip_grad_norm_(trainable, 1e-3)
        optimizer.step()
        assert report.grad_norm > 0.01  # more than ten times the bound: clipping is at work
        assert report.grad_norm == pytest.approx(float(norm), rel=1e-4)
    assert report.policy_version == engine.learner.policy_version == 2
    moved = {k.replace("base_model.model.", "").replace(".default", ""): p for k, p in reference.named_parameters()}
    expected = {k: p.detach() for k, p in moved.items() if p.requires_grad}
    # AdamW divides by the gradient's own size, so where that is near nothing rounding shows; still far below a step.
    gaps = {name: (value - expected[name]).abs() for name, value in weights(engine).items()}
    assert gaps.keys() == expected.keys()
    assert max(float(gap.max()) for gap in gaps.values()) < 0.1 * lr
    assert max(float(gap.mean()) for gap in gaps.values()) < 1e-3 * lr
    rows = group_rows(seed=8)
    assert largest_gap(await engine.learner.log_probs(rows), rows, reference) < 1e-4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_saving_and_loading_resumes_bit_for_bit(
    dtype: str, lora: LoraSpec | None, load: Load, tmp_path: Path
) -> None:
    async def update(engine: TorchEngine, seed: int) -> None:
        await engine.learner.forward_backward(group_rows(seed=seed), SupervisedLoss())
        await engine.learner.optim_step(1e-3)

    first = load("gemma3", lora=lora, dtype=dtype, seed=1)
    await update(first, 1)
    await update(first, 2)
    await first.learner.save(tmp_path)
    await update(first, 3)

    second = load("gemma3", lora=lora, dtype=dtype, seed=2)
    await update(second, 9)  # what it had before must not matter, a gradient under way included
    await second.learner.forward_backward(group_rows(seed=9), SupervisedLoss())
    await second.learner.load(tmp_path)
    assert second.learner.policy_version == 2
    await update(second, 3)

    assert second.learner.policy_version == first.learner.policy_version == 3
    mine, theirs = weights(first), weights(second)
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    rows = group_rows(seed=4)
    assert await first.learner.log_probs(rows) == await second.learner.log_probs(rows)
    for engine, name in ((first, "first"), (second, "second")):
        (tmp_path / name).mkdir()
        await engine.learner.save(tmp_path / name)
    for file in ("optimizer.safetensors", "model.safetensors" if lora is None else "adapter_model.safetensors"):
        one, other = load_file(tmp_path / "first" / file), load_file(tmp_path / "second" / file)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


async def test_half_precision_weights_are_updated_in_float32(load: Load, tmp_path: Path) -> None:
    """bfloat16 keeps 8 bits: a step of 1e-5 on a weight of 1 vanishes unless a float32 master collects it."""
    engine = load("llama", dtype="bfloat16")
    before = weights(engine)
    for name in ("before", "after"):
        (tmp_path / name).mkdir()
    await engine.learner.save(tmp_path / "before")
    for _ in range(4):
        await engine.learner.forward_backward(group_rows(seed=1), SupervisedLoss())
        await engine.learner.optim_step(1e-5)
    await engine.learner.save(tmp_path / "after")
    old, new = (load_file(tmp_path / name / "model.safetensors") for name in ("before", "after"))
    name = "model.norm.weight"  # weights about 1, whose bfloat16 neighbours are 2⁻⁸ = 4e-3 away
    assert before[name].dtype == torch.bfloat16
    assert new[name].dtype == torch.float32
    assert torch.equal(weights(engine)[name], before[name])
    # The same rows four times: AdamW moves each weight by nearly the rate every time.
    assert float((new[name] - old[name]).abs().median()) == pytest.approx(4e-5, rel=0.1)
    assert torch.equal(weights(engine)[name], new[name].bfloat16())


async def test_half_precision_gradients_do_not_round_between_micro_batches(load: Load) -> None:
    """One big micro-batch and many small ones give the same gradient norm to bfloat16's own precision."""
    norms = []
    for tokens in (10_000, 1):
        engine = load("llama", dtype="bfloat16", micro_batch_tokens=tokens)
        await engine.learner.forward_backward(group_rows(seed=1, groups=8), SupervisedLoss())
        norms.append((await engine.learner.optim_step(0.0)).grad_norm)
    assert norms[0] == pytest.approx(norms[1], rel=0.01)


# ---- the real model


async def test_the_real_models_gradient_is_that_of_plain_transformers(
    smollm2: Path, load: Load, tmp_path: Path
) -> None:
    rows = [scaled(one) for one in group_rows(seed=1, groups=2, members=3)]
    engine = start(load, smollm2, LoraSpec())
    report = await engine.learner.forward_backward(rows, SupervisedLoss())
    reference = await plain(engine, smollm2, tmp_path)
    weighted_loss(reference, rows).backward()
    assert largest_gap(report.log_probs, rows, reference) < 1e-3
    assert relative_difference(gradients(engine), plain_gradients(reference)) < 5e-5


def scaled(one: Row) -> Row:
    """The tiny models' ids spread over the real vocabulary of 49,152."""
    ids = [163 * token for token in one.ids]
    return Row(ids=ids, trained=one.trained, log_probs=one.log_probs, credit=one.credit, unit=one.unit, group=one.group)


async def test_a_gradient_that_is_not_finite_changes_nothing(load: Load) -> None:
    engine = load("llama", lora=LoraSpec(rank=4, alpha=8))
    rows = group_rows(seed=0)
    await engine.learner.forward_backward(rows, SupervisedLoss())
    await engine.learner.optim_step(1e-3)
    before = {name: p.detach().clone() for name, p in engine.model.parameters().items()}
    spoilt = [replace(row, credit=[c * float("inf") if c else 0.0 for c in row.credit]) for row in rows]
    await engine.learner.forward_backward(spoilt, SupervisedLoss())
    with pytest.raises(EngineFault, match=r"the gradient's norm is (inf|nan), expected a finite number"):
        await engine.learner.optim_step(1e-3)
    assert all(torch.equal(before[name], p) for name, p in engine.model.parameters().items())
    assert engine.learner.policy_version == 1
    await engine.learner.forward_backward(rows, SupervisedLoss())  # the bad gradient is gone
    assert math.isfinite((await engine.learner.optim_step(1e-3)).grad_norm)
