"""JSON that is read, projected and written again."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentrft.tools.output.clean import OutputFlag
from agentrft.tools.output.document import CannotRead, compact, map_strings, project, read_json
from agentrft.tools.output.spec import ProjectSpec

ORDERS = {
    "total": 2,
    "orders": [
        {"id": 1, "user": {"name": "Ann", "ssn": "1-2"}, "a.b": 1, "note": None},
        {"id": 2, "user": {"name": "Bob", "ssn": "3-4"}, "a.b": 2, "tags": []},
    ],
}


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"keep": ["orders.*.id"]}, {"orders": [{"id": 1}, {"id": 2}]}),
        ({"keep": ["total", "orders.1.user"]}, {"total": 2, "orders": [{"user": {"name": "Bob", "ssn": "3-4"}}]}),
        ({"keep": ["*.*.user.name"]}, {"orders": [{"user": {"name": "Ann"}}, {"user": {"name": "Bob"}}]}),
        ({"keep": [["orders", "*", "a.b"]]}, {"orders": [{"a.b": 1}, {"a.b": 2}]}),
        # `drop` takes from what `keep` left.
        (
            {"keep": ["orders.*.user"], "drop": ["*.*.*.ssn"]},
            {"orders": [{"user": {"name": n}} for n in ("Ann", "Bob")]},
        ),
        ({"drop": ["orders"]}, {"total": 2}),
        (
            {"drop": ["orders.0", "orders.*.user", "nowhere.*"]},
            {"total": 2, "orders": [{"id": 2, "a.b": 2, "tags": []}]},
        ),
        (
            {"drop": ["*.*.user"], "drop_empty": True},
            {"total": 2, "orders": [{"id": 1, "a.b": 1}, {"id": 2, "a.b": 2}]},
        ),
    ],
)
def test_paths_choose_parts(spec: dict[str, Any], expected: Any) -> None:
    assert project(ORDERS, ProjectSpec.model_validate(spec)) == (expected, ())


def test_where_no_path_reaches_anything_all_stays() -> None:
    error = {"error": "no such user"}
    assert project(error, ProjectSpec(keep=("orders.*.id",))) == (error, (OutputFlag.KEPT_NOTHING,))


def test_empty_fields_go_zero_and_false_stay_and_elements_keep_their_places() -> None:
    value = {"a": 0, "b": False, "c": None, "d": {"e": [], "f": ""}, "g": [None, {"h": None}, ""]}
    assert project(value, ProjectSpec(drop_empty=True)) == ({"a": 0, "b": False, "g": [None, {}, ""]}, ())


def test_an_answer_that_is_all_empty_stays() -> None:
    value = {"results": [], "next": None}
    assert project(value, ProjectSpec(drop_empty=True)) == (value, ())


@pytest.mark.parametrize(
    ("text", "flag"),
    [
        ("plain text", OutputFlag.NOT_JSON),
        ("", OutputFlag.NOT_JSON),
        ('{"a": 1} trailing', OutputFlag.NOT_JSON),
        ("[" + "9" * 5000 + "]", OutputFlag.NOT_JSON),  # Python refuses integers beyond 4,300 digits
        ("[1e999]", OutputFlag.NOT_JSON),
        ('{"a": 1, "a": 2}', OutputFlag.DUPLICATE_KEYS),
        ("[" * 100_000, OutputFlag.TOO_DEEP),
        ("[" * 66 + "]" * 66, OutputFlag.TOO_DEEP),
        ('{"a":' * 500 + "1" + "}" * 500, OutputFlag.TOO_DEEP),
    ],
)
def test_what_cannot_be_written_again_is_not_read(text: str, flag: OutputFlag) -> None:
    with pytest.raises(CannotRead) as raised:
        read_json(text)
    assert raised.value.flag is flag


def test_nesting_of_64_lists_and_nan_are_read() -> None:
    deep = "[" * 64 + "]" * 64
    assert compact(read_json(deep)) == deep
    assert (
        compact(read_json('  [NaN, -Infinity, 12345678901234567890, "é"]'))
        == '[NaN,-Infinity,12345678901234567890,"é"]'
    )


def test_strings_and_keys_are_changed_together() -> None:
    value = json.loads('{"A": ["B", 1, {"C": null}]}')
    assert map_strings(value, str.lower) == {"a": ["b", 1, {"c": None}]}
    with pytest.raises(CannotRead):
        map_strings({"A": 1, "a": 2}, str.lower)
