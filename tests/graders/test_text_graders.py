"""`string_check`, and `text_similarity` with `fuzzy_match`; the other metrics are in `test_text_similarity.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentrft.graders import build_grader, parse_grader
from agentrft.types import GradeError


def _string_check(operation: str, **more: object):
    document = {
        "type": "string_check",
        "name": "s",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
        "operation": operation,
        **more,
    }
    return build_grader(document, Path())


@pytest.mark.parametrize(
    ("operation", "text", "answer", "value"),
    [
        ("eq", "Paris", "Paris", 1.0),
        ("eq", "paris", "Paris", 0.0),
        ("eq", "Paris ", "Paris", 0.0),
        ("ne", "Paris", "Paris", 0.0),
        ("ne", "Rome", "Paris", 1.0),
        ("like", "It is Paris.", "Paris", 1.0),
        ("like", "It is paris.", "Paris", 0.0),
        ("like", "Paris", "It is Paris.", 0.0),  # the input contains the reference, not the other way round
        ("ilike", "It is PARIS.", "paris", 1.0),
        ("ilike", "STRASSE", "straße", 1.0),
        ("ilike", "Rome", "Paris", 0.0),
        ("eq", "7", 7, 1.0),
    ],
)
async def test_string_check(make_sample, make_item, operation, text, answer, value):
    grade = await _string_check(operation).grade(make_sample(text), make_item(answer=answer), "t")
    assert (grade.value, grade.reason) == (value, None)


@pytest.mark.parametrize(
    ("text", "answer", "value"),
    [
        ("abc", "abc", 1.0),
        ("abc", "xyz", 0.0),
        ("", "", 1.0),
        ("", "abc", 0.0),
        # "abcd" and "abcx" share "abc": 2 * 3 matching characters / 8 characters
        ("abcd", "abcx", 0.75),
        # the reference inside a long text: 2 * 3 / 12, not 1
        ("abc......", "abc", 0.5),
    ],
)
async def test_fuzzy_match(make_sample, make_item, text, answer, value):
    document = {
        "type": "text_similarity",
        "name": "t",
        "input": "{{sample.output_text}}",
        "reference": "{{item.answer}}",
        "evaluation_metric": "fuzzy_match",
        "pass_threshold": 0.8,
    }
    assert parse_grader(document).pass_threshold == 0.8
    grade = await build_grader(document, Path()).grade(make_sample(text), make_item(answer=answer), "t")
    assert grade.value == pytest.approx(value)


async def test_a_reference_that_cannot_be_filled_is_no_grade(make_sample, make_item):
    grade = await _string_check("eq").grade(make_sample("x"), make_item(other=1), "t")
    assert (grade.value, grade.reason) == (None, "there is no item.answer (or it is null)")
    grade = await _string_check("eq", input="{{sample.output_json.a}}").grade(
        make_sample("x"), make_item(answer=1), "t"
    )
    assert (grade.value, grade.reason) == (None, "there is no sample.output_json.a (or it is null)")


@pytest.mark.parametrize(
    ("text", "answer", "error"),
    [
        ("x", None, GradeError.INVALID_VARIABLE),  # there is no item.answer
        ("x" * 1_000_001, "y", GradeError.TRUNCATED_OBSERVATION),
        ("x" * 40_001, "y" * 40_000, GradeError.TRUNCATED_OBSERVATION),  # the product is too large
    ],
    ids=["missing", "one too long", "both too long"],
)
async def test_text_without_a_grade_names_the_kind_of_failure(make_sample, make_item, text, answer, error):
    near = {"type": "text_similarity", "name": "t", "input": "{{sample.output_text}}", "reference": "{{item.answer}}"}
    grader = build_grader({**near, "evaluation_metric": "fuzzy_match"}, Path())
    grade = await grader.grade(make_sample(text), make_item(answer=answer), "t")
    assert (grade.value, grade.error) == (None, error)


async def test_a_string_check_without_its_reference_names_the_kind_of_failure(make_sample, make_item):
    grade = await _string_check("eq").grade(make_sample("x"), make_item(other=1), "t")
    assert grade.error is GradeError.INVALID_VARIABLE
