"""Grouped GAE: advantages from state values that the other members' returns estimate, no critic."""

from __future__ import annotations

import math
from collections.abc import Sequence

from agentrft.credit.group_mean import group_mean
from agentrft.credit.peers import Peers, others_mean, peers_of
from agentrft.credit.returns import returns_of
from agentrft.credit.view import Credited, GroupView, Parts


def grouped_gae(groups: Sequence[GroupView], *, gamma: float, lam: float) -> Credited:
    """A_k = Σ_l (γλ)^l δ_{k+l} with δ_k = r_k + γ·V(s_{k+1}) − V(s_k), the episode's reward being in the last r.

    V(s) is the mean discounted return of the other members from their first visit to s. Where no other member was, the
    recursion goes on with the episode's own return, as if λ were 1 there, and the advantage is taken against the other
    members' mean. λ = 1 is Monte Carlo; a smaller λ has less variance and believes the values more.

    With γ = 1 and keys that tell all states apart it is unbiased; where a key confuses states, λ < 1 is biased. The
    part `trajectory` is the return against the others' mean, `step` what the values change. Source: GAGPO,
    arXiv:2605.13217, for the idea; GAE, arXiv:1506.02438, for the sum.
    """
    return Credited(
        parts_I_G_K=[_parts(group, gamma, lam) for group in groups],
        basis_I_G=[group_mean(group.rewards_G) for group in groups],
    )


def _parts(group: GroupView, gamma: float, lam: float) -> list[list[Parts]]:
    returns_G_K = returns_of(group, gamma)
    peers_G_K = peers_of(group, returns_G_K)
    others_G = others_mean(group, returns_G_K)
    parts_G_K: list[list[Parts]] = []
    for member, reward in enumerate(group.rewards_G):
        returns_K, others = returns_G_K[member], others_G[member]
        if reward is None or math.isnan(others):
            parts_G_K.append([{"trajectory": 0.0, "step": 0.0} for _ in returns_K])
            continue
        rewards_K = [step.turn_reward for step in group.steps_G[member]]
        rewards_K[-1:] = [turn_reward + reward for turn_reward in rewards_K[-1:]]
        advantages_K = _advantages(rewards_K, peers_G_K[member], others, gamma, lam)
        parts_G_K.append(
            [
                {"trajectory": own_return - others, "step": advantage - (own_return - others)}
                for own_return, advantage in zip(returns_K, advantages_K, strict=True)
            ]
        )
    return parts_G_K


def _advantages(
    rewards_K: Sequence[float], peers_K: Sequence[Peers], others: float, gamma: float, lam: float
) -> list[float]:
    """λ-returns, backwards, against the value of each state: the same sum as GAE's where all values are known."""
    advantages_K: list[float] = []
    lambda_return = next_value = 0.0
    for reward, peers in zip(reversed(rewards_K), reversed(peers_K), strict=True):
        bootstrap = lambda_return if math.isnan(next_value) else (1 - lam) * next_value + lam * lambda_return
        lambda_return = reward + gamma * bootstrap
        next_value = peers.mean
        advantages_K.append(lambda_return - (peers.mean if peers.n else others))
    return advantages_K[::-1]
