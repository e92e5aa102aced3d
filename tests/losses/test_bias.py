"""How far each preset's expected gradient is from that of the return, exactly: every possible step is enumerated.

A policy that chooses when to stop, so that good and long episodes go together: three states, at each stop (and be
paid 0.3, 0 or 0.5) or go on, 1 at the end. Discount 1, groups of four, drawn by the policy itself; groups without
signal are dropped, as the loop does. Bias is ‖E[g] − c·∇J‖ / ‖c·∇J‖ with the best constant c: 0 says that only the
learning rate differs. The figures are those of docs/losses.md.
"""

import itertools
import math
from collections import Counter
from functools import cache

import pytest
import torch
from pydantic import TypeAdapter

from agentrft.credit import CREDIT
from agentrft.losses import PolicyLossSpec, row_divisors, scaled_credit

MEMBERS = 4
LOGITS = torch.tensor([[0.2, -0.3], [0.0, 0.4], [-0.5, 0.1]], dtype=torch.float64, requires_grad=True)
PATHS = [[0], [1, 0], [1, 1, 0], [1, 1, 1]]
"""Actions of every possible episode: 0 stops."""
REWARDS = [0.3, 0.0, 0.5, 1.0]


def path_log_probs():
    return torch.stack([sum(LOGITS.log_softmax(1)[s, a] for s, a in enumerate(path)) for path in PATHS])


@cache
def scores():
    """∇ log p of every path [4, 6]."""
    return torch.stack([torch.autograd.grad(path_log_probs()[i], LOGITS)[0].view(-1) for i in range(len(PATHS))])


@cache
def exact_gradient():
    value = (path_log_probs().exp() * torch.tensor(REWARDS, dtype=torch.float64)).sum()
    return torch.autograd.grad(value, LOGITS)[0].view(-1)


@cache
def groups_of_four():
    """(paths of the members, probability) of every group, up to order."""
    p = path_log_probs().exp().tolist()
    found = []
    for paths in itertools.combinations_with_replacement(range(4), MEMBERS):
        ways = math.factorial(MEMBERS) / math.prod(map(math.factorial, Counter(paths).values()))
        found.append((paths, ways * math.prod(p[path] for path in paths)))
    return found


def step_gradient(loss, groups):
    """−gradient of the loss on one step; on policy it is Σ credit·∇log π for all presets (test_presets.py)."""
    live = [paths for paths in groups if len({REWARDS[path] for path in paths}) > 1]
    if not live:
        return torch.zeros(6, dtype=torch.float64)
    rewards_I_G = [[REWARDS[path] for path in paths] for paths in live]
    credit_I_G = [CREDIT[loss.credit or "group_mean"](rewards_G) for rewards_G in rewards_I_G]
    tokens_I_G = [[len(PATHS[path]) for path in paths] for paths in live]
    # The run-wide scale hardly moves within a step: a constant.
    advantages_I_G = (
        credit_I_G if loss.scale == "run" else scaled_credit(loss.scale, rewards_I_G, credit_I_G, tokens_I_G)
    )
    divisors_R = row_divisors(loss, list(itertools.chain.from_iterable(tokens_I_G)))
    credit_R = [a / d for a, d in zip(itertools.chain.from_iterable(advantages_I_G), divisors_R, strict=True)]
    paths_R = list(itertools.chain.from_iterable(live))
    return torch.tensor(credit_R, dtype=torch.float64) @ scores()[paths_R]


def bias(preset, groups):
    loss = TypeAdapter(PolicyLossSpec).validate_python({"type": preset})
    expected = torch.zeros(6, dtype=torch.float64)
    for step in itertools.combinations_with_replacement(groups_of_four(), groups):
        ways = math.factorial(groups) / math.prod(map(math.factorial, Counter(paths for paths, _ in step).values()))
        probability = ways * math.prod(p for _, p in step)
        expected += probability * step_gradient(loss, [paths for paths, _ in step])
    constant = (expected @ exact_gradient()) / (exact_gradient() @ exact_gradient())
    return ((expected - constant * exact_gradient()).norm() / (constant * exact_gradient()).norm()).item()


MEASURED = {
    "rloo": (0.0, 0.0),
    "dr_grpo": (0.0, 0.0),
    "pg_tv": (0.0444, 0.0255),
    "reinforce_pp": (0.3484, 0.1994),
    "grpo": (0.3190, 0.3190),
    "gspo": (0.3190, 0.3190),
    "sapo": (0.3190, 0.3190),
    "dapo": (0.3712, 0.3227),
    "cispo": (0.3712, 0.3227),
    "maxrl": (0.5541, 0.5020),
}
"""With one group a step, and with two: what shrinks is the price of dividing by the step's own tokens or deviation."""


@pytest.mark.parametrize("preset", MEASURED)
def test_the_measured_bias(preset):
    assert [bias(preset, 1), bias(preset, 2)] == pytest.approx(MEASURED[preset], abs=5e-5)


def test_every_possible_step_was_counted():
    assert sum(probability for _, probability in groups_of_four()) == pytest.approx(1)
    assert len(groups_of_four()) == 35  # 4 outcomes, 4 draws, order aside: C(7, 4)


def test_an_unbiased_preset_has_the_known_constant():
    # group_mean takes (G − 1)/G of the return's gradient, Dr. GRPO's constant divides it: 3/4 / 256.
    loss = TypeAdapter(PolicyLossSpec).validate_python({"type": "dr_grpo"})
    expected = sum(probability * step_gradient(loss, [paths]) for paths, probability in groups_of_four())
    assert expected.tolist() == pytest.approx((0.75 / 256 * exact_gradient()).tolist())


def test_maxrl_is_unbiased_for_its_own_objective():
    # For rewards 0 or 1, rows weighed alike and p the chance of success: Σ_{k=1}^{G−1} pass@k / k, with the gradient
    # Σ_{k=0}^{G−2} (1 − p)^k ∇p. The paper's order is G; its baseline takes one off, because a group without success
    # gives nothing instead of the baseline's part.
    p = path_log_probs()[3].exp()
    [slope] = torch.autograd.grad(p, LOGITS)
    expected = torch.zeros(6, dtype=torch.float64)
    for paths, probability in groups_of_four():
        rewards = [float(path == 3) for path in paths]
        [advantages] = scaled_credit("group_mean", [rewards], [CREDIT["group_mean"](rewards)], [[1] * MEMBERS])
        expected += probability * torch.tensor(advantages, dtype=torch.float64) @ scores()[list(paths)] / MEMBERS
    factor = sum((1 - p.item()) ** k for k in range(MEMBERS - 1))
    assert expected.tolist() == pytest.approx((factor * slope.view(-1)).tolist())
