"""`multi`: several graders at once, joined by a formula over their names.

`graders` is an object from name to grader, as on OpenAI's wire. All parts grade concurrently. If one of them gives no
number there is no number, with that part's reason: a missing part is never counted as zero. `invalid_grade`, where it
is given, is used then, and the grade says so (`substituted`). A judge or endpoint that is down makes the whole an
outage, whatever `invalid_grade` says. The parts' values are in `sub_grades`. Graders of type `multi` cannot be parts.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from agentrft.graders.endpoint import EndpointSpec
from agentrft.graders.formula import FUNCTIONS, Formula
from agentrft.graders.label_model import LabelModelSpec
from agentrft.graders.python_code import PythonSpec
from agentrft.graders.score_model import ScoreModelSpec
from agentrft.graders.spec import Spec
from agentrft.graders.string_check import StringCheckSpec
from agentrft.graders.template import Reference
from agentrft.graders.text_similarity import TextSimilaritySpec
from agentrft.protocols import Grader
from agentrft.types import Grade, GradeError, Item, Sample, TokenUsage

PartSpec = Annotated[
    StringCheckSpec | TextSimilaritySpec | ScoreModelSpec | LabelModelSpec | PythonSpec | EndpointSpec,
    Field(discriminator="type"),
]


class MultiSpec(Spec):
    type: Literal["multi"]
    graders: dict[str, PartSpec] = Field(min_length=1)
    calculate_output: str
    """A formula such as `0.8 * exact + 0.2 * min(style, 1)`; see `agentrft.graders.formula`."""
    invalid_grade: float | None = Field(default=None, allow_inf_nan=False)
    """The grade where a part or the formula gives none; without it there is no grade then."""

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
        self._invalid_grade = spec.invalid_grade
        self._parts = dict(parts)

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        """Raises the BoundaryError of a part that is down."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    name: group.create_task(part.grade(sample, item, trace_id)) for name, part in self._parts.items()
                }
        except BaseExceptionGroup as failures:
            raise _first(failures) from failures
        grades = {name: task.result() for name, task in tasks.items()}
        joined = dataclasses.replace(
            self._joined(grades),
            sub_grades={name: grade.value for name, grade in grades.items() if grade.value is not None},
            wall_s=max(grade.wall_s for grade in grades.values()),
            clipped={name: said for name, grade in grades.items() for said in grade.clipped.values()},
            token_usage=_tokens(grades.values()),
            parts=grades,
        )
        if joined.value is not None or joined.is_fault or self._invalid_grade is None:
            return joined
        return dataclasses.replace(joined, value=self._invalid_grade, reason=None, substituted=joined.reason)

    async def close(self) -> None:
        for part in self._parts.values():
            await part.close()

    def _joined(self, grades: Mapping[str, Grade]) -> Grade:
        for name, grade in grades.items():
            if grade.value is None:
                return dataclasses.replace(grade, reason=f"part {name!r}: {grade.reason}")
        values = {name: grade.value for name, grade in grades.items() if grade.value is not None}
        try:
            return Grade(value=self._formula.value(values))
        except ValueError as error:
            reason = f"`calculate_output` has no result: {error}"
            return Grade(value=None, reason=reason, error=GradeError.FORMULA)


def _tokens(grades: Iterable[Grade]) -> dict[str, TokenUsage]:
    """The parts' usage by model, judges of the same model added up."""
    total: dict[str, TokenUsage] = {}
    for grade in grades:
        for model, usage in grade.token_usage.items():
            total[model] = total.get(model, TokenUsage()) + usage
    return total


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
