"""Hostile documents, formulas, templates and answers: a clear error or a result, within a second, never a crash."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrft.errors import UserError
from agentrft.graders import build_grader
from agentrft.graders.formula import Formula
from agentrft.graders.sample import sample_object
from agentrft.graders.template import Missing, Template
from agentrft.types import Item, Message, Sample, StopReason, ToolCall

pytestmark = [pytest.mark.soak, pytest.mark.timeout(1200)]

hostile = settings(
    max_examples=5_000,
    deadline=1_000,  # ms for each input: a hang is a failure
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    derandomize=True,
)

texts = st.text(max_size=200) | st.sampled_from(
    [
        "NaN",
        "1e999",
        "9" * 5_000,
        "[" * 20_000,
        "[" * 900 + "]" * 900,
        '{"a":' * 900 + "1" + "}" * 900,
        "\u202e0.1",
        "{{item.answer}}",
        "a" * 50_000,
        "\x00",
    ]
)
numbers = st.floats() | st.integers() | st.sampled_from([10**400, -0.0])
values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)

formula_pieces = st.sampled_from(
    [
        *"+-*/^(),. ",
        "min",
        "max",
        "abs",
        "floor",
        "ceil",
        "exp",
        "sqrt",
        "log",
        "a",
        "b",
        "__class__",
        "9",
        "1e308",
        "٣",
    ]
)
formulas = st.lists(formula_pieces, max_size=60).map("".join) | texts | st.integers(1, 999).map(lambda n: "(" * n + "a")

template_pieces = st.sampled_from(
    [
        "{{",
        "}}",
        "item",
        "sample",
        ".",
        "answer",
        "output_text",
        "output_json",
        "[",
        "]",
        "0",
        "-1",
        '"',
        "'",
        " ",
        "messages",
    ]
)
templates = st.lists(template_pieces, max_size=30).map("".join) | texts

calls = st.builds(ToolCall, id=st.text(max_size=5), name=texts, arguments=texts)
samples = st.builds(
    Sample,
    output_text=texts,
    output_tools=st.lists(calls, max_size=2).map(tuple),
    messages=st.just((Message(role="user", content="q"),)),
    stop_reason=st.sampled_from(StopReason),
    n_calls=st.integers(0, 5),
)
items = st.builds(
    lambda fields: Item(id="row-1", messages=(Message(role="user", content="q"),), fields=fields, line=1),
    st.dictionaries(st.sampled_from(["answer", "a", "b"]), values, max_size=3),
)


@hostile
@given(formulas, st.floats(), st.floats())
def test_a_formula_is_a_finite_number_or_a_value_error(text, a, b):
    assert _number_or_reason(text, {"a": a, "b": b}) is not None


def _number_or_reason(text, named):
    try:
        formula = Formula(text)
        if not formula.names <= named.keys():
            return "a name that no grader has"
        value = formula.value(named)
    except ValueError as error:
        return str(error) or None
    return value if math.isfinite(value) else None


@hostile
@given(templates, samples, st.dictionaries(st.sampled_from(["answer", "a"]), values, max_size=2))
def test_a_template_is_filled_or_says_why(text, sample, item):
    assert isinstance(_filled_or_reason(text, sample, item), str)


def _filled_or_reason(text, sample, item):
    try:
        return Template(text).fill(sample_object(sample), item)
    except (ValueError, Missing) as error:
        return str(error) or None


_CHECK = {"type": "string_check", "name": "s", "input": "{{sample.output_text}}", "reference": "x", "operation": "eq"}
_SIMILAR = {"type": "text_similarity", "name": "t", "input": "a", "reference": "b", "evaluation_metric": "fuzzy_match"}
_PYTHON = {
    "type": "python",
    "name": "p",
    "source": "def grade(sample, item):\n    return 1.0\n",
    "isolation": "process",
}
_MULTI = {"type": "multi", "name": "m", "graders": {"s": _CHECK}, "calculate_output": "s"}
_ENDPOINT = {"type": "endpoint", "name": "e", "url": "http://127.0.0.1:9/grade"}
_KEYS = sorted({key for spec in (_CHECK, _SIMILAR, _PYTHON, _MULTI, _ENDPOINT) for key in spec} | {"range", "surprise"})

documents = st.builds(
    lambda spec, changes, drop: {key: value for key, value in {**spec, **changes}.items() if key != drop},
    st.sampled_from([_CHECK, _SIMILAR, _PYTHON, _MULTI, _ENDPOINT]),
    st.dictionaries(st.sampled_from(_KEYS), values | templates, max_size=2),
    st.sampled_from([*_KEYS, None]),
)


@hostile
@given(documents | st.dictionaries(st.text(max_size=10), values, max_size=4))
def test_a_document_is_a_grader_or_a_user_error_that_names_the_field(document):
    assert _refused_field(document) is None or _refused_field(document).startswith("grader")


def _refused_field(document):
    """The field that is refused; None when the document is a grader."""
    try:
        grader = build_grader(document, Path("/nonexistent"))
    except UserError as error:
        return error.param or "no field"
    asyncio.run(grader.close())
    return None


@hostile
@given(
    st.sampled_from(["eq", "ne", "like", "ilike"]),
    st.sampled_from(["{{sample.output_text}}", "{{sample.output_json}}", "{{sample.output_tools[0].function.name}}"]),
    samples,
    items,
)
def test_an_answer_is_graded_or_gets_no_grade(operation, read, sample, item):
    document = {**_CHECK, "operation": operation, "input": read, "reference": "{{item.answer}}"}

    async def graded():
        grader = build_grader(document, Path())
        try:
            return await grader.grade(sample, item, "trace")
        finally:
            await grader.close()

    grade = asyncio.run(graded())
    assert grade.value in (0.0, 1.0) or (grade.value is None and grade.reason)
    json.dumps(grade.reason)  # can be stored
