"""Which members of a group branch off from which others, so that they share the turns before."""

from __future__ import annotations

from dataclasses import dataclass

from agentrft.rollout.record import checked_tokens
from agentrft.types import Episode, Group


@dataclass(frozen=True, slots=True, kw_only=True)
class Forks:
    """The first `trees` members are trunks, episodes of their own; each further one branches off from one of them.

    From which, and before which turn, depends on the member's number alone, never on what was generated: that is what
    keeps the credit of trees unbiased. A trunk that ends before that turn gets no branch there.
    """

    trees: int
    at: tuple[int, ...]
    """Turns, from 0, before which members branch off: the first after the trunks from each trunk at the first of
    these, then from each at the next, and from the beginning again."""

    def branches(self, trunk: int, members: int) -> list[tuple[int, int]]:
        """(member, turn) of those that branch off from a trunk in a group of so many."""
        found = ((member, self.origin(member)) for member in range(self.trees, members))
        return [(member, turn) for member, (of, turn) in found if of == trunk]

    def origin(self, member: int) -> tuple[int, int]:
        """(trunk, turn) that a member branches off from; for a trunk itself, which shares nothing, at turn 0."""
        if member < self.trees:
            return member, 0
        round_, trunk = divmod(member - self.trees, self.trees)
        return trunk, self.at[round_ % len(self.at)]

    def nodes(self, group: Group) -> list[list[str]]:
        """A name for every turn of every episode, the same where two share the turn.

        What does not begin with its trunk's tokens shares nothing: after a kill, a trunk without a grade is played
        again, and may be another one than that which its branches left.
        """
        trunks = {episode.member: episode for episode in group.episodes if episode.member < self.trees}
        named: list[list[str]] = []
        for episode in group.episodes:
            trunk, turn = self.origin(episode.member)
            shared = turn if _begins_as(episode, trunks[trunk], turn) else 0
            owners = (trunk if number < shared else episode.member for number in range(len(episode.turns)))
            named.append([f"{owner}/{number}" for number, owner in enumerate(owners)])
        return named


def _begins_as(episode: Episode, trunk: Episode, turns: int) -> bool:
    """Whether the first `turns` turns are the same tokens."""
    if not turns or min(len(episode.turns), len(trunk.turns)) < turns:
        return False
    end = trunk.turns[turns - 1].end
    return list(checked_tokens(episode).ids)[:end] == list(checked_tokens(trunk).ids)[:end]
