"""Our losses and advantages against TRL 1.16's own code; `scripts/make_loss_fixtures.py` made the numbers."""

import json
from itertools import chain
from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter

from agentrft.credit import CREDIT
from agentrft.losses import (
    LOSSES,
    KtoStepLoss,
    LossBatch,
    PolicyLossSpec,
    PreferenceLossSpec,
    mean_row_kl,
    row_divisors,
    scaled_credit,
)

FIXTURE = json.loads((Path(__file__).parent / "fixtures" / "trl.json").read_text())
POLICY = {case["name"]: case for case in FIXTURE["policy"]}
PREFERENCE = {case["name"]: case for case in FIXTURE["preference"]}


def flat(rows) -> torch.Tensor:
    return torch.tensor(list(chain.from_iterable(rows)), dtype=torch.float64)


def policy_result(case):
    """(loss, value, gradient) of the whole way: rewards → credit → scale → normaliser → loss."""
    loss = TypeAdapter(PolicyLossSpec).validate_python(case["loss"])
    rewards_I_G = case["rewards"]
    credit_I_G = [CREDIT[loss.credit or "group_mean"](rewards_G) for rewards_G in rewards_I_G]
    tokens_R = [len(row) for row in case["log_probs"]]
    size = len(rewards_I_G[0])
    tokens_I_G = [tokens_R[i : i + size] for i in range(0, len(tokens_R), size)]
    advantages_R = list(chain.from_iterable(scaled_credit(loss.scale, rewards_I_G, credit_I_G, tokens_I_G)))
    divisors_R = row_divisors(loss, tokens_R)
    leaf = flat(case["log_probs"]).requires_grad_()
    batch = LossBatch(
        log_probs=leaf,
        generator_log_probs=flat(case["generator_log_probs"]),
        credit=flat([[a / d] * n for a, d, n in zip(advantages_R, divisors_R, tokens_R, strict=True)]),
        row=torch.tensor([r for r, n in enumerate(tokens_R) for _ in range(n)]),
    )
    result = LOSSES[loss.type](batch, loss)
    result.loss.backward()
    return result, leaf.grad.tolist()


def preference_result(case):
    loss = TypeAdapter(PreferenceLossSpec).validate_python(case["loss"])
    if loss.type == "kto":
        loss = KtoStepLoss.of(loss, mean_row_kl(case["kl_log_probs"], case["kl_reference_log_probs"]))
    leaf = flat(case["log_probs"]).requires_grad_()
    units = max(case["unit"]) + 1
    batch = LossBatch(
        log_probs=leaf,
        generator_log_probs=torch.zeros_like(leaf),
        credit=torch.full_like(leaf, 1 / units),
        row=torch.tensor([r for r, row in enumerate(case["log_probs"]) for _ in row]),
        reference_log_probs=flat(case["reference_log_probs"]),
        unit=torch.tensor(case["unit"]),
        sign=torch.tensor(case["sign"]),
    )
    result = LOSSES[loss.type](batch, loss)
    result.loss.backward()
    return result, leaf.grad.tolist()


def test_the_fixture_is_of_the_version_we_compare_with():
    assert FIXTURE["made_with"]["trl"] == "1.16.0"


@pytest.mark.parametrize("case", FIXTURE["advantages"], ids=lambda case: case["kind"])
def test_advantages(case):
    rewards_I_G, kind = case["rewards"], case["kind"]
    credit_I_G = [CREDIT["leave_one_out" if kind == "leave_one_out" else "group_mean"](r) for r in rewards_I_G]
    scale = "none" if kind == "leave_one_out" else kind
    ours = scaled_credit(scale, rewards_I_G, credit_I_G, [[1] * len(r) for r in rewards_I_G])
    for ours_G, theirs_G in zip(ours, case["advantages"], strict=True):
        assert ours_G == pytest.approx(theirs_G, abs=1e-10)


@pytest.mark.parametrize("name", POLICY)
def test_policy_gradients(name):
    _, gradient = policy_result(POLICY[name])
    assert gradient == pytest.approx(list(chain.from_iterable(POLICY[name]["gradient"])), rel=1e-5, abs=1e-8)
    assert any(gradient)


@pytest.mark.parametrize("name", sorted(set(POLICY) - {"rloo"}))
def test_policy_losses(name):
    result, _ = policy_result(POLICY[name])
    assert result.loss.item() == pytest.approx(POLICY[name]["value"], rel=1e-5, abs=1e-8)


def test_rloo_has_another_value_on_purpose():
    # TRL has one term for each row, we one for each token: credit may differ by turn. Dividing each token's term by the
    # length of its row gives TRL's value; the gradient, compared above, is the same.
    case = POLICY["rloo"]
    ratios = [
        flat([a]).sub(flat([b])).sum().exp().item()
        for a, b in zip(case["log_probs"], case["generator_log_probs"], strict=True)
    ]
    advantages = list(chain.from_iterable(CREDIT["leave_one_out"](r) for r in case["rewards"]))
    terms = [min(s * a, min(max(s, 0.8), 1.2) * a) for s, a in zip(ratios, advantages, strict=True)]
    assert -sum(terms) / 8 == pytest.approx(case["value"])
    ours = -sum(term * len(row) for term, row in zip(terms, case["log_probs"], strict=True)) / 8
    assert policy_result(case)[0].loss.item() == pytest.approx(ours)


@pytest.mark.parametrize("name", ["grpo", "dapo", "dr_grpo", "gspo wide", "rloo"])
def test_the_cases_do_clip(name):
    # A comparison in which no token is clipped, or all are, would say nothing about clipping.
    result, gradient = policy_result(POLICY[name])
    assert 0 < result.metrics["masked_frac"] < len(gradient)


@pytest.mark.parametrize("name", ["token mask", "sequence mask"])
def test_the_cases_do_drop(name):
    result, gradient = policy_result(POLICY[name])
    assert 0 < result.metrics["masked_frac"] < len(gradient)


@pytest.mark.parametrize("name", sorted(set(PREFERENCE) - {"dpo nll, other lengths"}))
def test_preference_losses(name):
    result, gradient = preference_result(PREFERENCE[name])
    assert result.loss.item() == pytest.approx(PREFERENCE[name]["value"], rel=1e-5)
    assert gradient == pytest.approx(list(chain.from_iterable(PREFERENCE[name]["gradient"])), rel=1e-5, abs=1e-8)


def test_the_nll_term_counts_pairs_alike_on_purpose():
    # TRL's `sft` term is the mean over all preferred tokens of a micro-batch: long answers count more, and the value
    # depends on how the batch is cut. Ours is the mean over pairs of each preferred row's mean.
    case = PREFERENCE["dpo nll, other lengths"]
    preferred = [row for row, sign in zip(case["log_probs"], case["sign"], strict=True) if sign > 0]
    theirs = -sum(map(sum, preferred)) / sum(map(len, preferred))
    ours = -sum(sum(row) / len(row) for row in preferred) / len(preferred)
    result, _ = preference_result(case)
    assert result.loss.item() - 0.5 * ours == pytest.approx(case["value"] - 0.5 * theirs)
    assert ours != pytest.approx(theirs, rel=1e-3)


def test_kto_had_a_distance_and_a_floor():
    distances = [mean_row_kl(c["kl_log_probs"], c["kl_reference_log_probs"]) for c in FIXTURE["preference"][-2:]]
    assert distances[0] > 0
    assert distances[1] == 0
