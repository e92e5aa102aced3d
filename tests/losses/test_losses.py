import math
from types import SimpleNamespace
from typing import get_args

import pytest
import torch

from agentrft.losses import LOSSES, LossBatch, LossResult, LossSpec, PolicyGradientLoss, SupervisedLoss
from agentrft.testing import ScriptedLearner
from agentrft.types import Row

PG = PolicyGradientLoss()
LN = math.log


def batch(log_probs, generator=None, credit=None) -> LossBatch:
    leaf = torch.tensor(log_probs, dtype=torch.float64, requires_grad=True)
    return LossBatch(
        log_probs=leaf,
        generator_log_probs=torch.tensor(log_probs if generator is None else generator, dtype=torch.float64),
        credit=torch.tensor(credit or [1.0] * len(log_probs), dtype=torch.float64),
        row=torch.zeros(len(log_probs), dtype=torch.int64),
    )


def run(given: LossBatch, spec) -> tuple[LossResult, list[float]]:
    result = LOSSES[spec.type](given, spec)
    result.loss.backward()
    return result, given.log_probs.grad.tolist()


def test_every_spec_has_a_loss():
    members = get_args(get_args(LossSpec)[0])
    assert LOSSES.keys() == {model.model_fields["type"].default for model in members}


def test_supervised_by_hand():
    # −(0.5·ln ½ + 0.25·ln ¼) = 0.5·0.6931 + 0.25·1.3863 = 0.6931; gradient is −credit
    result, gradient = run(batch([LN(0.5), LN(0.25)], credit=[0.5, 0.25]), SupervisedLoss())
    assert result.loss.item() == pytest.approx(0.6931472)
    assert gradient == [-0.5, -0.25]
    # nll sum is ln 2 + ln 4
    assert {name: value.item() for name, value in result.metrics.items()} == pytest.approx(
        {"tokens": 2, "nll": 2.0794415}
    )


def test_policy_gradient_by_hand():
    # token  π     μ     π−μ    ρ    credit   keep   w    gradient −w·credit
    # 0      0.6   0.5   +0.1   1.2  +1       yes    1.2  −1.2
    # 1      0.8   0.5   +0.3   1.6  +1       no          0      moved up by more than 0.2
    # 2      0.8   0.5   +0.3   1.6  −1       yes    1.6  +1.6   moved up, but credit pulls down
    # 3      0.2   0.5   −0.3   0.4  −1       no          0
    # 4      0.2   0.5   −0.3   0.4  +1       yes    0.4  −0.4
    # 5      0.1   0.01  +0.09  10   +0.5     yes    5    −2.5   capped
    policy, generator = [0.6, 0.8, 0.8, 0.2, 0.2, 0.1], [0.5, 0.5, 0.5, 0.5, 0.5, 0.01]
    credit = [1.0, 1.0, -1.0, -1.0, 1.0, 0.5]
    result, gradient = run(batch([LN(p) for p in policy], [LN(p) for p in generator], credit), PG)
    assert gradient == pytest.approx([-1.2, 0.0, 1.6, 0.0, -0.4, -2.5])
    # −(1.2·ln .6 − 1.6·ln .8 + 0.4·ln .2 + 2.5·ln .1) = 0.61299 − 0.35703 + 0.64378 + 5.75646
    assert result.loss.item() == pytest.approx(6.656197)
    metrics = {name: value.item() for name, value in result.metrics.items()}
    assert metrics["tokens"] == 6
    assert metrics["masked_frac"] == 2
    # 1.2 + 1.6 + 1.6 + 0.4 + 0.4 + 5; 1.44 + 2·2.56 + 2·0.16 + 25
    assert metrics["weight"] == pytest.approx(10.2)
    assert metrics["weight_sq"] == pytest.approx(31.88)
    # ρ − 1 − ln ρ: 0.0176784 + 2·0.1299964 + 2·0.3162907 + 6.6974149
    assert metrics["kl_mu_k3"] == pytest.approx(7.6076675)


def test_on_policy_its_gradient_is_reinforce():
    # A toy of three actions: d/dlogits of −Σ A log π(a) against what pg_tv gives through the same softmax.
    logits = torch.tensor([0.3, -0.5, 0.1], dtype=torch.float64, requires_grad=True)
    actions, advantage = torch.tensor([0, 2, 2, 1]), torch.tensor([1.0, -0.5, 2.0, -1.5], dtype=torch.float64) / 4
    log_probs = logits.log_softmax(0)[actions]
    given = LossBatch(
        log_probs=log_probs,
        generator_log_probs=log_probs.detach().clone(),
        credit=advantage,
        row=torch.arange(4),
    )
    [ours] = torch.autograd.grad(LOSSES["pg_tv"](given, PG).loss, logits)
    [reinforce] = torch.autograd.grad(-(advantage * logits.log_softmax(0)[actions]).sum(), logits)
    assert torch.equal(ours, reinforce)


def test_expected_gradient_off_policy_is_that_of_the_policys_own_reward():
    # Importance weights undo the generator: Σ_a μ(a)·w(a)·R(a)·∇log π(a) = ∇ Σ_a π(a)·R(a), where nothing is masked.
    logits = torch.tensor([0.2, -0.1, 0.0], dtype=torch.float64, requires_grad=True)
    mu, rewards = torch.tensor([0.3, 0.3, 0.4], dtype=torch.float64), torch.tensor([1.0, 0.2, 0.5]).double()
    given = LossBatch(
        log_probs=logits.log_softmax(0), generator_log_probs=mu.log(), credit=mu * rewards, row=torch.arange(3)
    )
    result = LOSSES["pg_tv"](given, PG)
    assert result.metrics["masked_frac"] == 0
    [ours] = torch.autograd.grad(-result.loss, logits)
    [expected] = torch.autograd.grad((logits.softmax(0) * rewards).sum(), logits)
    assert ours.tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize("spec", [SupervisedLoss(), PG])
@pytest.mark.parametrize("pieces", [2, 4])
def test_micro_batches_add_up(spec, pieces):
    rng = torch.Generator().manual_seed(0)
    log_probs = -torch.rand(16, generator=rng, dtype=torch.float64) * 3
    generator = log_probs + torch.randn(16, generator=rng, dtype=torch.float64)
    credit = torch.randn(16, generator=rng, dtype=torch.float64)
    whole, gradient = run(batch(log_probs.tolist(), generator.tolist(), credit.tolist()), spec)
    parts = [
        run(batch(*(values[i::pieces].tolist() for values in (log_probs, generator, credit))), spec)
        for i in range(pieces)
    ]
    assert sum(part.loss.item() for part, _ in parts) == pytest.approx(whole.loss.item())
    for name, value in whole.metrics.items():
        assert sum(part.metrics[name].item() for part, _ in parts) == pytest.approx(value.item())
    woven = [parts[t % pieces][1][t // pieces] for t in range(16)]
    assert woven == pytest.approx(gradient)


@pytest.mark.parametrize("generator", [-200.0, -math.inf, 0.0])
def test_absurd_mismatch_stays_finite(generator):
    result, gradient = run(batch([-0.5, -80.0], [generator, generator], [1.0, -1.0]), PG)
    assert all(math.isfinite(value) for value in [result.loss.item(), *gradient])
    assert all(math.isfinite(value.item()) for value in result.metrics.values())
    assert all(not value.requires_grad for value in result.metrics.values())


@pytest.mark.parametrize("spec", [SupervisedLoss(), PG])
async def test_the_scripted_learner_uses_the_same_formulas(spec):
    # It has no torch; its numpy version of the losses must not drift from these.
    generator = torch.Generator().manual_seed(1)
    ids = [5, *torch.randint(7, 10, (12,), generator=generator).tolist()]
    mu = [0.0, *(-torch.rand(12, generator=generator) * 4).tolist()]
    credit = [0.0, *torch.randn(12, generator=generator).tolist()]
    learner = ScriptedLearner([7, 8, 9], order=1)
    learner.table = {(7,): torch.tensor([2.0, -1.0, 0.0]).numpy(), (8,): torch.tensor([0.0, 3.0, 0.5]).numpy()}
    row = Row(ids=ids, trained=[False] + [True] * 12, log_probs=mu, credit=credit, unit="u", group="g")
    report = await learner.forward_backward([row], SimpleNamespace(**spec.model_dump()))
    ours = LOSSES[spec.type](batch(list(report.log_probs[0][1:]), mu[1:], credit[1:]), spec)
    assert report.loss == pytest.approx(ours.loss.item())
    tokens = ours.metrics.pop("tokens")
    assert report.metrics == pytest.approx({name: (total / tokens).item() for name, total in ours.metrics.items()})


@pytest.mark.parametrize("spec", [SupervisedLoss(), PG])
def test_a_two_armed_bandit_is_solved(spec):
    # Reward 1 for arm 1; supervised imitates that arm, policy gradient finds it. Both must exceed 0.95.
    torch.manual_seed(0)
    logits = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    for _ in range(60):
        log_probs = logits.log_softmax(0)
        arms = torch.multinomial(log_probs.exp(), 16, replacement=True) if spec is PG else torch.ones(16).long()
        rewards = (arms == 1).double()
        credit = rewards - rewards.mean() if spec is PG else rewards
        given = LossBatch(
            log_probs=log_probs[arms],
            generator_log_probs=log_probs[arms].detach(),
            credit=credit / 16,
            row=torch.arange(16),
        )
        [gradient] = torch.autograd.grad(LOSSES[spec.type](given, spec).loss, logits)
        logits = (logits - 2.0 * gradient).detach().requires_grad_()
    assert logits.softmax(0)[1] > 0.95
