"""The grade of an episode or a sample, whatever a grader does; and of several samples of one item at once."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, runtime_checkable

from agentrft.errors import BoundaryError
from agentrft.graders.sample import sample_from_episode
from agentrft.protocols import Grader
from agentrft.together import together
from agentrft.types import Episode, Grade, GradeError, Item, Sample, StopReason


@runtime_checkable
class GroupGrader(Grader, Protocol):
    """A grader that several samples of one item cost less than one after another."""

    async def grade_group(self, samples_G: Sequence[Sample], item: Item) -> list[Grade]:
        """The grades that `grade` would give, in the order of the samples; raises as `grade` does."""
        ...


_OUTAGES = {
    "engine": GradeError.MODEL_SERVER,
    "grader": GradeError.UNRESPONSIVE_REWARD,
    "sandbox": GradeError.PYTHON_SERVER,
}


async def grade_episode(grader: Grader, episode: Episode, item: Item) -> Grade:
    """The grade of an episode, whatever happens: a fault is not graded, and what a grader raises is no grade.

    A BoundaryError of the grader's is an outage (`Grade.is_fault`), which training pauses for.
    """
    if episode.stop_reason is StopReason.FAULT:
        return Grade(value=None, reason=f"the episode is a fault: {episode.fault}")
    return await grade_sample(grader, sample_from_episode(episode), item, episode.trace_id)


async def grade_sample(grader: Grader, sample: Sample, item: Item, trace_id: str) -> Grade:
    """`grade_episode` for a sample that comes from elsewhere."""
    started = time.perf_counter()
    try:
        grade = await grader.grade(sample, item, trace_id)
    except Exception as error:  # a grader by someone else: its failure costs this grade, not the run
        grade = _failed(error)
    return _checked(grade, time.perf_counter() - started)


async def grade_episodes(grader: Grader, episodes_G: Sequence[Episode], item: Item) -> list[Grade]:
    """`grade_episode` for episodes of one item, in their order; a `GroupGrader` gets those to be graded at once."""
    if not isinstance(grader, GroupGrader) or len(episodes_G) < 2:
        return await together(grade_episode(grader, episode, item) for episode in episodes_G)
    played = [episode for episode in episodes_G if episode.stop_reason is not StopReason.FAULT]
    graded = iter(await _grade_group(grader, [sample_from_episode(episode) for episode in played], item))
    return [
        await grade_episode(grader, episode, item) if episode.stop_reason is StopReason.FAULT else next(graded)
        for episode in episodes_G
    ]


async def _grade_group(grader: GroupGrader, samples_G: Sequence[Sample], item: Item) -> list[Grade]:
    if not samples_G:
        return []
    started = time.perf_counter()
    try:
        grades_G = await grader.grade_group(samples_G, item)
    except Exception as error:  # as above: it costs these grades
        grades_G = [_failed(error) for _ in samples_G]
    wall_s = (time.perf_counter() - started) / len(samples_G)
    return [_checked(grade, wall_s) for grade in grades_G]


def _failed(error: Exception) -> Grade:
    if isinstance(error, BoundaryError):
        kind = _OUTAGES.get(error.boundary, GradeError.OTHER)
        return Grade(value=None, reason=f"{error.boundary}: {error}", error=kind, is_fault=True)
    trace = "".join(traceback.format_exception(error))
    reason = f"the grader raised {type(error).__name__}: {error}"
    return Grade(value=None, reason=reason, traceback=trace, error=GradeError.OTHER)


def _checked(grade: Grade, wall_s: float) -> Grade:
    if grade.value is not None and not math.isfinite(grade.value):
        reason = f"the grader returned {grade.value}; expected a finite number"
        grade = Grade(value=None, reason=reason, error=GradeError.OTHER)
    return grade if grade.wall_s else replace(grade, wall_s=wall_s)
