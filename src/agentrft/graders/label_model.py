"""`label_model`: 1 when the label that a judge chooses is a passing one, else 0, as OpenAI defines it.

The judge answers `{"steps": [{"description", "conclusion"}], "result": label}`; what is none of the labels, to the
letter, is no grade. How the judge is kept from taking orders from what it judges: `agentrft.graders.judge`.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from agentrft.graders.judge import Judged, JudgeSpec
from agentrft.protocols import Judge
from agentrft.types import Grade, Item, Sample

Label = Annotated[str, Field(min_length=1, max_length=200)]


class LabelModelSpec(JudgeSpec):
    type: Literal["label_model"]
    labels: tuple[Label, ...] = Field(min_length=2, max_length=100)
    """What the judge may choose from."""
    passing_labels: tuple[Label, ...] = Field(min_length=1)
    """The labels that are worth 1."""

    @model_validator(mode="after")
    def _labels_fit(self) -> Self:
        if len(set(self.labels)) < len(self.labels):
            raise ValueError("`labels` has a label twice, expected distinct ones")
        unknown = [label for label in self.passing_labels if label not in self.labels]
        if unknown:
            raise ValueError(f"`passing_labels` has {unknown[0]!r}, expected some of {', '.join(self.labels)}")
        return self


class LabelModelGrader:
    """1.0 for a passing label, 0.0 for another one."""

    def __init__(self, spec: LabelModelSpec, judge: Judge) -> None:
        self._labels = spec.labels
        self._passing = frozenset(spec.passing_labels)
        self._judged = Judged(
            spec,
            judge,
            result={"type": "string", "enum": list(spec.labels)},
            what_result_is=f"the label that fits, one of {json.dumps(list(spec.labels), ensure_ascii=False)}",
            read=self._value,
        )

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        """Raises EngineFault when the judge is down."""
        return await self._judged.grade(sample, item)

    async def close(self) -> None:
        """Close the judge."""
        await self._judged.close()

    def _value(self, filled: dict[str, Any]) -> float:
        label = filled.get("result")
        if not isinstance(label, str) or label not in self._labels:
            raise ValueError("`result` is none of the labels")
        return 1.0 if label in self._passing else 0.0
