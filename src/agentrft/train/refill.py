"""The groups of one optimiser step: play, drop what teaches nothing, replace it, stop when a part is broken."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agentrft.protocols import Grader
from agentrft.rollout import Agent, GradedEpisode, Rollout, run_groups, trained_tokens
from agentrft.train.journal import Journal
from agentrft.train.log import EpisodeDone, RunLog
from agentrft.train.order import step_seats
from agentrft.train.outage import MAX_STEP_FAULT_FRAC, check_faults, check_grader
from agentrft.train.plan import RftPlan
from agentrft.train.played import Played


@dataclass(frozen=True, slots=True, kw_only=True)
class Draw:
    """What was played for one optimiser step, in the order of the seats."""

    played: Sequence[Played]
    wall_s: float

    @property
    def live(self) -> list[Played]:
        """The groups to train on: those whose rewards differ."""
        return [one for one in self.played if one.has_signal]


async def draw_groups(plan: RftPlan, step: int, agent: Agent, grader: Grader, journal: Journal, log: RunLog) -> Draw:
    """The groups of optimiser step `step`.

    Plays `batch_size` groups, then as many more as lacked signal, until `batch_size` groups have it or `oversample`
    times `batch_size` were played. Each round waits for the whole one before it, so which items are played never
    depends on who finishes first. Episodes in the journal are reused; newly graded ones are in it, on disk, on return.
    Raises UserError when the grader's own code raises too often (`grader_failing`) or gives no number at all
    (`nothing_graded`), BoundaryError when more than half of the step's episodes so far are faults.
    """
    started = agent.clock.monotonic()
    seats = step_seats(
        plan.items,
        seed=plan.seed,
        step=step,
        groups=plan.batch_size,
        limit=int(plan.oversample * plan.batch_size),
    )
    meter = _Meter(step, log)
    played: list[Played] = []
    while missing := plan.batch_size - sum(one.has_signal for one in played):
        round_seats = seats[len(played) : len(played) + missing]
        if not round_seats:
            break
        rollout = Rollout(run=plan.run, step=step, members=plan.group_size, seats=round_seats, forks=plan.credit.forks)
        meter.plan(len(round_seats) * plan.group_size)

        def on_graded(graded: GradedEpisode) -> None:
            # Without a grade it is played again on resume: what failed may have been mended by then.
            if graded.grade.value is not None:
                journal.add(graded)
            meter.count(graded)

        groups = await run_groups(rollout, agent, grader, finished=journal.finished, on_graded=on_graded)
        played += [
            plan.credit.played(seat, group, plan.penalties) for seat, group in zip(round_seats, groups, strict=True)
        ]
        if len(played) > 1 or len(seats) == 1:  # one group alone may be one bad item
            check_grader(one.group for one in played)
            check_faults((one.group for one in played), most=MAX_STEP_FAULT_FRAC)
    journal.sync()
    return Draw(played=played, wall_s=agent.clock.monotonic() - started)


class _Meter:
    """Counts the step's episodes for whoever watches."""

    def __init__(self, step: int, log: RunLog) -> None:
        self._step = step
        self._log = log
        self._done = 0
        self._planned = 0

    def plan(self, episodes: int) -> None:
        self._planned += episodes

    def count(self, graded: GradedEpisode) -> None:
        self._done += 1
        self._log.watch(
            EpisodeDone(
                phase="train",
                step=self._step,
                done=self._done,
                planned=self._planned,
                grade=graded.grade.value,
                tokens=trained_tokens(graded.episode),
            )
        )
