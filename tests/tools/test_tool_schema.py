"""Signature and docstring → schema; wrong arguments → words."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Optional

import pytest

from agentrft.errors import UserError
from agentrft.tools import ArgumentCheck, ArgumentError, spec_from_function
from agentrft.types import ToolSpec


def search(
    text: str,
    limit: int = 3,
    *,
    fuzzy: bool = False,
    order: Literal["new", "old"] = "new",
    boost: Optional[float] = None,  # noqa: UP045  (the older spelling must work too)
    tags: list[str] | None = None,
    filters: dict[str, int] | None = None,
    raw: dict | None = None,
) -> str:
    """Find documents
    by their text.

    The second paragraph is for people, not for the model.

    Args:
        text: Words to look for,
            in any order.
        limit (int): At most this many.

    Returns:
        text: one line a document.
    """
    return ""


def test_every_supported_annotation_becomes_schema() -> None:
    spec = spec_from_function(search)
    assert spec.name == "search"
    assert spec.description == "Find documents by their text."
    assert spec.parameters == {
        "type": "object",
        "properties": {
            "text": {"type": "string", "description": "Words to look for, in any order."},
            "limit": {"type": "integer", "default": 3, "description": "At most this many."},
            "fuzzy": {"type": "boolean", "default": False},
            "order": {"type": "string", "enum": ["new", "old"], "default": "new"},
            "boost": {"type": ["number", "null"]},
            "tags": {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]},
            "filters": {"anyOf": [{"type": "object", "additionalProperties": {"type": "integer"}}, {"type": "null"}]},
            "raw": {"type": ["object", "null"]},
        },
        "required": ["text"],
        "additionalProperties": False,
    }
    assert list(spec.parameters["properties"])[:2] == ["text", "limit"]  # the order of positional arguments


def test_mixed_literals_and_annotated() -> None:
    def pick(kind: Literal["a", 1], size: Annotated[int, "metres"]) -> str:
        return ""

    spec = spec_from_function(pick)
    assert spec.description == ""
    assert spec.parameters["properties"] == {"kind": {"enum": ["a", 1]}, "size": {"type": "integer"}}


def test_unusable_parameters_are_refused_with_the_next_step() -> None:
    def bare(text, path: str) -> str:
        return ""

    def strange(when: complex) -> str:
        return ""

    def nested(rows: list[complex]) -> str:
        return ""

    def anything(value: Any) -> str:
        return ""

    def many(*texts: str) -> str:
        return ""

    def options(**texts: str) -> str:
        return ""

    def unknown(value: NoSuchName) -> str:  # type: ignore[name-defined]  # noqa: F821
        return ""

    for function, words in [
        (bare, "parameter text has no type annotation"),
        (strange, "parameter when is annotated"),
        (nested, "parameter rows is annotated"),
        (anything, "parameter value is annotated"),
        (many, "parameter texts is variadic positional"),
        (options, "parameter texts is variadic keyword"),
        (unknown, "NoSuchName"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            spec_from_function(function, param="agent.tools.0.target")
        assert caught.value.param == "agent.tools.0.target"
        assert caught.value.code == "invalid_tool"


def test_a_method_leaves_self_out() -> None:
    class Tree:
        def cat(self, path: str) -> str:
            """Print a file."""
            return path

    assert list(spec_from_function(Tree.cat, is_method=True).parameters["properties"]) == ["path"]


def check_of(parameters: dict[str, Any]) -> ArgumentCheck:
    return ArgumentCheck(ToolSpec(name="t", description="", parameters=parameters))


def test_all_errors_with_path_expected_and_received() -> None:
    check = ArgumentCheck(spec_from_function(search))
    errors = check.errors({"limit": "three", "order": "newest", "tags": [1], "colour": "red"})
    assert errors == (
        ArgumentError(
            path="colour", expected="text, limit, fuzzy, order, boost, tags, filters, raw", received="an unknown name"
        ),
        ArgumentError(path="limit", expected="integer", received='"three"'),
        ArgumentError(path="order", expected='"new" or "old"', received='"newest"'),
        ArgumentError(path="tags", expected="array or null", received="[1]"),
        ArgumentError(path="text", expected="string", received="nothing"),
    )
    assert check.example == '{"text": "text"}'
    assert check.explain(errors[1:3]) == (
        'limit: expected integer, got "three"; order: expected "new" or "old", got "newest"; example {"text": "text"}'
    )
    assert "; 1 more; example" in check.explain(errors)
    assert check.errors({"text": "a", "boost": None, "tags": ["x"], "raw": {"k": 1}}) == ()


def test_booleans_are_not_numbers_and_paths_reach_inside() -> None:
    check = check_of(
        {
            "type": "object",
            "properties": {
                "day": {"type": "object", "properties": {"hours": {"type": "array", "items": {"type": "number"}}}}
            },
        }
    )
    errors = check.errors({"day": {"hours": [1, True]}})
    assert [(error.path, error.received) for error in errors] == [("day.hours[1]", "true")]


def test_several_missing_arguments_are_each_named_once() -> None:
    check = check_of({"type": "object", "properties": {"a": {"type": "string"}, "b": {}}, "required": ["a", "b"]})
    assert [str(error) for error in check.errors({})] == ["missing a (string)", "missing b (a value)"]


def test_other_keywords_and_arguments_that_are_no_object() -> None:
    check = check_of({"type": "object", "properties": {"n": {"type": "integer", "minimum": 1}}, "required": ["n"]})
    assert [str(error) for error in check.errors({"n": 0})] == ["n: expected minimum 1, got 0"]
    assert [str(error) for error in check.errors([1])] == ["arguments: expected object, got [1]"]
    long = check.errors({"n": "x" * 100})
    assert long[0].received == '"' + "x" * 23 + "…"


def test_an_example_is_only_given_when_it_is_valid() -> None:
    assert check_of({"type": "object", "properties": {"n": {"type": "string", "pattern": "^[0-9]+$"}}}).example is None
    assert check_of({"type": "object", "properties": {"n": {"examples": ["07"], "pattern": "^[0-9]+$"}}}).example == (
        '{"n": "07"}'
    )


def test_a_broken_schema_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="not a valid JSON Schema") as caught:
        check_of({"type": "objekt"})
    assert caught.value.code == "invalid_tool"
