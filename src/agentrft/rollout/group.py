"""Run many episodes side by side and grade each as soon as it ends, with those of its group that wait as well."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agentrft.graders import GroupGrader, grade_episode, grade_episodes
from agentrft.protocols import Grader
from agentrft.rollout.episode import Agent, run_episode
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


async def run_groups(
    rollout: Rollout,
    agent: Agent,
    grader: Grader,
    *,
    finished: Mapping[str, GradedEpisode] | None = None,
    on_graded: Callable[[GradedEpisode], None] = lambda graded: None,
) -> list[Group]:
    """One group per seat, in the order of the seats, members in order.

    All episodes are in flight at once: batching them is the engine's business. An episode whose id is in `finished`
    is taken from there unchanged. `on_graded` is called for every other one as soon as it has its grade.
    Raises UserError when an item's prompt does not fit the limits.
    """

    desks = [_Desk(grader, seat.item) for seat in rollout.seats]

    async def play(seat: Seat, member: int, desk: _Desk) -> GradedEpisode:
        key = EpisodeKey(run=rollout.run, step=rollout.step, item=seat.item.id, member=member, attempt=seat.attempt)
        if finished and key.id in finished:
            return finished[key.id]
        episode = await run_episode(seat.item, key, agent, order=(seat.index, member))
        graded = GradedEpisode(episode=episode, grade=await desk.grade(episode))
        on_graded(graded)
        return graded

    members = range(rollout.members)
    seated = list(zip(rollout.seats, desks, strict=True))
    played = iter(await together(play(seat, member, desk) for seat, desk in seated for member in members))
    groups_I_G = [(seat, [next(played) for _ in members]) for seat in rollout.seats]
    return [
        Group(item=seat.item, episodes=tuple(g.episode for g in group), grades=tuple(g.grade for g in group))
        for seat, group in groups_I_G
    ]


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
