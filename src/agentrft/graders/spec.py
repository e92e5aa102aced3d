"""What all grader specs share, and what a grader is built with."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agentrft.graders.template import Reference, Template
from agentrft.net.policy import NetworkPolicy
from agentrft.protocols import OpenJudge


def _check_template(text: str) -> str:
    Template(text)
    return text


TemplateText = Annotated[str, AfterValidator(_check_template)]
"""Text with `{{item.…}}` and `{{sample.…}}` references, checked when the spec is read."""


def _goes_up(value: tuple[float, float]) -> tuple[float, float]:
    if not all(map(math.isfinite, value)) or value[0] >= value[1]:
        raise ValueError(f"got {list(value)}, expected two finite numbers, the lower one first")
    return value


Range = Annotated[tuple[float, float], AfterValidator(_goes_up)]
"""Lowest and highest grade, both finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where a grader is built."""

    base_dir: Path
    """What paths in the document are relative to."""
    param: str
    """The field that the document stands in, for errors."""
    open_judge: OpenJudge
    network: NetworkPolicy
    """Which addresses graders may ask."""


class Spec(BaseModel):
    """Fields of every grader type."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1, max_length=200)
    """Shown with grades and reasons."""
    pass_threshold: float = Field(default=0.5, allow_inf_nan=False)
    """A grade at or above it counts as a success in reports; it never changes rewards."""

    def references(self) -> tuple[Reference, ...]:
        """Every template reference of this grader."""
        return ()
