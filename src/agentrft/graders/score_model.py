"""`score_model`: a judge's number, as OpenAI defines it.

The judge answers `{"steps": [{"description", "conclusion"}], "result": number}`. A number outside `range` becomes the
nearest bound, as on OpenAI's platform, and the grade says so (`clipped`). OpenAI counts what is no number as 0; here it
is no grade, with the reason. How the judge is kept from taking orders from what it judges: `agentrft.graders.judge`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from agentrft.graders.judge import Judged, JudgeSpec
from agentrft.graders.spec import Range
from agentrft.graders.strict_json import number_in
from agentrft.protocols import Judge
from agentrft.types import Grade, Item, Sample


class ScoreModelSpec(JudgeSpec):
    type: Literal["score_model"]
    range: Range = (0.0, 1.0)
    """Lowest and highest grade; the judge is told, and held to it."""


class ScoreModelGrader:
    """The judge's score within `range`."""

    def __init__(self, spec: ScoreModelSpec, judge: Judge) -> None:
        self._name = spec.name
        self._low, self._high = spec.range
        self._judged = Judged(
            spec,
            judge,
            result={"type": "number"},
            what_result_is=f"the score, a number from {self._low:g} to {self._high:g}",
            read=lambda filled: number_in(filled, "result"),
        )

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        """Raises EngineFault when the judge is down."""
        grade = await self._judged.grade(sample, item)
        if grade.value is None or self._low <= grade.value <= self._high:
            return grade
        within = min(max(grade.value, self._low), self._high)
        return dataclasses.replace(grade, value=within, clipped={self._name: grade.value})

    async def close(self) -> None:
        """Close the judge."""
        await self._judged.close()
