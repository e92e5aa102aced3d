"""Graders: what turns an episode into a number, or into no number and the reason.

A new type is one file (spec and behaviour) and one line in `GRADERS` and `GraderSpec` each.
"""

from __future__ import annotations

import dataclasses
import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from agentrft.errors import BoundaryError, UserError
from agentrft.graders.multi import MultiGrader, MultiSpec
from agentrft.graders.python_code import PythonGrader, PythonSpec
from agentrft.graders.sample import sample_from_episode, sample_object
from agentrft.graders.string_check import StringCheckGrader, StringCheckSpec
from agentrft.graders.text_similarity import TextSimilarityGrader, TextSimilaritySpec
from agentrft.protocols import Grader
from agentrft.types import Episode, Grade, Item, StopReason

GraderSpec = Annotated[
    StringCheckSpec | TextSimilaritySpec | PythonSpec | MultiSpec,
    Field(discriminator="type"),
]
"""Any grader document, by its `type`."""

AnySpec = StringCheckSpec | TextSimilaritySpec | PythonSpec | MultiSpec


def _build_multi(spec: MultiSpec, base_dir: Path, param: str) -> Grader:
    parts = {name: build_grader(part, base_dir, param=f"{param}.graders.{name}") for name, part in spec.graders.items()}
    return MultiGrader(spec, parts)


GRADERS: dict[str, Callable[[Any, Path, str], Grader]] = {
    "string_check": lambda spec, base_dir, param: StringCheckGrader(spec),
    "text_similarity": lambda spec, base_dir, param: TextSimilarityGrader(spec),
    "python": lambda spec, base_dir, param: PythonGrader(spec, base_dir, param=param),
    "multi": _build_multi,
}
"""How each type is built from its spec, the folder that paths are relative to, and the field to blame."""

_ADAPTER: TypeAdapter[AnySpec] = TypeAdapter(GraderSpec)


def parse_grader(document: Mapping[str, Any], *, param: str = "grader") -> AnySpec:
    """The spec of a grader document; raises UserError with the field, what was got and what was expected."""
    try:
        return _ADAPTER.validate_python(dict(document))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = _fields(first["loc"])
        where = ".".join([param, *place])
        known = "; expected one of the types " + ", ".join(GRADERS) if not place else ""
        got = "" if first["type"] in ("missing", "value_error") else f", got {_shown(first['input'])}"
        what = first["msg"].removeprefix("Value error, ")
        raise UserError(
            f"`{where}`: {what}{got}{known}; next step: see docs/graders.md", param=where, code="invalid_grader"
        ) from None


def _fields(place: Sequence[int | str]) -> list[str]:
    """A pydantic location without the types' names that the unions put into it."""
    fields = list(map(str, place[1:]))
    if fields[:1] == ["graders"]:
        fields[2:3] = []
    return fields


def build_grader(spec: AnySpec | Mapping[str, Any], base_dir: Path, *, param: str = "grader") -> Grader:
    """A grader ready to use; whoever gets it closes it. Raises UserError for a bad document or source."""
    if isinstance(spec, Mapping):
        spec = parse_grader(spec, param=param)
    return GRADERS[spec.type](spec, base_dir, param)


def item_paths(spec: AnySpec) -> tuple[tuple[str | int, ...], ...]:
    """The paths below `item` that a grader's templates read, for `agentrft.data.check.check_dataset`.

    What a Python grader reads of its item is not known before it runs.
    """
    return tuple(dict.fromkeys(reference.path for reference in spec.references() if reference.namespace == "item"))


async def grade_episode(grader: Grader, episode: Episode, item: Item) -> Grade:
    """The grade of an episode, whatever happens: a fault is not graded, and what a grader raises is no grade."""
    if episode.stop_reason is StopReason.FAULT:
        return Grade(value=None, reason=f"the episode is a fault: {episode.fault}")
    started = time.perf_counter()
    try:
        grade = await grader.grade(sample_from_episode(episode), item, episode.trace_id)
    except BoundaryError as fault:
        grade = Grade(value=None, reason=f"{fault.boundary}: {fault}")
    except Exception as error:  # a grader by someone else: its failure costs this grade, not the run
        trace = "".join(traceback.format_exception(error))
        grade = Grade(value=None, reason=f"the grader raised {type(error).__name__}: {error}", traceback=trace)
    if grade.value is not None and not math.isfinite(grade.value):
        grade = Grade(value=None, reason=f"the grader returned {grade.value}; expected a finite number")
    return grade if grade.wall_s else dataclasses.replace(grade, wall_s=time.perf_counter() - started)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"


__all__ = [
    "GRADERS",
    "AnySpec",
    "GraderSpec",
    "MultiSpec",
    "PythonSpec",
    "StringCheckSpec",
    "TextSimilaritySpec",
    "build_grader",
    "grade_episode",
    "item_paths",
    "parse_grader",
    "sample_from_episode",
    "sample_object",
]
