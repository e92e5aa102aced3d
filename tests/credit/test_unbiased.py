"""Is the mean gradient that of the return, when the policy decides when to stop?

A tabular MDP small enough to be exact: 15 episodes are possible, so 3,060 groups of 4 (times the orders they come in),
and the mean over all of them, weighted by their probability, is the mean gradient without any sampling error. "Bias" is
|mean − c · exact| / |c · exact| with the c that fits best. The figures are those of `docs/credit.md`.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache, partial

import numpy as np
import pytest
from numpy.typing import NDArray

from agentrft.credit import CREDIT, METHODS, GroupView, StepView

STOP, GO, STAY = range(3)
MAX_TURNS, G = 3, 4
THETA = np.array([[0.2, 0.5, -0.3], [-0.4, 0.3, 0.1], [0.0, -0.2, 0.4]])
"""Logits by state and action."""
POLICY = np.exp(THETA) / np.exp(THETA).sum(1, keepdims=True)
REWARD = (0.4, 0.0, 1.0)
"""For stopping in each state; running out of turns earns 0.1."""
TURN_REWARD = np.array([[0.0, 0.2, 0.1], [0.0, 0.3, 0.1], [0.0, 0.0, 0.2]])
LIKELY = (0.14, 0.37, 0.74)
"""Probability of the reference answer in each state."""

Path = tuple[tuple[int, int], ...]
"""(state, action) of each turn."""
Credit = Callable[[Sequence[GroupView]], list[list[float]]]
"""Of one group, by member and turn."""
Scaled = Callable[[GroupView, Sequence[float]], list[float]]


def episodes(state: int = 0, so_far: Path = ()) -> list[Path]:
    """Every episode there is. GO leads to the next state, STAY back to the same."""
    found: list[Path] = []
    for action in (STOP, GO, STAY):
        path = (*so_far, (state, action))
        ends = action == STOP or len(path) == MAX_TURNS
        found += [path] if ends else episodes(min(2, state + (action == GO)), path)
    return found


def reward(path: Path) -> float:
    state, action = path[-1]
    return REWARD[state] if action == STOP else 0.1


def turn_rewards(path: Path) -> float:
    return float(sum(TURN_REWARD[step] for step in path))


def score(state: int, action: int) -> NDArray[np.float64]:
    """∇ log π."""
    gradient = np.zeros_like(THETA)
    gradient[state] -= POLICY[state]
    gradient[state, action] += 1.0
    return gradient


EPISODES = episodes()
PROBABILITY = [math.prod(POLICY[step] for step in path) for path in EPISODES]
SCORES = [[score(*step) for step in path] for path in EPISODES]


def exact(value: Callable[[Path], float]) -> NDArray[np.float64]:
    """The gradient of the expected value."""
    return sum(
        (p * value(path) * sum(scores) for p, path, scores in zip(PROBABILITY, EPISODES, SCORES, strict=True)),
        start=np.zeros_like(THETA),
    )


@cache
def steps(path: Path, key: str, with_turn_rewards: bool) -> tuple[StepView, ...]:
    """`key`: `state` is what a tool would tell, `state and turn` is all that the future depends on."""
    return tuple(
        StepView(
            state_key=f"{state}" if key == "state" else f"{state} at {turn}",
            turn_reward=TURN_REWARD[state, action] if with_turn_rewards else 0.0,
            n_tokens=1 + action,
            reference_log_prob=math.log(LIKELY[state]),
        )
        for turn, (state, action) in enumerate(path)
    )


def mean_gradient(credit: Credit, *, key: str = "state", with_turn_rewards: bool = False) -> NDArray[np.float64]:
    """The expectation, over all groups, of the mean over members of Σ_k A_k ∇ log π."""
    weights = [[0.0] * len(path) for path in EPISODES]
    for members in itertools.combinations_with_replacement(range(len(EPISODES)), G):
        orders = math.factorial(G) / math.prod(math.factorial(count) for count in Counter(members).values())
        probability = orders * math.prod(PROBABILITY[member] for member in members)
        view = GroupView(
            rewards_G=tuple(reward(EPISODES[member]) for member in members),
            steps_G=tuple(steps(EPISODES[member], key, with_turn_rewards) for member in members),
        )
        for member, credit_K in zip(members, credit([view]), strict=True):
            for turn, one in enumerate(credit_K):
                weights[member][turn] += probability * one / G
    return sum(
        (
            weight * gradient
            for weights_K, scores in zip(weights, SCORES, strict=True)
            for weight, gradient in zip(weights_K, scores, strict=True)
        ),
        start=np.zeros_like(THETA),
    )


def method(name: str, **settings: object) -> Credit:
    credit = partial(METHODS[name], **settings)
    return lambda groups: credit(groups).credit_I_G_K[0]


def bias(gradient: NDArray[np.float64], truth: NDArray[np.float64]) -> float:
    best = float((gradient * truth).sum() / (truth * truth).sum())
    return float(np.linalg.norm(gradient - best * truth) / np.linalg.norm(best * truth))


def test_these_are_all_episodes() -> None:
    assert len(EPISODES) == 15
    assert sum(PROBABILITY) == pytest.approx(1.0, abs=1e-12)
    # The gradient by finite differences of the expected reward, at one logit
    truth, h = exact(reward), 1e-6
    moved = THETA.copy()
    moved[1, GO] += h
    policy = np.exp(moved) / np.exp(moved).sum(1, keepdims=True)
    values = [sum(math.prod(pi[step] for step in path) * reward(path) for path in EPISODES) for pi in (policy, POLICY)]
    assert (values[0] - values[1]) / h == pytest.approx(truth[1, GO], rel=1e-4)


@pytest.mark.parametrize(
    ("name", "settings", "factor"),
    [
        ("group_mean", {}, (G - 1) / G),
        ("leave_one_out", {}, 1.0),
        ("step_baseline", {}, 1.0),
        ("information_gain", {"weight": 1.0, "form": "potential"}, 1.0),
    ],
)
def test_the_mean_gradient_is_that_of_the_reward(name: str, settings: dict[str, object], factor: float) -> None:
    assert mean_gradient(method(name, **settings)) == pytest.approx(factor * exact(reward), abs=1e-12)


def test_step_baseline_and_turn_returns_are_exact_with_turn_rewards_too() -> None:
    truth = exact(lambda path: reward(path) + turn_rewards(path))
    for credit in (method("step_baseline"), method("turn_returns", gamma=1.0)):
        assert mean_gradient(credit, with_turn_rewards=True) == pytest.approx(truth, abs=1e-12)


def test_trees_that_fork_after_the_first_turn_are_exact() -> None:
    """Two trees to the group; what goes on after its first turn goes on twice. Leaves are (episode, probability)."""
    trees: list[tuple[tuple[Path, ...], float]] = []
    for first, same in itertools.groupby(zip(EPISODES, PROBABILITY, strict=True), key=lambda pair: pair[0][0]):
        ends, chance = list(same), float(POLICY[first])
        if len(ends) == 1:
            trees.append(((ends[0][0],), chance))
        else:
            trees += [((a, b), p * q / chance) for (a, p), (b, q) in itertools.product(ends, ends)]
    assert sum(p for _, p in trees) == pytest.approx(1.0)

    def leaf(path: Path, tree: int, branch: int) -> tuple[StepView, ...]:
        return tuple(StepView(node=f"{tree}" if k == 0 else f"{tree}.{branch}.{k}") for k in range(len(path)))

    number, total = {path: place for place, path in enumerate(EPISODES)}, np.zeros_like(THETA)
    for (one, p), (other, q) in itertools.combinations_with_replacement(trees, 2):
        leaves = [
            (path, leaf(path, t, branch)) for t, paths in enumerate((one, other)) for branch, path in enumerate(paths)
        ]
        view = GroupView(rewards_G=tuple(reward(path) for path, _ in leaves), steps_G=tuple(s for _, s in leaves))
        for (path, _), credit_K in zip(leaves, method("tree")([view]), strict=True):
            for credit, gradient in zip(credit_K, SCORES[number[path]], strict=True):
                total += p * q * (1 if one is other else 2) * credit / 2 * gradient
    assert total == pytest.approx(exact(reward), abs=1e-12)


@pytest.mark.parametrize("lam", [0.0, 0.95])
def test_grouped_gae_is_exact_where_keys_tell_states_apart(lam: float) -> None:
    credit = method("grouped_gae", gamma=1.0, lam=lam)
    assert mean_gradient(credit, key="state and turn") == pytest.approx(exact(reward), abs=1e-12)


@pytest.mark.parametrize(
    ("name", "settings", "measured"),
    [
        ("step_groups", {"omega": 1.0, "gamma": 1.0}, 0.155),
        ("step_groups", {"omega": 1.0, "gamma": 0.95}, 0.149),
        ("grouped_gae", {"gamma": 1.0, "lam": 0.95}, 0.010),  # the state alone does not tell how many turns are left
        ("grouped_gae", {"gamma": 1.0, "lam": 0.0}, 0.165),
        ("information_gain", {"weight": 1.0, "form": "gain"}, 3.12),
    ],
)
def test_these_are_biased_by_as_much_as_the_docs_say(name: str, settings: dict[str, object], measured: float) -> None:
    found = bias(mean_gradient(method(name, **settings)), exact(reward))
    assert found == pytest.approx(measured, abs=0.006)


def test_discounted_turn_returns_are_biased() -> None:
    truth = exact(lambda path: reward(path) + turn_rewards(path))
    found = mean_gradient(method("turn_returns", gamma=0.95), with_turn_rewards=True)
    assert bias(found, truth) == pytest.approx(0.066, abs=0.001)


def tokens_of(group: GroupView) -> list[int]:
    return [sum(step.n_tokens for step in steps) for steps in group.steps_G]


def group_std(group: GroupView, credit_G: Sequence[float]) -> list[float]:
    """GRPO."""
    return [credit / (statistics.stdev(credit_G) + 1e-4) for credit in credit_G]


def group_share(group: GroupView, credit_G: Sequence[float]) -> list[float]:
    """MaxRL; the mean is never 0 here but where all rewards are."""
    return [credit / (statistics.fmean(reward or 0.0 for reward in group.rewards_G) or 1.0) for credit in credit_G]


def whitened(group: GroupView, credit_G: Sequence[float]) -> list[float]:
    """REINFORCE++, over the tokens of the step."""
    by_token = [one for one, tokens in zip(credit_G, tokens_of(group), strict=True) for _ in range(tokens)]
    mean, deviation = statistics.fmean(by_token), statistics.pstdev(by_token)
    return [(credit - mean) / (deviation or 1.0) for credit in credit_G]


@pytest.mark.parametrize(("scaled", "measured"), [(group_std, 0.317), (group_share, 0.273), (whitened, 0.476)])
def test_scaling_by_what_the_group_itself_shows_is_biased(scaled: Scaled, measured: float) -> None:
    """The presets of the loss that do so; one group to the step."""

    def credit(groups: Sequence[GroupView]) -> list[list[float]]:
        credit_G = CREDIT["group_mean"](groups[0].rewards_G)
        pairs = zip(scaled(groups[0], credit_G), groups[0].steps_G, strict=True)
        return [[one] * len(steps) for one, steps in pairs]

    assert bias(mean_gradient(credit), exact(reward)) == pytest.approx(measured, abs=0.006)


def test_dividing_by_the_tokens_of_the_step_is_biased_a_little() -> None:
    """As `train.rft` does; with one group of 4 to the step, the worst case."""

    def token_mean(groups: Sequence[GroupView]) -> list[list[float]]:
        tokens = sum(tokens_of(groups[0]))
        return [[credit / tokens for credit in credit_K] for credit_K in method("leave_one_out")(groups)]

    assert bias(mean_gradient(token_mean), exact(reward)) == pytest.approx(0.073, abs=0.001)


def compared_before_the_sum(groups: Sequence[GroupView]) -> list[list[float]]:
    """Known to be biased: each turn's reward minus the others' mean at that turn, and only then the sum to go."""
    rewards_G_K = [[step.turn_reward for step in steps] for steps in groups[0].steps_G]
    credit_G_K = method("leave_one_out")(groups)
    for member, rewards_K in enumerate(rewards_G_K):
        to_go = 0.0
        for turn in reversed(range(len(rewards_K))):
            others = [r_K[turn] for other, r_K in enumerate(rewards_G_K) if other != member and turn < len(r_K)]
            to_go += rewards_K[turn] - (sum(others) / len(others) if others else 0.0)
            credit_G_K[member][turn] += to_go
    return credit_G_K


def test_comparing_before_the_sum_charges_every_decision_to_go_on() -> None:
    truth = exact(lambda path: reward(path) + turn_rewards(path))
    found = mean_gradient(compared_before_the_sum, with_turn_rewards=True)
    assert bias(found, truth) == pytest.approx(0.674, abs=0.001)

    # The bias in closed form: turn j costs c_j = P(another member gets to j) · E[its reward there].
    def charge(turn: int) -> float:
        arrived = [(p, path) for p, path in zip(PROBABILITY, EPISODES, strict=True) if turn < len(path)]
        share = sum(p for p, _ in arrived)
        mean = sum(p * TURN_REWARD[path[turn]] for p, path in arrived) / share
        return (1 - (1 - share) ** (G - 1)) * mean

    charges = [charge(turn) for turn in range(MAX_TURNS)]
    assert min(charges) > 0
    hidden = exact(lambda path: -sum(charges[: len(path)]))
    assert found == pytest.approx(truth + hidden, abs=1e-12)


def test_a_sampled_mean_gradient_is_within_three_standard_errors() -> None:
    """The same statement as above with drawn groups, as a check on the enumeration."""
    draws = np.random.default_rng(0).choice(len(EPISODES), size=(2000, G), p=PROBABILITY)
    credit, gradients = method("step_baseline"), []
    for members in draws.tolist():
        view = GroupView(
            rewards_G=tuple(reward(EPISODES[member]) for member in members),
            steps_G=tuple(steps(EPISODES[member], "state", False) for member in members),
        )
        parts = [
            one * gradient
            for member, credit_K in zip(members, credit([view]), strict=True)
            for one, gradient in zip(credit_K, SCORES[member], strict=True)
        ]
        gradients.append(sum(parts, start=np.zeros_like(THETA)) / G)
    mean, error = np.mean(gradients, axis=0), np.std(gradients, axis=0) / math.sqrt(len(gradients))
    assert (np.abs(mean - exact(reward)) <= 3 * error).all()
