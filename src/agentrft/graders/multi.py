"""`multi`: several graders at once, joined by a formula over their names.

`graders` is an object from name to grader, as on OpenAI's wire. All parts grade concurrently. If one of them gives no
number there is no number, with that part's reason: a missing part is never counted as zero. The parts' values are in
`sub_grades`. Graders of type `multi` cannot be parts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agentrft.graders.formula import FUNCTIONS, Formula
from agentrft.graders.python_code import PythonSpec
from agentrft.graders.spec import Spec
from agentrft.graders.string_check import StringCheckSpec
from agentrft.graders.template import Reference
from agentrft.graders.text_similarity import TextSimilaritySpec
from agentrft.protocols import Grader
from agentrft.types import Grade, Item, Sample

PartSpec = Annotated[StringCheckSpec | TextSimilaritySpec | PythonSpec, Field(discriminator="type")]


class MultiSpec(Spec):
    type: Literal["multi"]
    graders: dict[str, PartSpec] = Field(min_length=1)
    calculate_output: str
    """A formula such as `0.8 * exact + 0.2 * min(style, 1)`; see `agentrft.graders.formula`."""

    @model_validator(mode="after")
    def _formula_fits(self) -> Self:
        for name in self.graders:
            if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name in FUNCTIONS:
                raise ValueError(f"got the part name {name!r}, expected letters, digits and '_', not a function's name")
        unknown = sorted(Formula(self.calculate_output).names - self.graders.keys())
        if unknown:
            raise ValueError(f"`calculate_output` names {unknown[0]!r}, expected one of {', '.join(self.graders)}")
        return self

    def references(self) -> tuple[Reference, ...]:
        return tuple(reference for part in self.graders.values() for reference in part.references())


class MultiGrader:
    """Grades with every part and joins the numbers; owns its parts."""

    def __init__(self, spec: MultiSpec, parts: Mapping[str, Grader]) -> None:
        self._formula = Formula(spec.calculate_output)
        self._parts = dict(parts)

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        async with asyncio.TaskGroup() as group:
            tasks = {name: group.create_task(part.grade(sample, item, trace_id)) for name, part in self._parts.items()}
        grades = {name: task.result() for name, task in tasks.items()}
        values = {name: grade.value for name, grade in grades.items() if grade.value is not None}
        wall_s = max(grade.wall_s for grade in grades.values())
        for name, grade in grades.items():
            if grade.value is None:
                return Grade(
                    value=None,
                    reason=f"part {name!r}: {grade.reason}",
                    sub_grades=values,
                    traceback=grade.traceback,
                    wall_s=wall_s,
                )
        try:
            return Grade(value=self._formula.value(values), sub_grades=values, wall_s=wall_s)
        except ValueError as error:
            return Grade(
                value=None, reason=f"`calculate_output` has no result: {error}", sub_grades=values, wall_s=wall_s
            )

    async def close(self) -> None:
        for part in self._parts.values():
            await part.close()
