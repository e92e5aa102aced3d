from collections.abc import Callable, Sequence

import pytest

from agentrft.credit import GroupView, StepView


@pytest.fixture
def group() -> Callable[..., GroupView]:
    """`group([1.0, 0.0], ["ab", "a"])`: rewards, and one letter per turn for the state it was taken in."""

    def make(
        rewards_G: Sequence[float | None],
        states_G: Sequence[str],
        *,
        turn_rewards_G: Sequence[Sequence[float]] | None = None,
        references_G: Sequence[Sequence[float | None]] | None = None,
        calls_G: Sequence[Sequence[str]] | None = None,
        nodes_G: Sequence[Sequence[str]] | None = None,
        tokens: int = 1,
    ) -> GroupView:
        def step(member: int, turn: int, state: str) -> StepView:
            return StepView(
                state_key=None if state == "?" else state,
                calls=(calls_G[member][turn],) if calls_G else (),
                turn_reward=turn_rewards_G[member][turn] if turn_rewards_G else 0.0,
                n_tokens=tokens,
                reference_log_prob=references_G[member][turn] if references_G else None,
                node=nodes_G[member][turn] if nodes_G else None,
            )

        steps_G = tuple(
            tuple(step(member, turn, state) for turn, state in enumerate(states))
            for member, states in enumerate(states_G)
        )
        return GroupView(rewards_G=tuple(rewards_G), steps_G=steps_G)

    return make
