"""Credit: from the grades of a group to one advantage per member, in plain numbers.

grade → `reward_of` (penalties) → `CREDIT[name]` (one group at a time) → `RewardScale` (one scale for the run).

To add an algorithm: one file with a function from the rewards of a group to its centred credits, and one line below.
"""

from collections.abc import Callable, Sequence

from agentrft.credit.group_mean import group_mean
from agentrft.credit.leave_one_out import leave_one_out
from agentrft.credit.penalties import reward_of
from agentrft.credit.scale import RewardScale

CREDIT: dict[str, Callable[[Sequence[float | None]], list[float]]] = {
    "group_mean": group_mean,
    "leave_one_out": leave_one_out,
}

__all__ = ["CREDIT", "RewardScale", "reward_of"]
