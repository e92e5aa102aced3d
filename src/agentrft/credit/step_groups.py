"""Step groups: episodes against their group, and turns against the turns that others took from the same state."""

from __future__ import annotations

from collections.abc import Sequence

from agentrft.credit.group_mean import group_mean
from agentrft.credit.peers import Peers, peers_of, shrinkage
from agentrft.credit.returns import returns_of
from agentrft.credit.view import Credited, GroupView, Parts, every_turn

MIN_COVERAGE = 0.2
"""Below this share of the turns after the first, comparing states says more about chance than about choices."""


def step_groups(groups: Sequence[GroupView], *, omega: float, gamma: float) -> Credited:
    """A_k = (R − mean of the group) + ω · n/(n+3) · (G_k − mean of G over the n peers of the state).

    G_k is the return from turn k, discounted by γ per turn, so that going round in circles costs something. Without
    peers, and in the state that the episode began in, the step term is 0: there all members meet, and it would say what
    the first term says. When fewer than 20 % of the turns after the first have peers, no turn gets a step term, and a
    note says so.

    Biased: turns in states that recur get up to 1 + ω times the weight of others, and γ < 1 prefers early success
    (`docs/credit.md` has figures); `step_baseline` is not. Source: GiGPO, arXiv:2505.10978, without its division by the
    standard deviation, peers from other episodes only, shrunk where they are few.
    """
    credit_I_G = [group_mean(group.rewards_G) for group in groups]
    returns_I_G_K = [_returns(group, gamma) for group in groups]
    peers_I_G_K = [
        _beyond_the_start(group, peers_of(group, returns_G_K))
        for group, returns_G_K in zip(groups, returns_I_G_K, strict=True)
    ]
    covered, later = _coverage(groups, peers_I_G_K)
    if not later or covered / later < MIN_COVERAGE:
        share = f"{covered} of {later} turns after the first" if later else "no episode has a second turn"
        note = f"step groups are off in this step: {share} met a state that another member met, expected 20 %"
        return Credited(parts_I_G_K=every_turn(groups, credit_I_G), basis_I_G=credit_I_G, notes=(note,))

    def parts(credit: float, own_return: float, peers: Peers) -> Parts:
        step = omega * shrinkage(peers.n) * (own_return - peers.mean) if peers.n else 0.0
        return {"trajectory": credit, "step": step}

    return Credited(
        parts_I_G_K=[
            [
                [parts(credit, own_return, peers) for own_return, peers in zip(returns_K, peers_K, strict=True)]
                for credit, returns_K, peers_K in zip(credit_G, returns_G_K, peers_G_K, strict=True)
            ]
            for credit_G, returns_G_K, peers_G_K in zip(credit_I_G, returns_I_G_K, peers_I_G_K, strict=True)
        ],
        basis_I_G=credit_I_G,
    )


def _returns(group: GroupView, gamma: float) -> list[list[float]]:
    """Discounted returns; 0 where all members earned alike, because there the discount alone would make differences."""
    totals_G_K = returns_of(group, 1.0)
    earned = {totals_G_K[member][0] for member in group.graded if totals_G_K[member]}
    returns_G_K = returns_of(group, gamma)
    return returns_G_K if len(earned) > 1 else [[0.0] * len(returns_K) for returns_K in returns_G_K]


def _beyond_the_start(group: GroupView, peers_G_K: list[list[Peers]]) -> list[list[Peers]]:
    """Without peers wherever the episode is in the state that it began in."""
    return [
        [Peers() if step.state_key == steps[0].state_key else peers for step, peers in zip(steps, peers_K, strict=True)]
        for steps, peers_K in zip(group.steps_G, peers_G_K, strict=True)
    ]


def _coverage(groups: Sequence[GroupView], peers_I_G_K: Sequence[Sequence[Sequence[Peers]]]) -> tuple[int, int]:
    """(turns after the first that have peers, turns after the first), of graded members."""
    later = [
        peers
        for group, peers_G_K in zip(groups, peers_I_G_K, strict=True)
        for member in group.graded
        for peers in peers_G_K[member][1:]
    ]
    return sum(peers.n > 0 for peers in later), len(later)
