"""Turn returns: each turn gets what was earned from it on, turn rewards included."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentrft.credit.group_mean import group_mean
from agentrft.credit.returns import discounted, returns_of
from agentrft.credit.view import Credited, GroupView, Part, Parts

FEW = 2
"""Fewer other members than this at a turn: their mean there is noise, and the ends of all others are used."""


def turn_returns(groups: Sequence[GroupView], *, gamma: float) -> Credited:
    """A_k = G_k − mean of the other members' G_k, with G_k = Σ_{j≥k} γ^(j−k) r_j and the reward in the last r.

    The other members are those that came as far as turn k; where fewer than 2 did, all, each at its last turn before or
    at k. Returns are summed first and compared afterwards. The usual order, each turn's reward minus the mean of that
    turn number and then the sum (MT-GRPO, arXiv:2505.11821; GTPO, arXiv:2511.14846), subtracts as many means as the
    episode has turns left: it charges every decision to go on, a bias that `docs/credit.md` measures (verl issue 7244).
    With γ = 1 the mean gradient is exactly that of reward plus turn rewards.
    """
    return returns_over(groups, gamma, of_turns="turn_return")


def returns_over(groups: Sequence[GroupView], gamma: float, *, of_turns: Part) -> Credited:
    """`turn_returns` with the turn rewards' part under another name."""
    return Credited(
        parts_I_G_K=[_parts(group, gamma, of_turns) for group in groups],
        basis_I_G=[group_mean(_totals(group)) for group in groups],
    )


def _parts(group: GroupView, gamma: float, of_turns: Part) -> list[list[Parts]]:
    total_G_K = returns_of(group, gamma)
    turns_G_K = [discounted([step.turn_reward for step in steps], gamma) for steps in group.steps_G]
    graded = [member for member in group.graded if group.steps_G[member]]

    def parts(member: int, turn: int) -> Parts:
        others = _others(graded, total_G_K, member, turn)
        if not others or group.rewards_G[member] is None:
            return {"trajectory": 0.0, of_turns: 0.0}
        total = total_G_K[member][turn] - math.fsum(total_G_K[j][k] for j, k in others) / len(others)
        of_turn = turns_G_K[member][turn] - math.fsum(turns_G_K[j][k] for j, k in others) / len(others)
        return {"trajectory": total - of_turn, of_turns: of_turn}

    return [[parts(member, turn) for turn in range(len(steps))] for member, steps in enumerate(group.steps_G)]


def _totals(group: GroupView) -> list[float | None]:
    """Reward and turn rewards of each member."""
    return [
        None if reward is None else reward + math.fsum(step.turn_reward for step in steps)
        for reward, steps in zip(group.rewards_G, group.steps_G, strict=True)
    ]


def _others(
    graded: Sequence[int], returns_G_K: Sequence[Sequence[float]], member: int, turn: int
) -> list[tuple[int, int]]:
    """(member, turn) of those to compare with; chosen without a look at what `member` did from `turn` on."""
    others = [(other, turn) for other in graded if other != member and turn < len(returns_G_K[other])]
    if len(others) >= FEW:
        return others
    return [(other, min(turn, len(returns_G_K[other]) - 1)) for other in graded if other != member]
