"""What a job's credit needs to know of a played group: its rewards, and what its turns earned by themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from agentrft.credit import (
    METHODS,
    CreditFunction,
    CreditSpec,
    GroupView,
    PenaltiesSpec,
    Reward,
    check_turn_rewards,
    load_credit,
    load_function,
    own_turn_rewards,
    reward_after,
    usage_of,
    view_of,
)
from agentrft.credit.spec import Tree, TurnReturns
from agentrft.rollout import Forks, Seat
from agentrft.types import Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A group, where it sat, and what it earned."""

    seat: Seat
    group: Group
    rewards: Sequence[Reward]
    """Of every member, penalties included."""
    turn_rewards_G_K: Sequence[Sequence[float]] | None = None
    """None: only whole episodes are rewarded."""
    nodes_G_K: Sequence[Sequence[str]] | None = None
    """Equal for turns that members share; None where none do."""

    @property
    def key(self) -> str:
        """The same for all members, and for no other group of the step."""
        return f"{self.seat.item.id}#{self.seat.attempt}"

    @property
    def rewards_G(self) -> list[float | None]:
        """The reward of each member; None: out of the loss and out of the baseline."""
        return [reward.value for reward in self.rewards]

    @property
    def has_signal(self) -> bool:
        """Whether its members earned differently, rewards of turns included."""
        if self.turn_rewards_G_K is None:
            return differ(self.rewards_G)
        pairs = zip(self.rewards_G, self.turn_rewards_G_K, strict=True)
        return differ([None if reward is None else reward + sum(turns_K) for reward, turns_K in pairs])

    def view(
        self,
        rewards_G: Sequence[float | None],
        reference_log_probs_G_K: Sequence[Sequence[float | None]] | None = None,
    ) -> GroupView:
        """What credit sees of it, with these rewards, and with what the reference answer's log-prob was."""
        return view_of(
            self.group,
            rewards_G,
            state_hashes_G_K=[[turn.state_hash for turn in episode.turns] for episode in self.group.episodes],
            turn_rewards_G_K=self.turn_rewards_G_K,
            reference_log_probs_G_K=reference_log_probs_G_K,
            nodes_G_K=self.nodes_G_K,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Crediting:
    """How a job assigns credit: the functions that its `training.credit` names, by default `group_mean`."""

    function: CreditFunction = METHODS["group_mean"]
    turn_rewards: Callable[[Group], list[list[float]]] | None = None
    """Rewards of every member's turns, where the job has them."""
    force: bool = False
    """Train on turn rewards that do not go with success."""
    forks: Forks | None = None
    """Where members of a group branch off from others; None where each is an episode of its own."""

    @classmethod
    def of(cls, spec: CreditSpec, base_dir: Path) -> Crediting:
        """What `spec` names, a user's own files relative to `base_dir`; raises UserError when one cannot be used."""
        function = load_credit(spec, base_dir)
        if isinstance(spec, Tree):
            return cls(function=function, forks=Forks(trees=spec.trees, at=tuple(turn - 1 for turn in spec.at)))
        if not isinstance(spec, TurnReturns):
            return cls(function=function)
        own = partial(own_turn_rewards, function=load_function(spec.rewards, base_dir), target=spec.rewards)
        return cls(function=function, turn_rewards=own, force=spec.force)

    def played(self, seat: Seat, group: Group, penalties: PenaltiesSpec) -> Played:
        """The group with its rewards; raises UserError when a user's own turn rewards cannot be used."""
        rewards = [
            reward_after(grade, episode.stop_reason, usage_of(episode), penalties)
            for episode, grade in zip(group.episodes, group.grades, strict=True)
        ]
        turn_rewards_G_K = None if self.turn_rewards is None else self.turn_rewards(group)
        nodes_G_K = None if self.forks is None else self.forks.nodes(group)
        return Played(seat=seat, group=group, rewards=rewards, turn_rewards_G_K=turn_rewards_G_K, nodes_G_K=nodes_G_K)

    def check(self, groups: Sequence[Group], penalties: PenaltiesSpec) -> float | None:
        """The correlation of turn rewards with rewards in these groups; None where there are none, or it is unknown.

        Raises UserError (`invalid_credit`) when they would teach the wrong thing, or too few episodes can say so.
        """
        if self.turn_rewards is None:
            return None
        seats = [Seat(index=index, item=group.item) for index, group in enumerate(groups)]
        played = [self.played(seat, group, penalties) for seat, group in zip(seats, groups, strict=True)]
        return check_turn_rewards([one.view(one.rewards_G) for one in played], force=self.force)


def differ(rewards_G: Sequence[float | None]) -> bool:
    """True when rewards differ by more than 10⁻⁶: otherwise their credit is zero or rounding noise."""
    rewards = [reward for reward in rewards_G if reward is not None]
    return len(rewards) > 1 and max(rewards) - min(rewards) > 1e-6
