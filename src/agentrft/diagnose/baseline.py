"""The baseline: every item played several times, each episode kept as soon as it has its grade.

A run that is interrupted or killed goes on with the episodes that are missing: ids and seeds depend on the plan alone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from agentrft.credit import PenaltiesSpec, Reward, reward_after, usage_of
from agentrft.errors import BoundaryError
from agentrft.protocols import EpisodeRecord, Grader
from agentrft.rollout import Agent, GradedEpisode, Rollout, Seat, run_groups, together
from agentrft.types import Episode, Grade, Group, Item, StopReason

_POLL_S = 0.1
_FIRST_FAULTS = 16
"""When the first episodes, this many, are all faults, some part is down: the rest would only cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselinePlan:
    """What is played."""

    job_id: str
    stage: str
    """Names the settings within the job: ids and seeds depend on it."""
    split: str
    items: Sequence[Item]
    samples: int
    """Episodes per item, K."""
    pass_threshold: float = 0.5
    penalties: PenaltiesSpec = field(default_factory=PenaltiesSpec)
    in_flight: int = 64
    """Episodes at once: enough to keep an engine busy, few enough that none waits long for its turn."""

    @property
    def run(self) -> str:
        """Namespace of ids and seeds."""
        return f"{self.job_id}/{self.split}/{self.stage}"

    @property
    def seats(self) -> list[Seat]:
        """One per item; of several with the same id each has an attempt of its own."""
        seen: Counter[str] = Counter()
        seats = []
        for index, item in enumerate(self.items):
            seats.append(Seat(index=index, item=item, attempt=seen[item.id]))
            seen[item.id] += 1
        return seats

    def places(self) -> dict[tuple[str, int], int]:
        """An item's place by its id and attempt: with the member, the order that an actor is opened with."""
        return {(seat.item.id, seat.attempt): seat.index for seat in self.seats}

    @property
    def items_in_flight(self) -> int:
        """Items at once, each with all of its episodes."""
        return max(1, self.in_flight // self.samples)

    @property
    def n_episodes(self) -> int:
        """How many there are to play."""
        return len(self.items) * self.samples

    def record(self, graded: GradedEpisode, extra: Mapping[str, object] | None = None) -> EpisodeRecord:
        """The episode as it is stored, with the reward that training would give it."""
        episode, grade = graded.episode, graded.grade
        reward = self.reward(episode, grade)
        return EpisodeRecord(
            job_id=self.job_id,
            phase="validation" if self.split == "validation" else "test",
            stage=self.stage,
            episode=episode,
            grade=grade,
            reward=reward.value,
            extra={"split": self.split, "credit": {"reward": dict(reward.parts)}, **(extra or {})},
        )

    def reward(self, episode: Episode, grade: Grade) -> Reward:
        """As in training, but that an episode that a limit cut off always counts, as at most 0: it shows a failure."""
        left_out = self.penalties.truncated == "leave_out"
        penalties = self.penalties.model_copy(update={"truncated": "clamp"}) if left_out else self.penalties
        return reward_after(grade, episode.stop_reason, usage_of(episode), penalties)


@dataclass(frozen=True, slots=True, kw_only=True)
class Baseline:
    """What was played."""

    plan: BaselinePlan
    groups: Sequence[Group]
    """One per item, in the order of the plan's items."""

    @property
    def rewards_I_G(self) -> list[list[float | None]]:
        """Of every member; None where the grader gave no number."""
        return [
            [self.plan.reward(e, g).value for e, g in zip(group.episodes, group.grades, strict=True)]
            for group in self.groups
        ]


async def play(
    plan: BaselinePlan,
    agent: Agent,
    grader: Grader,
    *,
    finished: Mapping[str, GradedEpisode] | None = None,
    on_graded: Callable[[GradedEpisode], None] = lambda graded: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Baseline | None:
    """Play what is not `finished` (by episode id), `in_flight` episodes at a time; None when it was asked to stop.

    `on_graded` is called with every new episode as soon as it has its grade. Raises BoundaryError when the first
    episodes are all faults, UserError when an item's prompt does not fit the limits.
    """
    playing = asyncio.ensure_future(_play_all(plan, agent, grader, finished or {}, on_graded))
    try:
        while not playing.done():
            await asyncio.wait([playing], timeout=_POLL_S)
            if should_stop() and not playing.done():
                return None
        return Baseline(plan=plan, groups=playing.result())
    finally:
        if not playing.done():
            playing.cancel()
            with suppress(asyncio.CancelledError):
                await playing


def is_finished(graded: GradedEpisode) -> bool:
    """Whether a stored episode stands: what an engine, a judge or an endpoint that was down left behind is repeated."""
    episode = graded.episode
    engine_failed = episode.stop_reason is StopReason.FAULT and (episode.fault or "").startswith("engine:")
    return not engine_failed and not graded.grade.is_fault


async def _play_all(
    plan: BaselinePlan,
    agent: Agent,
    grader: Grader,
    finished: Mapping[str, GradedEpisode],
    on_graded: Callable[[GradedEpisode], None],
) -> list[Group]:
    slots = asyncio.Semaphore(plan.items_in_flight)
    watch = _FaultWatch(on_graded)

    async def play_item(seat: Seat) -> Group:
        rollout = Rollout(run=plan.run, step=0, members=plan.samples, seats=[seat])
        async with slots:
            groups = await run_groups(rollout, agent, grader, finished=finished, on_graded=watch)
        return groups[0]

    return await together(play_item(seat) for seat in plan.seats)


class _FaultWatch:
    """Hands episodes on, and raises when the first ones are all faults."""

    def __init__(self, on_graded: Callable[[GradedEpisode], None]) -> None:
        self._on_graded = on_graded
        self._faults = 0
        self._is_sound = False

    def __call__(self, graded: GradedEpisode) -> None:
        self._on_graded(graded)
        fault = graded.episode.fault if graded.episode.stop_reason is StopReason.FAULT else None
        if graded.grade.is_fault:
            fault = graded.grade.reason
        self._is_sound = self._is_sound or fault is None
        self._faults += fault is not None
        if not self._is_sound and self._faults >= _FIRST_FAULTS:
            raise BoundaryError(
                f"the first {_FIRST_FAULTS} episodes all failed, the last with: {fault}. Nothing can be said about the "
                "agent; mend what failed and run the same command again"
            )
