import math

import pytest
import torch

from agentrft.losses import mean_row_kl, penalised_rewards, row_kl
from agentrft.types import Row


def row(log_probs, trained):
    return Row(
        ids=[1] * len(log_probs),
        trained=trained,
        log_probs=log_probs,
        credit=[0.0] * len(log_probs),
        unit="u",
        group="g",
    )


def test_row_kl_by_hand():
    # (−1 + 2) + (−0.5 + 0.25) = 0.75; what is not trained does not count
    rows = [row([0.0, -1.0, -0.5], [False, True, True]), row([0.0, 0.0], [False, False])]
    assert row_kl(rows, [[-9.0, -2.0, -0.25], [-1.0, -1.0]]) == [0.75, 0.0]


def test_one_token_cannot_take_the_whole_reward_to_infinity():
    assert row_kl([row([-0.1], [True])], [[-math.inf]]) == [20.0]


def test_who_has_no_reward_stays_without():
    assert penalised_rewards([[1.0, None], [None, 0.5]], [2.0, -3.0], 0.1) == [[0.8, None], [None, 0.8]]
    with pytest.raises(ValueError, match="2 members have a reward, got 3 KL figures"):
        penalised_rewards([[1.0, None], [None, 0.5]], [2.0, 0.0, -3.0], 0.1)


def test_in_the_reward_the_gradient_is_that_of_the_reverse_kl():
    # Three actions, all of them enumerated: Σ π(a)·(−d(a))·∇log π(a) = −∇ KL(π‖ref), with d what row_kl gives.
    logits = torch.tensor([0.3, -0.6, 0.1], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([-0.2, 0.4, 0.0], dtype=torch.float64).log_softmax(0)
    log_probs = logits.log_softmax(0)
    rows = [row([value], [True]) for value in log_probs.tolist()]
    [rewards] = penalised_rewards([[0.0] * 3], row_kl(rows, [[value] for value in reference.tolist()]), 1.0)
    weights = log_probs.exp().detach() * torch.tensor(rewards, dtype=torch.float64)
    [ours] = torch.autograd.grad((weights * logits.log_softmax(0)).sum(), logits)
    kl = (logits.log_softmax(0).exp() * (logits.log_softmax(0) - reference)).sum()
    [exact] = torch.autograd.grad(-kl, logits)
    assert ours.tolist() == pytest.approx(exact.tolist())


def test_as_a_differentiable_loss_k1_would_do_nothing():
    # Why there is no such placement: Σ π(a)·∇(log π(a) − log ref(a)) = Σ π(a)·∇log π(a) = 0.
    logits = torch.tensor([0.3, -0.6, 0.1], dtype=torch.float64, requires_grad=True)
    log_probs = logits.log_softmax(0)
    [gradient] = torch.autograd.grad((log_probs.exp().detach() * log_probs).sum(), logits)
    assert gradient.tolist() == pytest.approx([0.0] * 3, abs=1e-15)


def test_mean_row_kl_by_hand():
    # Rows (−1 − 1) − (−3) = 1 and −1 − (−0.5) = −0.5: mean 0.25; never below 0
    assert mean_row_kl([[-1.0, 0.0, -1.0], [-1.0]], [[-2.0, 0.0, -1.0], [-0.5]]) == 0.25
    assert mean_row_kl([[-1.0]], [[-0.5]]) == 0.0
    assert mean_row_kl([], []) == 0.0
