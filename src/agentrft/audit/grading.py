"""Grading for the audit: what a grader raises is no grade, and every value is remembered."""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Sequence

from agentrft.errors import BoundaryError
from agentrft.protocols import Grader
from agentrft.types import Grade, Item, Sample

_AT_ONCE = 8


class Grading:
    """A grader with a tally. Nothing else in the audit calls the grader."""

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
        if grade.value is None:
            return grade
        if not math.isfinite(grade.value):
            return Grade(value=None, reason=f"the grader returned {grade.value}; expected a finite number")
        self.values.add(float(f"{grade.value:.9g}"))
        return grade

    async def grade_all(self, cases: Sequence[tuple[Sample, Item]]) -> list[Grade]:
        """Grades of many, several at once, in the order of `cases`."""
        return list(await asyncio.gather(*(self.grade(sample, item) for sample, item in cases)))

    async def grade_in_turn(self, cases: Sequence[tuple[Sample, Item]]) -> list[Grade]:
        """Grades of many, one after another."""
        return [await self.grade(sample, item) for sample, item in cases]
