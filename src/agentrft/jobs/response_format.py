"""A job's `response_format`: the form that an answer must have for graders to see it as `sample.output_json`.

It does not force the model: while training, answers are what the policy generates. An answer of another form has
`output_json` null, and a grader whose template reads it there gives no grade.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from jsonschema_specifications import REGISTRY
from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from agentrft.errors import UserError
from agentrft.graders import AnySpec, GroupGrader, MultiSpec, PythonSpec
from agentrft.protocols import Grader
from agentrft.tools.schema import check_references
from agentrft.types import Grade, Item, Sample

_KEYS = frozenset({"name", "description", "schema", "strict"})
_SUBSCRIPT = re.compile(r"""\[\s*(['"])output_json\1\s*\]""")


class ResponseFormat(BaseModel):
    """`{type: json_schema, json_schema: {name, schema}}`, as chat completions take it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["json_schema", "json_object", "text"]
    """`json_object` takes any JSON object; `text` says that answers are no JSON."""
    json_schema: dict[str, Any] | None = None
    """`name` and `schema`, OpenAI's `description` and `strict` beside them; for `json_schema` only."""

    @field_validator("json_schema")
    @classmethod
    def _is_a_schema(cls, given: dict[str, Any] | None) -> dict[str, Any] | None:
        if given is None:
            return None
        if unknown := sorted(given.keys() - _KEYS):
            raise ValueError(f"got the key {unknown[0][:60]!r}, expected some of {', '.join(sorted(_KEYS))}")
        schema = given.get("schema")
        if not isinstance(schema, dict):
            raise ValueError("expected `schema`, a JSON Schema, beside `name`")
        try:
            Draft202012Validator.check_schema(schema)
            check_references(schema)
            Draft202012Validator(schema, registry=REGISTRY).is_valid({})
        except SchemaError as error:
            raise ValueError(f"`schema` is no JSON Schema: {error.message[:200]}") from None
        except RecursionError:
            raise ValueError("`schema` refers to itself without end") from None
        return given

    @model_validator(mode="after")
    def _has_its_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("`json_schema` goes with `type: json_schema`, each with the other")
        return self

    @property
    def answers(self) -> Mapping[str, Any] | bool:
        """The JSON Schema of answers; false where they are no JSON."""
        if self.json_schema is not None:
            return self.json_schema["schema"]
        return {"type": "object"} if self.type == "json_object" else False


def formed(grader: Grader, answers: Mapping[str, Any] | bool) -> Grader:
    """The grader, shown `output_json` only of answers that fit the schema `answers`; it owns `grader`."""
    return _FormedGroups(grader, answers) if isinstance(grader, GroupGrader) else _Formed(grader, answers)


class _Formed:
    def __init__(self, grader: Grader, answers: Mapping[str, Any] | bool) -> None:
        self._grader = grader
        self._answers = answers

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        return await self._grader.grade(replace(sample, output_schema=self._answers), item, trace_id)

    async def close(self) -> None:
        await self._grader.close()


class _FormedGroups(_Formed):
    def __init__(self, grader: GroupGrader, answers: Mapping[str, Any] | bool) -> None:
        super().__init__(grader, answers)
        self._groups = grader

    async def grade_group(self, samples_G: Sequence[Sample], item: Item) -> list[Grade]:
        return await self._groups.grade_group([replace(one, output_schema=self._answers) for one in samples_G], item)


def check_output_json(graders: Mapping[str, AnySpec]) -> None:
    """Raise UserError for a grader, by its place, that reads `sample.output_json`: for jobs without a format."""
    for place, grader in graders.items():
        for param in _readers(grader, place):
            raise UserError(
                f"`{param}` reads `sample.output_json`, which answers have only where the job gives their form; "
                "expected `response_format`. Set `method.reinforcement.response_format` to {type: json_schema, …}, or "
                "read `sample.output_text`",
                param=param,
                code="invalid_grader",
            )


def _readers(grader: AnySpec, param: str) -> Iterator[str]:
    """The places of graders that cannot do without it; code that asks by `.get` can."""
    if isinstance(grader, MultiSpec):
        for name, part in grader.graders.items():
            yield from _readers(part, f"{param}.graders.{name}")
    elif isinstance(grader, PythonSpec):
        if grader.source is not None and _SUBSCRIPT.search(grader.source):
            yield f"{param}.source"
    elif any(found.namespace == "sample" and found.path[:1] == ("output_json",) for found in grader.references()):
        yield param
