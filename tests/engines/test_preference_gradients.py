"""Preference training on the real engine: the gradient of plain padded code, one shared prefix, resume to the bit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_cases import plain_gradients, plain_peft, randomise_adapters, relative_difference
from oracle import padded_log_probs
from row_cases import VOCABULARY
from torch.nn.functional import logsigmoid

from agentrft.engines.torch_engine import LoraSpec, TorchEngine
from agentrft.losses import DpoLoss, KtoLoss, KtoStepLoss, SimpoLoss
from agentrft.store import open_store
from agentrft.train import DpoPlan, PreferenceUnit, RunLog, StepDone, dpo
from agentrft.train.dpo import weighted
from agentrft.train.preference_rows import mismatched_rows
from agentrft.types import Row

LORA = LoraSpec(rank=4, alpha=8)
LOSSES = [
    DpoLoss(),
    DpoLoss(nll_coef=0.5),
    DpoLoss(beta=3.0, length_normalised=True),
    SimpoLoss(),
    KtoStepLoss(reference_kl=0.3, undesirable_weight=1.5),
]


def side(rng: random.Random, prompt: Sequence[int], unit: str, sign: int) -> Row:
    """A call, its result (context) and an answer, of random tokens and lengths."""
    parts = [(rng.randint(2, 6), True), (rng.randint(0, 5), False), (rng.randint(1, 6), True)]
    ids, trained = list(prompt), [False] * len(prompt)
    for count, mark in parts:
        ids += [rng.randrange(3, VOCABULARY) for _ in range(count)]
        trained += [mark] * count
    zeros = [0.0] * len(ids)
    return Row(ids=ids, trained=trained, log_probs=zeros, credit=zeros, unit=unit, group="p", sign=sign)


def make_units(*, rated: bool = False, count: int = 6) -> list[PreferenceUnit]:
    rng = random.Random(5)
    system = [rng.randrange(3, VOCABULARY) for _ in range(12)]
    units = []
    for k in range(count):
        prompt = [*system, *(rng.randrange(3, VOCABULARY) for _ in range(rng.randint(3, 9)))]
        if rated:
            units.append((side(rng, prompt, f"u{k}", 1 if k % 2 else -1),))
        else:
            units.append((side(rng, prompt, f"u{k}", 1), side(rng, prompt, f"u{k}", -1)))
    rows = [row for unit in units for row in unit]
    others = mismatched_rows(rows, max_tokens=512) if rated else [None] * len(units)
    return [PreferenceUnit(rows=rows, mismatched=other) for rows, other in zip(units, others, strict=True)]


def padded_loss(model: Any, rows: Sequence[Row], reference: Sequence[torch.Tensor], loss: Any) -> torch.Tensor:
    """The mean loss over units, from one padded batch, written down again from the papers."""
    policy = padded_log_probs(model, rows)
    masks = [torch.tensor(row.trained[1:], dtype=torch.float64) for row in rows]
    d = [((p - r) * m).sum() for p, r, m in zip(policy, reference, masks, strict=True)]
    means = [(p * m).sum() / m.sum() for p, m in zip(policy, masks, strict=True)]
    terms = []
    if loss.type == "kto":
        for row, gap in zip(rows, d, strict=True):
            weight = loss.desirable_weight if row.sign > 0 else loss.undesirable_weight
            terms.append(weight * (1 - torch.sigmoid(row.sign * loss.beta * (gap - loss.reference_kl))))
        return torch.stack(terms).mean()
    for good in range(0, len(rows), 2):
        bad = good + 1
        if loss.type == "simpo":
            terms.append(-logsigmoid(loss.beta * (means[good] - means[bad]) - loss.margin))
            continue
        gaps = [d[k] / masks[k].sum() if loss.length_normalised else d[k] for k in (good, bad)]
        terms.append(-logsigmoid(loss.beta * (gaps[0] - gaps[1])) - loss.nll_coef * means[good])
    return torch.stack(terms).mean()


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: f"{loss.type}-{loss.beta}")
@pytest.mark.parametrize("micro_batch_tokens", [1024, 40])
async def test_the_gradient_is_that_of_plain_padded_code(
    load: Callable[..., TorchEngine],
    tiny: Callable[[str], Path],
    tmp_path: Path,
    loss: Any,
    micro_batch_tokens: int,
) -> None:
    engine = load("llama", lora=LORA, micro_batch_tokens=micro_batch_tokens)
    randomise_adapters(engine)
    units = make_units(rated=loss.type == "kto")
    rows = weighted(units)
    reference = await engine.learner.log_probs(rows, reference=True)
    rows = [replace(row, reference_log_probs=values) for row, values in zip(rows, reference, strict=True)]
    report = await engine.learner.forward_backward(rows, loss)

    await engine.learner.save(tmp_path)
    plain = plain_peft(tiny("llama"), tmp_path).double()
    with torch.no_grad(), plain.disable_adapter():
        plain_reference = padded_log_probs(plain, rows)
    expected = padded_loss(plain, rows, plain_reference, loss)
    expected.backward()
    expected = expected.detach()
    assert report.loss == pytest.approx(expected.item(), rel=1e-5)
    gradients = {name: p.grad for name, p in engine.model.parameters().items() if p.grad is not None}
    assert relative_difference(gradients, plain_gradients(plain)) < 1e-5
    assert report.micro_batches == 1 if micro_batch_tokens == 1024 else report.micro_batches > 2


async def test_a_pairs_prefix_is_computed_once(load: Callable[..., TorchEngine]) -> None:
    engine = load("llama", lora=LORA)
    (unit,) = make_units(count=1)
    first, second = (len(row.ids) - 1 for row in unit.rows)  # the last token is only predicted
    prompt = next(t for t, trained in enumerate(unit.rows[0].trained) if trained)
    report = await engine.learner.forward_backward(weighted([unit]), SimpoLoss())
    assert (report.row_tokens, report.unique_tokens) == (first + second, first + second - prompt)


async def test_before_the_first_step_a_fresh_adapter_is_its_own_reference(load: Callable[..., TorchEngine]) -> None:
    engine = load("llama", lora=LORA)
    rows = [row for unit in make_units() for row in unit.rows]
    assert await engine.learner.log_probs(rows) == await engine.learner.log_probs(rows, reference=True)


@pytest.fixture
def log(tmp_path: Path):
    store = open_store(tmp_path / "home")
    store.create_job({"id": "ftjob-t"})
    seen: list[Any] = []
    log = RunLog(store, "ftjob-t", watch=seen.append)
    yield log, seen
    store.close()


@pytest.mark.parametrize(
    ("loss", "lora"),
    [(DpoLoss(nll_coef=0.1), LORA), (DpoLoss(), None), (KtoLoss(), LORA)],
    ids=["dpo", "dpo, all weights", "kto"],
)
async def test_it_learns_and_resumes_to_the_bit(
    load: Callable[..., TorchEngine], tmp_path: Path, log: tuple[RunLog, list[Any]], loss: Any, lora: Any
) -> None:
    run_log, seen = log
    units = make_units(rated=loss.type == "kto", count=8)

    def plan(folder: str) -> DpoPlan:
        return DpoPlan(
            run="ftjob-t",
            folder=tmp_path / folder,
            units=units,
            validation_units=units,
            loss=loss,
            n_epochs=3,
            batch_size=3,
            learning_rate=2e-2 if lora else 1e-3,
            warmup_steps=0,
            checkpoint_interval=3,
        )

    whole = load("llama", lora=lora)
    result = await dpo.train(plan("whole"), whole.learner, run_log)
    done = [record.metrics for record in seen if isinstance(record, StepDone)]
    assert len(done) == 8  # 8 units × 3 passes in batches of 3
    validated = [metrics for metrics in done if "valid_loss" in metrics]
    assert validated[-1]["valid_loss"] < 0.7 * done[0]["loss"]
    assert validated[-1]["valid_preferred_frac"] == 1.0
    assert done[0]["margin"] == pytest.approx(0.0, abs=1e-5)  # other rows beside it: rounding
    if loss.type == "dpo":  # trained and held-out figures are one formula, in tensors and in plain numbers
        assert done[0]["loss"] == pytest.approx(0.6931472 + loss.nll_coef * done[0]["nll_preferred"], rel=1e-6)

    left = iter(range(3))
    first = load("llama", lora=lora)
    stopped = await dpo.train(
        plan("parts"), first.learner, run_log, should_stop=lambda: "asked" if next(left, None) is None else None
    )
    assert (stopped.stopped, stopped.last.step) == ("asked", 4)
    second = load("llama", lora=lora)
    resumed = await dpo.train(plan("parts"), second.learner, run_log)
    assert resumed.validations == result.validations
    for name, tensor in second.model.parameters().items():
        assert torch.equal(tensor, whole.model.parameters()[name]), name
