"""Grading for the audit: what a grader raises is no grade, and every value is remembered."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence

from agentrft.errors import BoundaryError
from agentrft.graders import GroupGrader
from agentrft.protocols import Grader
from agentrft.together import together
from agentrft.types import Grade, Item, Sample

_AT_ONCE = 8
_GROUP = 16


class Grading:
    """A grader, with a count of what it gave. Nothing else in the audit calls the grader."""

    def __init__(self, grader: Grader) -> None:
        self._grader = grader
        self._numbers = itertools.count(1)
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self.n_grades = 0
        self.values: set[float] = set()
        """Distinct grades so far, to nine digits."""

    async def grade(self, sample: Sample, item: Item) -> Grade:
        """A number or a reason; raises BoundaryError when what the grader asks is down: that says nothing."""
        self.n_grades += 1
        try:
            async with self._slots:
                grade = await self._grader.grade(sample, item, f"trace_audit_{next(self._numbers)}")
        except BoundaryError:
            raise
        except Exception as error:  # a grader by someone else: its failure is a finding, not a crash of the audit
            return Grade(value=None, reason=f"the grader raised {type(error).__name__}: {error}")
        return self._counted(grade)

    async def grade_all(self, cases: Sequence[tuple[Sample, Item]]) -> list[Grade]:
        """Grades of many, several at once, in the order of `cases`; those of one item together where that is cheaper.

        So it is in training too (`GroupGrader`); the check `order` finds graders whose grades differ by that.
        """
        if not isinstance(self._grader, GroupGrader):
            return await together(self.grade(sample, item) for sample, item in cases)
        places: dict[str, list[int]] = {}
        for place, (_, item) in enumerate(cases):
            places.setdefault(item.id, []).append(place)
        groups = [of_item[n : n + _GROUP] for of_item in places.values() for n in range(0, len(of_item), _GROUP)]
        grades = await together(self._grade_group(self._grader, [cases[n] for n in group]) for group in groups)
        found = {n: grade for group, of in zip(groups, grades, strict=True) for n, grade in zip(group, of, strict=True)}
        return [found[n] for n in range(len(cases))]

    async def grade_in_turn(self, cases: Sequence[tuple[Sample, Item]]) -> list[Grade]:
        """Grades of many, one after another."""
        return [await self.grade(sample, item) for sample, item in cases]

    async def _grade_group(self, grader: GroupGrader, cases: Sequence[tuple[Sample, Item]]) -> list[Grade]:
        try:
            async with self._slots:
                grades = await grader.grade_group([sample for sample, _ in cases], cases[0][1])
        except BoundaryError:
            raise
        except Exception:  # as above; one by one, each has its own
            return await together(self.grade(sample, item) for sample, item in cases)
        self.n_grades += len(cases)
        return [self._counted(grade) for grade in grades]

    def _counted(self, grade: Grade) -> Grade:
        if grade.value is None:
            return grade
        if not math.isfinite(grade.value):
            return Grade(value=None, reason=f"the grader returned {grade.value}; expected a finite number")
        self.values.add(float(f"{grade.value:.9g}"))
        return grade
