"""Does credit reach early decisions? A chain of ten states, a tabular policy, episodes until it is solved.

In each state one action of four goes on, one gives up and keeps what was earned so far (a tenth for each state passed),
two do nothing. An episode has 30 turns. Solved means an expected reward of 0.95, which is computed, not sampled.
"""

from __future__ import annotations

import statistics
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from agentrft.credit import METHODS, CreditFunction, GroupView, RewardScale, StepView

STATES, ACTIONS, TURNS = 10, 4, 30
GO_ON, GIVE_UP = 0, 1
GROUPS, MEMBERS, LIMIT = 2, 8, 200
RATE = 32.0
"""The best of 8, 16, 32 and 64 for both that are compared."""
SEEDS = range(10)

Float = NDArray[np.float64]


def policy(theta: Float) -> Float:
    odds = np.exp(theta - theta.max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


def expected_reward(pi: Float) -> float:
    """By dynamic programming over the turns that are left."""
    values = np.arange(STATES + 1) / STATES
    for _ in range(TURNS):
        stays = pi[:, 2:].sum(1) * values[:-1]
        values[:-1] = pi[:, GO_ON] * values[1:] + pi[:, GIVE_UP] * np.arange(STATES) / STATES + stays
    return float(values[0])


def play(odds: list[list[float]], draws: list[float]) -> tuple[list[tuple[int, int]], float]:
    """(state, action) of each turn, and the reward; `odds` are cumulative."""
    state, turns = 0, []
    for draw in draws:
        action = next((a for a, upto in enumerate(odds[state]) if draw < upto), ACTIONS - 1)
        turns.append((state, action))
        state += action == GO_ON
        if action == GIVE_UP or state == STATES:
            break
    return turns, state / STATES


def episodes_to_solve(credit: CreditFunction, rate: float, seed: int) -> int:
    """Episodes until the chain is solved, or all that are allowed: the loop of `train.rft` in numpy."""
    rng, theta, scale = np.random.default_rng(seed), np.zeros((STATES, ACTIONS)), RewardScale()
    for step in range(1, LIMIT + 1):
        pi = policy(theta)
        odds = pi.cumsum(1).tolist()
        played = [[play(odds, rng.random(TURNS).tolist()) for _ in range(MEMBERS)] for _ in range(GROUPS)]
        views = [
            GroupView(
                rewards_G=tuple(reward for _, reward in group),
                steps_G=tuple(tuple(StepView(state_key=f"{s}", n_tokens=1) for s, _ in turns) for turns, _ in group),
            )
            for group in played
        ]
        credited = credit(views)
        scale = scale.updated([view.rewards_G for view in views], credited.basis_I_G)
        weights = np.zeros_like(theta)
        for group, credit_G_K in zip(played, credited.credit_I_G_K, strict=True):
            for (turns, _), credit_K in zip(group, credit_G_K, strict=True):
                for turn, advantage in zip(turns, scale.advantages(credit_K), strict=True):
                    weights[turn] += advantage
        tokens = sum(len(turns) for group in played for turns, _ in group)
        theta += rate / tokens * (weights - pi * weights.sum(1, keepdims=True))
        if expected_reward(policy(theta)) >= 0.95:
            return step * GROUPS * MEMBERS
    return LIMIT * GROUPS * MEMBERS


def test_step_groups_need_two_thirds_of_the_episodes_that_trajectory_credit_needs() -> None:
    step_groups = partial(METHODS["step_groups"], omega=1.0, gamma=0.95)
    medians = [
        statistics.median(episodes_to_solve(credit, RATE, seed) for seed in SEEDS)
        for credit in (METHODS["group_mean"], step_groups)
    ]
    # Measured: 240 and 144
    assert medians[0] / medians[1] >= 1.5


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("group_mean", {}),
        ("leave_one_out", {}),
        ("step_groups", {"omega": 1.0, "gamma": 0.95}),
        ("step_baseline", {}),
        ("turn_returns", {"gamma": 1.0}),
        ("grouped_gae", {"gamma": 1.0, "lam": 0.95}),
    ],
)
def test_every_method_solves_the_chain(name: str, settings: dict[str, object]) -> None:
    assert episodes_to_solve(partial(METHODS[name], **settings), 16.0, seed=0) < LIMIT * GROUPS * MEMBERS
