"""From a played group to what credit sees of it."""

from __future__ import annotations

from collections.abc import Sequence

from agentrft.credit.keys import calls_of, state_keys
from agentrft.credit.view import GroupView, StepView
from agentrft.types import Group


def view_of(
    group: Group,
    rewards_G: Sequence[float | None],
    *,
    state_hashes_G_K: Sequence[Sequence[str | None]] | None = None,
    turn_rewards_G_K: Sequence[Sequence[float]] | None = None,
    reference_log_probs_G_K: Sequence[Sequence[float | None]] | None = None,
    nodes_G_K: Sequence[Sequence[str | None]] | None = None,
) -> GroupView:
    """The group with its rewards, and with what else is known of each turn; every list has one entry per turn.

    `state_hashes_G_K` is what the tools said of their state before each reply; without it states are told apart by what
    the model saw (`agentrft.credit.keys`).
    """
    steps_G: list[tuple[StepView, ...]] = []
    for member, episode in enumerate(group.episodes):
        turns = episode.turns
        keys_K = state_keys(turns, state_hashes_G_K[member] if state_hashes_G_K else None)
        turn_rewards_K = turn_rewards_G_K[member] if turn_rewards_G_K else [0.0] * len(turns)
        references_K = reference_log_probs_G_K[member] if reference_log_probs_G_K else [None] * len(turns)
        nodes_K = nodes_G_K[member] if nodes_G_K else [None] * len(turns)
        steps_G.append(
            tuple(
                StepView(
                    state_key=key,
                    calls=calls_of(turn),
                    turn_reward=turn_reward,
                    n_tokens=turn.end - turn.start,
                    reference_log_prob=reference,
                    node=node,
                )
                for turn, key, turn_reward, reference, node in zip(
                    turns, keys_K, turn_rewards_K, references_K, nodes_K, strict=True
                )
            )
        )
    return GroupView(rewards_G=tuple(rewards_G), steps_G=tuple(steps_G))
