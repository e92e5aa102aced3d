"""Run many episodes side by side and grade each as soon as it ends, with those of its group that wait as well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agentrft.graders import GroupGrader, grade_episode, grade_episodes
from agentrft.protocols import Grader
from agentrft.rollout.branch import branch_off
from agentrft.rollout.episode import Agent, run_episode
from agentrft.rollout.forks import Forks
from agentrft.rollout.ids import EpisodeKey
from agentrft.together import together
from agentrft.types import Episode, Grade, Group, Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A place for one group in a step."""

    index: int
    """Place within the step; everything is ordered by (index, member), never by who finishes first."""
    item: Item
    attempt: int = 0
    """How often this item has already come in this step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GradedEpisode:
    """An episode and its grade: what is journaled, and reused as it is."""

    episode: Episode
    grade: Grade


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """Which episodes to run: `members` for each seat, under one run and step."""

    run: str
    """Namespace of ids and seeds, see `EpisodeKey.run`."""
    step: int
    members: int
    seats: Sequence[Seat]
    forks: Forks | None = None
    """Members that branch off from others; None where each is an episode of its own."""

    @property
    def roots(self) -> range:
        """Members that begin at the beginning."""
        return range(self.members if self.forks is None else self.forks.trees)


async def run_groups(
    rollout: Rollout,
    agent: Agent,
    grader: Grader,
    *,
    finished: Mapping[str, GradedEpisode] | None = None,
    on_graded: Callable[[GradedEpisode], None] = lambda graded: None,
) -> list[Group]:
    """One group per seat, in the order of the seats, members in order; one that finds no place to branch is left out.

    All episodes are in flight at once: batching them is the engine's business. An episode whose id is in `finished`
    is taken from there unchanged. `on_graded` is called for every other one as soon as it has its grade.
    Raises UserError when an item's prompt does not fit the limits.
    """

    desks = [_Desk(grader, seat.item) for seat in rollout.seats]

    async def play(seat: Seat, member: int, desk: _Desk, trunk: Episode | None, turn: int) -> GradedEpisode | None:
        key = EpisodeKey(run=rollout.run, step=rollout.step, item=seat.item.id, member=member, attempt=seat.attempt)
        if finished and key.id in finished:
            return finished[key.id]
        order = (seat.index, member)
        if trunk is None:
            episode = await run_episode(seat.item, key, agent, order=order)
        else:
            episode = await branch_off(trunk, turn, seat.item, key, agent, order=order)
        if episode is None:
            return None
        graded = GradedEpisode(episode=episode, grade=await desk.grade(episode))
        on_graded(graded)
        return graded

    async def grow(seat: Seat, root: int, desk: _Desk) -> list[GradedEpisode]:
        trunk = await play(seat, root, desk, None, 0)
        if trunk is None or rollout.forks is None:
            return [trunk] if trunk else []
        places = rollout.forks.branches(root, rollout.members)
        branches = await together(play(seat, member, desk, trunk.episode, turn) for member, turn in places)
        return [trunk, *(branch for branch in branches if branch)]

    seated = list(zip(rollout.seats, desks, strict=True))
    grown = iter(await together(grow(seat, root, desk) for seat, desk in seated for root in rollout.roots))
    groups: list[Group] = []
    for seat in rollout.seats:
        graded = sorted((one for _ in rollout.roots for one in next(grown)), key=lambda one: one.episode.member)
        episodes, grades = [one.episode for one in graded], [one.grade for one in graded]
        groups.append(Group(item=seat.item, episodes=tuple(episodes), grades=tuple(grades)))
    return groups


class _Desk:
    """Where one group's episodes are graded.

    A `GroupGrader` gets one call at a time: who ends while it is under way waits, and then all who wait go together.
    So nobody waits for an episode that is still being played, and a kill costs no finished one.
    """

    def __init__(self, grader: Grader, item: Item) -> None:
        self._grader = grader
        self._item = item
        self._waiting: dict[str, Episode] = {}
        self._grades: dict[str, Grade] = {}
        self._turn = asyncio.Lock()

    async def grade(self, episode: Episode) -> Grade:
        """As `grade_episode`."""
        if not isinstance(self._grader, GroupGrader):
            return await grade_episode(self._grader, episode, self._item)
        self._waiting[episode.id] = episode
        await asyncio.sleep(0)  # those that ended in the same breath go together
        async with self._turn:
            if episode.id in self._waiting:
                batch = sorted(self._waiting.values(), key=lambda one: one.member)
                grades = await grade_episodes(self._grader, batch, self._item)
                for one, grade in zip(batch, grades, strict=True):
                    self._grades[one.id] = grade
                    del self._waiting[one.id]
            return self._grades.pop(episode.id)
