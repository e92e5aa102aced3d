"""The line format with arguments of several types: what is written is read back as the same arguments, or refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentrft.chat import LineFormat
from agentrft.errors import UserError
from agentrft.types import Message, ToolCall, ToolSpec

_SETTINGS = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
_INT_OR_STR = {"type": ["integer", "string"]}
_STR_OR_NULL = {"type": ["string", "null"]}
_INT_OR_NULL = {"type": ["integer", "null"]}
_LIST_OR_STR = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string"}]}
_BOOL_OR_AUTO = {"anyOf": [{"type": "boolean"}, {"type": "string", "enum": ["auto"]}]}


@pytest.fixture(scope="module")
def line(tokenizers_by_family) -> LineFormat:
    return LineFormat(tokenizers_by_family["chatml"])


def _write(line: LineFormat, tool: ToolSpec, arguments: dict[str, Any]) -> str:
    call = ToolCall(id="c", name=tool.name, arguments=json.dumps(arguments))
    return line.decode(line.reply(Message(role="assistant", tool_calls=(call,)), [tool])).removesuffix(line.stop)


def _read(line: LineFormat, tool: ToolSpec, text: str) -> dict[str, Any]:
    message, malformed = line.parse([*line.tokenizer.encode(text), *line.stop_ids], [tool])
    assert malformed is None
    return json.loads(message.tool_calls[0].arguments)


def _refusal(line: LineFormat, tool: ToolSpec, arguments: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        _write(line, tool, arguments)
    assert caught.value.code == "invalid_demonstration"
    return caught.value.message


@pytest.mark.parametrize(
    ("schema", "value", "word"),
    [
        (_INT_OR_STR, "abc", "abc"),
        (_INT_OR_STR, 5, "5"),
        (_INT_OR_STR, "5", '"5"'),
        (_INT_OR_STR, "5.5", "5.5"),
        ({"type": ["string", "integer"]}, 5, "5"),
        ({"enum": [1, "all"]}, "all", "all"),
        ({"enum": [1, "all"]}, 1, "1"),
        ({"enum": [1, "1"]}, "1", '"1"'),
        (_BOOL_OR_AUTO, "auto", "auto"),
        (_BOOL_OR_AUTO, False, "false"),
        ({"type": ["boolean", "string"]}, "TRUE", '"TRUE"'),
        (_LIST_OR_STR, "foo", "foo"),
        (_LIST_OR_STR, ["foo", "b c"], '["foo", "b c"]'),
        (_LIST_OR_STR, "[foo", '"[foo"'),
        (_LIST_OR_STR, "{a,b}.py", "{a,b}.py"),
        (_STR_OR_NULL, None, "null"),
        (_STR_OR_NULL, "null", '"null"'),
        (_INT_OR_NULL, None, "null"),
        ({"type": ["array", "null"]}, None, "null"),
        ({"anyOf": [{"oneOf": [{"type": "null"}, {"type": "number"}]}, {"const": "max"}]}, "max", "max"),
        ({"type": ["integer", "number"]}, 5.0, "5.0"),
        ({"type": ["object", "integer"]}, {"a": [1]}, '{"a": [1]}'),
    ],
)
@pytest.mark.parametrize("place", ["first", "last"])
def test_each_type_of_a_union_has_its_word(line, make_spec, schema, value, word, place):
    other = {"type": "boolean"}
    first = place == "first"
    tool = make_spec("u1", **({"x": schema, "z": other} if first else {"z": other, "x": schema}))
    text = f"u1 {word} true" if first else f"u1 true {word}"
    assert _write(line, tool, {"x": value, "z": True}) == text
    read = _read(line, tool, text)["x"]
    assert (read, type(read)) == (value, type(value))


def test_a_last_argument_that_may_be_a_string_takes_the_rest_of_the_line(line, make_spec):
    tool = make_spec("find", what=_INT_OR_STR)
    assert _write(line, tool, {"what": "5 red apples"}) == "find 5 red apples"
    assert _read(line, tool, "find 5 red apples") == {"what": "5 red apples"}
    assert _read(line, tool, 'find "5"') == {"what": "5"}


def test_null_is_left_out_where_that_means_the_same(line, make_spec):
    tool = make_spec("top", required=(), n=_INT_OR_NULL, by=_STR_OR_NULL)
    assert _write(line, tool, {"n": None, "by": None}) == "top"
    assert _write(line, tool, {"n": 3, "by": None}) == "top 3"
    assert _write(line, tool, {"by": "size"}) == "top null size"


def test_null_is_written_where_the_default_is_another_value(line, make_spec):
    tool = make_spec("top", required=(), limit=_INT_OR_NULL | {"default": 10})
    assert _write(line, tool, {"limit": None}) == "top null"
    assert _write(line, tool, {}) == "top"
    assert _read(line, tool, "top null") == {"limit": None}


@pytest.mark.parametrize(
    ("schema", "arguments", "why"),
    [
        ({"type": "integer", "default": 10}, {"x": None}, "X must be an integer, got null"),
        ({"type": "integer"}, {"x": 5.0}, "X must be an integer, got 5.0"),
        ({"type": "integer"}, {"x": "5"}, "'x' = \"5\", which would be read back as 5"),
        ({"type": "string"}, {"x": 5}, "'x' = 5, which would be read back as \"5\""),
        ({"type": "string"}, {"x": [1]}, "'x' = [1], which would be read back as \"[1]\""),
        ({}, {"x": True}, "'x' = true, which would be read back as \"true\""),
        (_INT_OR_NULL, {"x": "many"}, "X must be an integer or null, got many"),
        (_INT_OR_STR, {"y": None}, "u1 with 'y', which its schema lacks"),
    ],
)
def test_arguments_that_would_be_read_back_as_others_are_refused(line, make_spec, schema, arguments, why):
    tool = make_spec("u1", required=(), x=schema)
    message = _refusal(line, tool, arguments)
    assert why in message
    assert message.startswith("the line format cannot write this assistant reply: got u1 with")
    assert "expected u1 [X]; next step: change the row" in message


def test_a_required_null_that_the_schema_does_not_allow_is_refused(line, tools):
    assert "'text' = null" in _refusal(line, tools[2], {"text": None, "path": "/"})


# ------------------------------------------------------------------------------------------------ any schema, any value

# Words that look like another type, among any text.
_STRINGS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(["5", "-1", "2.5", "1e5", "1e999", "true", "FALSE", "null", "None", "[1]", "[a", "{}", '"', '"q"']),
    st.sampled_from(["a b", '"a" b', "5 6", " 5", "[1] 2", "null x", "", "\\", "Answer: 5", "\u2028", "\x1c", "a\nb"]),
)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "string": _STRINGS,
    "integer": st.integers(),
    "number": st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
    "boolean": st.booleans(),
    "null": st.none(),
}
_VALUES["array"] = st.lists(st.one_of(*_VALUES.values()), max_size=3)
_VALUES["object"] = st.dictionaries(_STRINGS, st.one_of(*_VALUES.values()), max_size=2)


@st.composite
def _schema(draw: Callable[..., Any]) -> tuple[dict[str, Any], st.SearchStrategy[Any]]:
    """A schema in one of the shapes that allow several types, and the values that fit it."""
    kinds = draw(st.lists(st.sampled_from(list(_VALUES)), min_size=1, max_size=3, unique=True))
    fitting = st.one_of(*(_VALUES[kind] for kind in kinds))
    shape = draw(st.sampled_from(["type", "anyOf", "oneOf", "enum"]))
    if shape == "enum":
        options = draw(st.lists(fitting, min_size=1, max_size=3))
        return {"enum": options}, st.sampled_from(options)
    schema: dict[str, Any] = {"type": kinds} if shape == "type" else {shape: [{"type": kind} for kind in kinds]}
    if draw(st.booleans()):
        schema["default"] = draw(fitting)
    return schema, fitting


@st.composite
def _tool_and_values(draw: Callable[..., Any]) -> tuple[ToolSpec, dict[str, st.SearchStrategy[Any]]]:
    made = {name: draw(_schema()) for name in ("a", "b", "c")[: draw(st.integers(1, 3))]}
    required = [name for name in made if draw(st.booleans())]
    schemas = {name: schema for name, (schema, _) in made.items()}
    tool = ToolSpec(name="u", description="", parameters={"properties": schemas, "required": required})
    return tool, {name: fitting for name, (_, fitting) in made.items()}


def _meant(tool: ToolSpec, arguments: dict[str, Any]) -> str:
    """What the tool works with, as JSON text: that tells 1, 1.0 and true apart."""
    schemas = tool.parameters["properties"]
    return json.dumps({name: arguments.get(name, schema.get("default")) for name, schema in schemas.items()})


@given(made=_tool_and_values(), data=st.data())
@_SETTINGS
def test_arguments_that_fit_the_schema_are_written_and_read_back(line, made, data):
    tool, fitting = made
    arguments = {name: data.draw(values) for name, values in fitting.items()}
    assert _meant(tool, _read(line, tool, _write(line, tool, arguments))) == _meant(tool, arguments)


@given(made=_tool_and_values(), data=st.data())
@_SETTINGS
def test_what_is_written_is_read_back_equal_or_refused(line, made, data):
    tool, fitting = made
    given = [name for name in fitting if data.draw(st.booleans())]
    arguments = {name: data.draw(st.one_of(fitting[name], *_VALUES.values())) for name in given}
    try:
        text = _write(line, tool, arguments)
    except UserError:  # an argument of a wrong type, one that is missing, a gap
        return
    assert _meant(tool, _read(line, tool, text)) == _meant(tool, arguments)


@given(made=_tool_and_values(), text=_STRINGS)
@_SETTINGS
def test_any_words_after_a_tool_are_read_or_told_why_not(line, made, text):
    tool, _ = made
    message, malformed = line.parse([*line.tokenizer.encode(f"u {text}"), *line.stop_ids], [tool])
    assert (malformed is None) == bool(message.tool_calls)
