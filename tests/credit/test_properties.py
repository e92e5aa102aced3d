"""What must hold for every method, whatever the group."""

import math
import random
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrft.credit import CREDIT, METHODS, GroupView, RewardScale, StepView

SETTINGS = {
    "step_groups": {"omega": 1.0, "gamma": 0.95},
    "turn_returns": {"gamma": 1.0},
    "grouped_gae": {"gamma": 1.0, "lam": 0.95},
    "information_gain": {"weight": 1.0, "form": "gain"},
}
EVERY = {name: partial(method, **SETTINGS.get(name, {})) for name, method in METHODS.items()}
METHOD = pytest.mark.parametrize("credit", EVERY.values(), ids=EVERY.keys())

REWARD = st.none() | st.sampled_from([0.0, 0.25, 0.5, 1.0])


@st.composite
def groups(draw: st.DrawFn, rewards: st.SearchStrategy[float | None] = REWARD) -> GroupView:
    """Up to six members, up to four turns in states a … d, all beginning in a."""
    size = draw(st.integers(1, 6))
    states_G = ["a" + draw(st.text("abcd", max_size=3)) for _ in range(size)]
    return GroupView(
        rewards_G=tuple(draw(rewards) for _ in range(size)),
        steps_G=tuple(
            tuple(
                StepView(state_key=state, n_tokens=1 + turn, reference_log_prob=-1.0, node=f"{member}.{turn}")
                for turn, state in enumerate(states)
            )
            for member, states in enumerate(states_G)
        ),
    )


def picked(group: GroupView, members: list[int]) -> GroupView:
    return GroupView(
        rewards_G=tuple(group.rewards_G[member] for member in members),
        steps_G=tuple(group.steps_G[member] for member in members),
    )


@METHOD
@settings(max_examples=40)
@given(step=st.lists(groups(), max_size=3))
def test_every_turn_gets_a_finite_number_and_ungraded_members_none(credit, step):
    credited = credit(step)
    for group, credit_G_K in zip(step, credited.credit_I_G_K, strict=True):
        assert [len(credit_K) for credit_K in credit_G_K] == [len(steps) for steps in group.steps_G]
        for reward, credit_K in zip(group.rewards_G, credit_G_K, strict=True):
            assert all(math.isfinite(value) for value in credit_K)
            if reward is None or len(group.graded) < 2:
                assert credit_K == pytest.approx([0.0] * len(credit_K), abs=1e-12)


@METHOD
@settings(max_examples=40)
@given(group=groups())
def test_ungraded_members_change_nothing_for_the_others(credit, group):
    with_them, without = credit([group]), credit([picked(group, group.graded)])
    for place, member in enumerate(group.graded):
        assert with_them.credit_I_G_K[0][member] == pytest.approx(without.credit_I_G_K[0][place], abs=1e-9)


@METHOD
@settings(max_examples=40)
@given(group=groups(), seed=st.integers(0, 99))
def test_the_order_of_members_does_not_matter(credit, group, seed):
    order = list(range(len(group.rewards_G)))
    random.Random(seed).shuffle(order)
    one, other = credit([group]).credit_I_G_K[0], credit([picked(group, order)]).credit_I_G_K[0]
    for place, member in enumerate(order):
        assert other[place] == pytest.approx(one[member], abs=1e-9)


@METHOD
@settings(max_examples=40)
@given(group=groups(rewards=st.just(0.3) | st.none()))
def test_a_constant_group_gets_nothing(credit, group):
    for credit_K in credit([group]).credit_I_G_K[0]:
        assert credit_K == pytest.approx([0.0] * len(credit_K), abs=1e-9)


SHIFT_FREE = {name: credit for name, credit in EVERY.items() if name != "step_groups"}
SHIFT_FREE["step_groups"] = partial(METHODS["step_groups"], omega=1.0, gamma=1.0)
"""With γ < 1 it matters where 0 is: that is what makes failing early no better than failing late."""


@pytest.mark.parametrize("credit", SHIFT_FREE.values(), ids=SHIFT_FREE.keys())
@settings(max_examples=40)
@given(group=groups())
def test_another_unit_and_another_zero_of_rewards_leave_advantages_as_they_are(credit, group):
    def advantages(a: float, b: float) -> list[float]:
        rewards_G = tuple(None if reward is None else a * reward + b for reward in group.rewards_G)
        credited = credit([GroupView(rewards_G=rewards_G, steps_G=group.steps_G)])
        flat = [value for credit_K in credited.credit_I_G_K[0] for value in credit_K]
        return RewardScale().updated([rewards_G], credited.basis_I_G).advantages(flat)

    assert advantages(4.0, -8.0) == pytest.approx(advantages(1.0, 0.0), abs=1e-7)


@pytest.mark.parametrize("name", CREDIT)
@given(step=st.lists(groups(), max_size=3))
def test_the_trajectory_rules_are_the_same_to_the_bit_for_every_turn(name, step):
    credited = METHODS[name](step)
    expected = [CREDIT[name](group.rewards_G) for group in step]
    assert credited.basis_I_G == expected
    assert credited.credit_I_G_K == [
        [[value] * len(steps) for value, steps in zip(values, group.steps_G, strict=True)]
        for values, group in zip(expected, step, strict=True)
    ]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_refused(bad):
    step = StepView(state_key="a")
    with pytest.raises(ValueError, match="finite or None"):
        GroupView(rewards_G=(bad, 0.0), steps_G=((step,), (step,)))
    with pytest.raises(ValueError, match="finite or None"):
        GroupView(rewards_G=(1.0, 0.0), steps_G=((StepView(turn_reward=bad),), (step,)))


def test_members_must_match():
    with pytest.raises(ValueError, match="2 rewards for 1 members"):
        GroupView(rewards_G=(1.0, 0.0), steps_G=((),))
