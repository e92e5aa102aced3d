"""Signature and docstring → schema; wrong arguments → words."""

from __future__ import annotations

import enum
import inspect
import math
from collections.abc import Callable
from pathlib import Path
from types import GenericAlias
from typing import Annotated, Any, Dict, List, Literal, Optional  # noqa: UP035  (older spellings must work too)

import pytest

from agentrft.errors import UserError
from agentrft.tools import ArgumentCheck, ArgumentError, spec_from_function
from agentrft.tools.schema import with_integers
from agentrft.types import ToolSpec


class Colour(enum.Enum):
    RED = "red"


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


def test_older_spellings_without_arguments_are_bare_lists_and_dicts() -> None:
    def pick(rows: List, words: Dict, more: Optional[List] = None) -> str:  # noqa: UP006, UP045
        return ""

    assert spec_from_function(pick).parameters["properties"] == {
        "rows": {"type": "array"},
        "words": {"type": "object"},
        "more": {"type": ["array", "null"]},
    }


@pytest.mark.parametrize(
    "annotation",
    [
        Literal[Colour.RED],
        Literal["red", Colour.RED],
        Literal[b"red"],
        GenericAlias(dict, str),
        GenericAlias(list, (int, str)),
        [str],
    ],
)
def test_annotations_that_json_cannot_express(annotation: Any) -> None:
    def pick(value) -> str:
        return ""

    pick.__annotations__["value"] = annotation
    with pytest.raises(UserError, match=r"parameter value is annotated .*; use str, int"):
        spec_from_function(pick)


@pytest.mark.parametrize("default", [math.inf, math.nan, Path("/tmp"), frozenset(), object(), Colour.RED])
def test_a_default_that_json_cannot_hold(default: Any) -> None:
    def pick(value: str = default) -> str:
        return ""

    with pytest.raises(UserError, match=r"parameter value has the default .*, which JSON cannot hold.*; make None"):
        spec_from_function(pick)


def with_signature(annotation: Any) -> Callable[..., str]:
    """What a decorator makes that declares the parameters itself."""

    def pick(*args: Any, **options: Any) -> str:
        return ""

    parameter = inspect.Parameter("value", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=annotation)
    pick.__signature__ = inspect.Signature([parameter])  # type: ignore[attr-defined]
    return pick


def test_a_decorator_may_set_the_signature() -> None:
    assert spec_from_function(with_signature(int)).parameters["properties"] == {"value": {"type": "integer"}}
    with pytest.raises(UserError, match="annotated with the string 'int', which its decorator left unresolved"):
        spec_from_function(with_signature("int"))
    with pytest.raises(UserError, match="parameter value has no type annotation"):
        spec_from_function(with_signature(inspect.Parameter.empty))


def test_a_signature_that_cannot_be_read() -> None:
    with pytest.raises(UserError, match=r"tool max: its signature cannot be read .*; write a Python function"):
        spec_from_function(max)


@pytest.mark.parametrize(
    ("annotation", "given", "arrives"),
    [
        (int, 3.0, 3),
        (int, 2.5, 2.5),
        (int | None, 3.0, 3),
        (int | str, 3.0, 3),
        (Literal[1, 2], 2.0, 2),
        (Literal["all", 1], 1.0, 1),
        (list[int], [1.0, 2], [1, 2]),
        (dict[str, int], {"a": 1.0}, {"a": 1}),
        (dict[str, list[int | None]], {"a": [1.0, None]}, {"a": [1, None]}),
        (list[int] | dict[str, int] | None, [1.0], [1]),
        (list[list[int] | str] | str, [[1.0], "b"], [[1], "b"]),
        (float, 3.0, 3.0),
        (int | float, 3.0, 3.0),
        (list[float | int], [1.0], [1.0]),
        (list[int] | dict[str, float], {"a": 1.0}, {"a": 1.0}),
        (list, [1.0], [1.0]),
        (dict, {"a": 1.0}, {"a": 1.0}),
        (str, "3.0", "3.0"),
    ],
)
def test_a_whole_float_becomes_an_integer_where_only_that_is_allowed(annotation: Any, given: Any, arrives: Any) -> None:
    schema = spec_from_function(with_signature(annotation)).parameters["properties"]["value"]
    # 3 == 3.0 in Python: only the spelling tells them apart
    assert repr(with_integers(given, schema)) == repr(arrives)


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


def test_schemas_that_are_only_true_or_false() -> None:
    check = check_of({"type": "object", "properties": {"word": True}, "required": ["word"]})
    assert check.example == '{"word": "text"}'
    assert [str(error) for error in check.errors({})] == ["missing word (a value)"]
    assert check_of({"type": "object", "properties": {"word": False}, "required": ["word"]}).example is None


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"type": "objekt"}, "'objekt' is not valid"),
        ({"properties": {"w": {"pattern": r"^\p{L}+$"}}}, "is not a 'regex'"),
        (
            {"properties": {"w": {"$ref": "#/$defs/word"}}},
            r"\$ref #/\$defs/word leads nowhere; put what it names under",
        ),
        ({"properties": {"w": {"items": {"$ref": "#word"}}}, "required": []}, "#word leads nowhere"),
        ({"properties": {"w": {"$ref": "#/anyOf/word"}}, "anyOf": [{}]}, "#/anyOf/word leads nowhere"),
        ({"properties": {"w": {"$ref": "https://example.com/word.json"}}}, r"example\.com/word\.json leads nowhere"),
        (
            {"properties": {"w": {"$ref": "#/required"}}, "required": ["w"]},
            r"\['w'\] is not of type 'object', 'boolean'",
        ),
    ],
)
def test_a_broken_schema_is_the_users_mistake(parameters: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=f"tool t: its parameters are not a valid JSON Schema: .*{words}") as caught:
        check_of(parameters)
    assert caught.value.code == "invalid_tool"


def test_references_are_followed() -> None:
    check = check_of(
        {"properties": {"tree": {"$ref": "#/$defs/tree"}}, "$defs": {"tree": {"items": {"$ref": "#/$defs/tree"}}}}
    )
    assert check.errors({"tree": [[], [[]]]}) == ()
