"""Tree credit: for episodes that branch from shared turns, a turn against its siblings and against the whole group."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from agentrft.credit.group_mean import group_mean
from agentrft.credit.peers import shrinkage
from agentrft.credit.view import Credited, GroupView, Parts
from agentrft.errors import UserError


def tree(groups: Sequence[GroupView]) -> Credited:
    """w · [V(node) − b], b = V(rest) + n/(n+3) · (V(siblings) − V(rest)), n being the number of siblings.

    Every member is a leaf; a node is a turn, and members that branched after it share it. A leaf's weight w is 1
    divided by the branches at every fork on its way, and V is the weighted mean reward of leaves: of those under the
    node, of all others in the group (rest), of the others under its parent (siblings; a first turn has none, they are
    the rest). So a tree counts as one episode however often it forks, and no baseline holds what the node did: where
    forks are set by turn number or by chance the mean gradient is that of the reward, and without forks this is
    `leave_one_out`. Where they are set by what was generated (entropy, length), it is not.

    Source: Tree-GRPO, arXiv:2509.21240, and TreeRL, arXiv:2506.11902, which instead add the comparisons with tree and
    parent, and let a shared turn count by its leaves or their square root. Raises UserError where a turn has no node,
    or a node has two parents.
    """
    return Credited(
        parts_I_G_K=[_parts(group) for group in groups],
        basis_I_G=[group_mean(group.rewards_G) for group in groups],
    )


@dataclass(frozen=True, slots=True)
class _Tree:
    """The nodes of a group's graded members; None is the root."""

    leaves: dict[str | None, set[int]] = field(default_factory=lambda: {None: set()})
    """Node → members under it."""
    parents: dict[str, str | None] = field(default_factory=dict)
    children: dict[str | None, set[str]] = field(default_factory=dict)


def _parts(group: GroupView) -> list[list[Parts]]:
    grown = _grow(group)
    weights = {
        member: 1.0 / math.prod(max(1, len(grown.children.get(step.node, ()))) for step in group.steps_G[member])
        for member in group.graded
    }
    rewards = {member: reward for member, reward in enumerate(group.rewards_G) if reward is not None}

    def parts(member: int, node: str) -> Parts:
        under, parent, weight = grown.leaves[node], grown.parents[node], weights[member]
        rest = grown.leaves[None] - under
        if not rest:
            return {"trajectory": 0.0, "step": 0.0}
        value, of_rest = _mean(under, rewards, weights), _mean(rest, rewards, weights)
        siblings = len(grown.children[parent]) - 1
        if parent is None or not siblings:
            return {"trajectory": weight * (value - of_rest), "step": 0.0}
        of_siblings = _mean(grown.leaves[parent] - under, rewards, weights)
        step = shrinkage(siblings) * (of_rest - of_siblings)
        return {"trajectory": weight * (value - of_rest), "step": weight * step}

    return [
        [
            parts(member, step.node)
            if member in rewards and step.node is not None
            else {"trajectory": 0.0, "step": 0.0}
            for step in steps
        ]
        for member, steps in enumerate(group.steps_G)
    ]


def _grow(group: GroupView) -> _Tree:
    grown = _Tree()
    for member in group.graded:
        parent = None
        grown.leaves[None].add(member)
        for turn, step in enumerate(group.steps_G[member]):
            if step.node is None:
                raise _refused(f"turn {turn} of member {member} has no node; play the job with branching rollouts")
            if grown.parents.setdefault(step.node, parent) != parent:
                raise _refused(f"node {step.node} has two parents, {grown.parents[step.node]} and {parent}")
            grown.children.setdefault(parent, set()).add(step.node)
            grown.leaves.setdefault(step.node, set()).add(member)
            parent = step.node
    return grown


def _mean(members: Iterable[int], rewards: Mapping[int, float], weights: Mapping[int, float]) -> float:
    listed = sorted(members)
    return math.fsum(weights[m] * rewards[m] for m in listed) / math.fsum(weights[m] for m in listed)


def _refused(found: str) -> UserError:
    return UserError(f"credit tree: {found}", param="training.credit", code="invalid_credit")
