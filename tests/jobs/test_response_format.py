"""`response_format`: which answers graders see as `sample.output_json`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from agentrft.build import grader_of
from agentrft.errors import UserError
from agentrft.graders import GroupGrader, parse_grader, sample_object
from agentrft.jobs.response_format import ResponseFormat, check_output_json, formed
from agentrft.jobs.spec import JobSpec
from agentrft.types import Grade, Item, Message, Sample

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
ITEM = Item(id="i", messages=(Message(role="user", content="?"),), fields={"city": "Rome"})
READS_CITY = {
    "type": "string_check",
    "name": "city",
    "input": "{{sample.output_json.city}}",
    "reference": "{{item.city}}",
    "operation": "eq",
}


def format_of(schema: Any) -> ResponseFormat:
    return ResponseFormat.model_validate({"type": "json_schema", "json_schema": {"name": "a", "schema": schema}})


def spec(response_format: Any, grader: dict[str, Any] = READS_CITY) -> JobSpec:
    section = {"grader": grader} | ({} if response_format == "absent" else {"response_format": response_format})
    method = {"type": "reinforcement", "reinforcement": section}
    return JobSpec.model_validate({"model": "m", "method": method, "data": {"train": "t.jsonl"}})


@pytest.mark.parametrize(
    ("answers", "text", "seen"),
    [
        (True, '{"a": 1}', {"a": 1}),
        (True, "no JSON", None),
        (False, '{"a": 1}', None),
        (CITY, '{"city": "Rome"}', {"city": "Rome"}),
        (CITY, '{"city": 3}', None),
        (CITY, '{"city": "Rome", "x": 1}', None),
        (CITY, "Rome", None),
        ({"type": "object"}, "[1]", None),
        (
            {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"},
            "[[[]], []]",
            [[[]], []],
        ),
    ],
)
def test_what_graders_see(answers: Any, text: str, seen: Any) -> None:
    assert sample_object(Sample(output_text=text, output_schema=answers))["output_json"] == seen


def test_an_answer_deeper_than_a_schema_can_follow_is_no_answer() -> None:
    nested = {"$defs": {"n": {"type": "array", "items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"}
    text = "[" * 900 + "]" * 900
    assert sample_object(Sample(output_text=text, output_schema=nested))["output_json"] is None


@pytest.mark.parametrize(
    ("response_format", "text", "value"),
    [
        ("absent", '{"city": "Rome", "x": 1}', 1.0),
        (None, '{"city": "Rome"}', 1.0),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": CITY}}, '{"city": "Rome"}', 1.0),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": CITY}}, '{"city": "Rome", "x": 1}', None),
        ({"type": "json_object"}, '{"city": "Rome", "x": 1}', 1.0),
        ({"type": "text"}, '{"city": "Rome"}', None),
        (False, '{"city": "Rome"}', None),
    ],
)
async def test_the_jobs_grader_goes_by_the_jobs_format(
    tmp_path: Path, response_format: Any, text: str, value: float | None
) -> None:
    grader = grader_of(spec(response_format), tmp_path)
    assert grader is not None
    grade = await grader.grade(Sample(output_text=text), ITEM, "trace_1")
    await grader.close()
    assert grade.value == value


class Groups:
    """Grades by whether there is an `output_json`."""

    def __init__(self) -> None:
        self.is_closed = False

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        return Grade(value=float(sample_object(sample)["output_json"] is not None))

    async def grade_group(self, samples_G: Sequence[Sample], item: Item) -> list[Grade]:
        return [await self.grade(sample, item, "") for sample in samples_G]

    async def close(self) -> None:
        self.is_closed = True


async def test_groups_are_graded_at_once_still() -> None:
    inner = Groups()
    grader = formed(inner, {"type": "array"})
    assert isinstance(grader, GroupGrader)
    grades = await grader.grade_group([Sample(output_text="[]"), Sample(output_text="{}")], ITEM)
    assert [grade.value for grade in grades] == [1.0, 0.0]
    await grader.close()
    assert inner.is_closed
    assert not isinstance(formed(await _single(), True), GroupGrader)


async def _single() -> Any:
    class Single:
        async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
            return Grade(value=1.0)

        async def close(self) -> None: ...

    return Single()


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"type": "json_schema"}, "goes with"),
        ({"type": "text", "json_schema": {"name": "a", "schema": {}}}, "goes with"),
        ({"type": "json_schema", "json_schema": {"name": "a"}}, "expected `schema`"),
        ({"type": "json_schema", "json_schema": {"name": "a", "schema": {}, "shema": {}}}, "got the key 'shema'"),
        ({"type": "json_schema", "json_schema": {"schema": {"type": 3}}}, "no JSON Schema"),
        ({"type": "json_schema", "json_schema": {"schema": {"$ref": "http://127.0.0.1/s"}}}, "leads nowhere"),
        ({"type": "json_schema", "json_schema": {"schema": {"$ref": "file:///etc/passwd"}}}, "leads nowhere"),
        ({"type": "json_schema", "json_schema": {"schema": {"$ref": "#/nowhere"}}}, "leads nowhere"),
        ({"type": "json_schema", "json_schema": {"schema": {"$ref": "#"}}}, "without end"),
    ],
)
def test_a_format_that_nothing_could_follow_is_refused(document: Any, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        ResponseFormat.model_validate(document)


def test_a_format_survives_the_store() -> None:
    document = spec({"type": "json_schema", "json_schema": {"name": "a", "schema": CITY, "strict": True}})
    assert JobSpec.model_validate(document.model_dump(mode="json")) == document


def test_who_reads_output_json_is_found_among_parts() -> None:
    other = {**READS_CITY, "name": "text", "input": "{{sample.output_text}}"}
    multi = {"type": "multi", "name": "m", "graders": {"a": other, "b": READS_CITY}, "calculate_output": "a + b"}
    with pytest.raises(UserError, match=r"sample\.output_json") as caught:
        check_output_json({"grader": parse_grader(multi)})
    assert caught.value.param == "grader.graders.b"
    check_output_json({"grader": parse_grader(other)})
