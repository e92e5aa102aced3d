"""Whether the grader says the same of the same episode twice, and whether a second grader agrees with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agentrft.graders import GroupGrader, grade_episode, grade_episodes
from agentrft.protocols import Grader
from agentrft.rollout import together
from agentrft.stats import icc
from agentrft.types import Episode, Grade, Group, Item


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeatability:
    """Of gradings of the same episodes."""

    icc: float | None
    """ICC(1) of test and retest: 1 when no grade ever changed; None when there was nothing to grade twice."""
    episodes: int
    gradings: int
    """Of each episode, the first included."""
    changed: int
    """Episodes whose grade did not stay the same, or that had one only sometimes."""
    largest: float
    """Largest difference between two gradings of one episode."""

    def to_json(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """Of the grader with the job's `audit.grader` on the same episodes."""

    rho: float | None
    """Spearman's rank correlation; None when either gave the same grade to all."""
    episodes: int

    def to_json(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)


async def grade_again(groups: Sequence[Group], grader: Grader, *, episodes: int, gradings: int = 3) -> Repeatability:
    """Grade some graded episodes until each has `gradings` grades, the first included.

    Those chosen have grades spread over all there are, so that the figure is of the range that matters.
    """
    chosen = spread(groups, episodes)
    retries = range(gradings - 1)
    again_E_R = await together(_again(grader, episode, item, retries) for item, episode, _ in chosen)
    values_E_R = [
        [value for value in (first.value, *(grade.value for grade in again)) if value is not None]
        for (_, _, first), again in zip(chosen, again_E_R, strict=True)
    ]
    spans = [max(values) - min(values) for values in values_E_R if values]
    changed = sum(len(values) < gradings or max(values) != min(values) for values in values_E_R)
    return Repeatability(
        icc=_icc(values_E_R, changed),
        episodes=len(chosen),
        gradings=gradings,
        changed=changed,
        largest=max(spans, default=0.0),
    )


async def agree(groups: Sequence[Group], second: Grader, *, episodes: int) -> Agreement:
    """Grade some graded episodes with another grader, and correlate."""
    chosen = spread(groups, episodes)
    grades = await together(grade_episode(second, episode, item) for item, episode, _ in chosen)
    pairs = [
        (first.value, grade.value)
        for (_, _, first), grade in zip(chosen, grades, strict=True)
        if first.value is not None and grade.value is not None
    ]
    return Agreement(rho=spearman(pairs), episodes=len(pairs))


def spread(groups: Sequence[Group], most: int) -> list[tuple[Item, Episode, Grade]]:
    """Up to `most` graded episodes, evenly over the order of their grades."""
    graded = [
        (group.item, episode, grade)
        for group in groups
        for episode, grade in zip(group.episodes, group.grades, strict=True)
        if grade.value is not None
    ]
    graded.sort(key=lambda one: (one[2].value, one[1].id))
    if len(graded) <= most:
        return graded
    return [graded[round(place * (len(graded) - 1) / (most - 1))] for place in range(most)] if most > 1 else graded[:1]


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Spearman's ρ, ties at their mean rank; None for fewer than three pairs or without variation on a side."""
    if len(pairs) < 3:
        return None
    a, b = (_ranks(np.array(side)) for side in zip(*pairs, strict=True))
    a, b = a - a.mean(), b - b.mean()
    scale = float(np.sqrt((a**2).sum() * (b**2).sum()))
    return float((a * b).sum()) / scale if scale > 0 else None


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(count)
    return (ends - (count - 1) / 2)[place]


async def _again(grader: Grader, episode: Episode, item: Item, retries: range) -> list[Grade]:
    if isinstance(grader, GroupGrader):
        return await grade_episodes(grader, [episode] * len(retries), item)
    return [await grade_episode(grader, episode, item) for _ in retries]


def _icc(values_E_R: Sequence[Sequence[float]], changed: int) -> float | None:
    whole = [values for values in values_E_R if len(values) > 1]
    if not whole:
        return None
    if not changed:
        return 1.0
    return icc(whole) if len(whole) > 1 else None
