"""`string_check`: 1 or 0 by comparing two texts, as OpenAI defines it.

`eq` and `ne` compare whole texts; `like` asks whether the input contains the reference, `ilike` the same without regard
to case. Nothing is trimmed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from agentrft.graders.sample import sample_object
from agentrft.graders.spec import Spec, TemplateText
from agentrft.graders.template import Missing, Reference, Template
from agentrft.types import Grade, GradeError, Item, Sample

_HOLDS: dict[str, Callable[[str, str], bool]] = {
    "eq": lambda text, reference: text == reference,
    "ne": lambda text, reference: text != reference,
    "like": lambda text, reference: reference in text,
    "ilike": lambda text, reference: reference.casefold() in text.casefold(),
}


class StringCheckSpec(Spec):
    type: Literal["string_check"]
    input: TemplateText
    reference: TemplateText
    operation: Literal["eq", "ne", "like", "ilike"]

    def references(self) -> tuple[Reference, ...]:
        return Template(self.input).references + Template(self.reference).references


class StringCheckGrader:
    """1.0 where the comparison holds, else 0.0."""

    def __init__(self, spec: StringCheckSpec) -> None:
        self._input = Template(spec.input)
        self._reference = Template(spec.reference)
        self._holds = _HOLDS[spec.operation]

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        seen = sample_object(sample)
        try:
            text, reference = self._input.fill(seen, item.fields), self._reference.fill(seen, item.fields)
        except Missing as missing:
            return Grade(value=None, reason=str(missing), error=GradeError.INVALID_VARIABLE)
        return Grade(value=1.0 if self._holds(text, reference) else 0.0)

    async def close(self) -> None:
        """Nothing to stop."""
