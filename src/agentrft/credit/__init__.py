"""Credit: from the grades of a group to one advantage per turn, in plain numbers.

grade → `reward_after` (penalties) → `view_of` → `METHODS[type]` (all groups of a step) → `RewardScale` (one scale for
the run) → one number for each turn, which `rollout.row_of` gives to the tokens of its reply.

`docs/credit.md` says which method is for what, and which are biased. To add one: a file with a function from groups to
`Credited`, a spec in `spec.py`, and one line in `METHODS`. A method that looks at rewards only is a function from the
rewards of a group to its centred credits, and `_lifted` gives its credits to every turn.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from agentrft.credit.discrimination import check_turn_rewards
from agentrft.credit.from_group import view_of
from agentrft.credit.group_mean import group_mean
from agentrft.credit.grouped_gae import grouped_gae
from agentrft.credit.information_gain import information_gain
from agentrft.credit.leave_one_out import leave_one_out
from agentrft.credit.own import load_function, own_credit, own_turn_rewards
from agentrft.credit.peers import Peers, peers_of
from agentrft.credit.penalties import Reward, Usage, reward_after, reward_of, usage_of
from agentrft.credit.scale import RewardScale
from agentrft.credit.spec import CreditSpec, OwnCredit, PenaltiesSpec
from agentrft.credit.step_baseline import step_baseline
from agentrft.credit.step_groups import step_groups
from agentrft.credit.tree import tree
from agentrft.credit.turn_returns import turn_returns
from agentrft.credit.view import Credited, CreditFunction, GroupView, Parts, StepView, every_turn

_RewardsToCredit = Callable[[Sequence[float | None]], list[float]]

CREDIT: dict[str, _RewardsToCredit] = {
    "group_mean": group_mean,
    "leave_one_out": leave_one_out,
}


def _lifted(credit: _RewardsToCredit) -> Callable[[Sequence[GroupView]], Credited]:
    def credited(groups: Sequence[GroupView]) -> Credited:
        credit_I_G = [credit(group.rewards_G) for group in groups]
        return Credited(parts_I_G_K=every_turn(groups, credit_I_G), basis_I_G=credit_I_G)

    return credited


METHODS: Mapping[str, Callable[..., Credited]] = {
    "group_mean": _lifted(group_mean),
    "leave_one_out": _lifted(leave_one_out),
    "step_groups": step_groups,
    "step_baseline": step_baseline,
    "turn_returns": turn_returns,
    "grouped_gae": grouped_gae,
    "information_gain": information_gain,
    "tree": tree,
}
"""Each by the `type` of its spec, called with the groups of a step and the spec's other settings."""

_FOR_OTHERS = frozenset({"type", "rewards", "force", "reference", "trees", "at"})
"""Settings for whoever plays or fills in the views, not for the method."""


def load_credit(spec: CreditSpec, base_dir: Path) -> CreditFunction:
    """The function that `training.credit` describes; a user's own is read from its file, relative to `base_dir`.

    Raises UserError when that file or function cannot be used.
    """
    if isinstance(spec, OwnCredit):
        return partial(own_credit, function=load_function(spec.target, base_dir), target=spec.target)
    settings: dict[str, Any] = {name: value for name, value in spec if name not in _FOR_OTHERS}
    return partial(METHODS[spec.type], **settings)


__all__ = [
    "CREDIT",
    "METHODS",
    "CreditFunction",
    "CreditSpec",
    "Credited",
    "GroupView",
    "Parts",
    "Peers",
    "PenaltiesSpec",
    "Reward",
    "RewardScale",
    "StepView",
    "Usage",
    "check_turn_rewards",
    "load_credit",
    "load_function",
    "own_turn_rewards",
    "peers_of",
    "reward_after",
    "reward_of",
    "usage_of",
    "view_of",
]
