"""Step baseline: each turn against what others earned from the same state, without bias."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentrft.credit.group_mean import group_mean
from agentrft.credit.peers import Peers, others_mean, peers_of, shrinkage
from agentrft.credit.returns import returns_of
from agentrft.credit.view import Credited, GroupView, Parts


def step_baseline(groups: Sequence[GroupView]) -> Credited:
    """A_k = G_k − b_k, with b_k between the other members' mean return and the mean over the n peers of the state.

    b_k = b + n/(n+3) · (b_peers − b); G_k is what the episode earns from turn k on, undiscounted. Both means are over
    other episodes, and both are known before turn k acts, so the mean gradient is exactly that of the return, whatever
    the keys confuse: it takes variance away and nothing else. The parts are G_k − b (`trajectory`) and what the state
    changes about it (`step`). Source: REINFORCE with a state-dependent baseline (Williams 1992; Greensmith, Bartlett
    and Baxter 2004, JMLR 5), its values estimated from GiGPO's groups of equal states (arXiv:2505.10978).
    """
    return Credited(
        parts_I_G_K=[_parts(group) for group in groups],
        basis_I_G=[group_mean(group.rewards_G) for group in groups],
    )


def _parts(group: GroupView) -> list[list[Parts]]:
    returns_G_K = returns_of(group, 1.0)
    peers_G_K = peers_of(group, returns_G_K)
    others_G = others_mean(group, returns_G_K)

    def parts(own_return: float, others: float, peers: Peers) -> Parts:
        step = shrinkage(peers.n) * (others - peers.mean) if peers.n else 0.0
        return {"trajectory": own_return - others, "step": step}

    return [
        [parts(own_return, others, peers) for own_return, peers in zip(returns_K, peers_K, strict=True)]
        if reward is not None and not math.isnan(others)
        else [{"trajectory": 0.0, "step": 0.0} for _ in returns_K]
        for reward, returns_K, others, peers_K in zip(group.rewards_G, returns_G_K, others_G, peers_G_K, strict=True)
    ]
