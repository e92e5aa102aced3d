"""What all grader specs share."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from agentrft.graders.template import Reference, Template


def _check_template(text: str) -> str:
    Template(text)
    return text


TemplateText = Annotated[str, AfterValidator(_check_template)]
"""Text with `{{item.…}}` and `{{sample.…}}` references, checked when the spec is read."""


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
