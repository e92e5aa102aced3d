"""Lists of objects as CSV and Markdown."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest

from agentrft.tools.output.fit import Body
from agentrft.tools.output.table import Rows, as_lines, as_table, find_rows


def table(value: Any, format: Any = "csv") -> str | None:
    found = find_rows(value)
    body = as_table(found, format) if found is not None else None
    return None if body is None else body.text


def test_five_objects_become_csv_with_a_header_line() -> None:
    rows = [{"id": n, "name": f"item {n}", "ok": n % 2 == 0, "price": 1.5, "note": None, "tag": ""} for n in range(5)]
    assert table(rows) == (
        "5 rows × 4 columns, 2 columns dropped (always empty): note, tag\n"
        "id,name,ok,price\n"
        "0,item 0,true,1.5\n1,item 1,false,1.5\n2,item 2,true,1.5\n3,item 3,false,1.5\n4,item 4,true,1.5"
    )


def test_a_list_inside_an_object_keeps_the_rest_of_the_object() -> None:
    value = {"total": 612, "orders": [{"id": n} for n in range(5)], "next": None}
    assert table(value) == '{"total":612,"next":null}\norders: 5 rows × 1 column\nid\n0\n1\n2\n3\n4'


def test_markdown_escapes_bars() -> None:
    rows = [{"a": "x|y", "b": n} for n in range(5)]
    expected = ["5 rows × 2 columns", "| a | b |", "| --- | --- |", *(rf"| x\|y | {n} |" for n in range(5))]
    assert table(rows, "markdown") == "\n".join(expected)


@pytest.mark.parametrize(
    "value",
    [
        [{"a": 1}] * 4,  # too few
        [{"a": 1}] * 5 + [1],  # not only objects
        [{}] * 5,
        [{"a": None}] * 5,  # no value at all
        [{f"k{n}": 1} for n in range(5)],  # no key shared
        # 15 of 5 × 4 cells: 75 %.
        [{"a": 1, "b": 1, "c": 1}] * 4 + [{"a": 1, "b": 1, "d": 1}],
        {"a": [{"x": 1}] * 5, "b": [{"x": 1}] * 5},  # which of the two?
        {"a": 1},
        "text",
    ],
)
def test_other_values_are_no_tables(value: Any) -> None:
    assert table(value) is None


def test_eighty_percent_of_the_cells_are_enough() -> None:
    # 8 of 5 × 2 cells.
    rows: list[dict[str, Any]] = [{"a": 1, "b": 2}] * 3 + [{"a": 3}] * 2
    assert table(rows) == "5 rows × 2 columns\na,b\n1,2\n1,2\n1,2\n3,\n3,"


def test_a_row_is_a_line_whatever_it_holds() -> None:
    row = {'k,"\n': 'comma, "quote"', "nested": {"x": [1, None], "y": "é"}, "lines": "a\r\nb", "n": 10**30, "f": -0.0}
    text = table([row] * 5)
    assert text is not None
    head, *lines = list(csv.reader(io.StringIO(text)))[1:]
    assert head == ['"k,\\"\\n"', "nested", "lines", "n", "f"]
    assert lines == [['comma, "quote"', '{"x":[1,null],"y":"é"}', '"a\\r\\nb"', "1" + "0" * 30, "-0.0"]] * 5
    assert text.count("\n") == 6


def test_many_dropped_columns_are_counted_not_listed() -> None:
    rows = [{"a": 1, **{f"e{n}": None for n in range(10)}}] * 5
    assert (table(rows) or "").splitlines()[0] == (
        "5 rows × 1 column, 10 columns dropped (always empty): e0, e1, e2, e3, e4, e5, e6, e7, 2 more"
    )


def test_rows_that_are_no_table_are_json_values_line_by_line() -> None:
    header = "items: 3 rows, one JSON value a line\n"
    expected = Body(text=f'{header}{{"a":"x\\ny"}}\n1\n[]', header_chars=len(header), unit="row")
    assert as_lines(Rows(rows=[{"a": "x\ny"}, 1, []], key="items")) == expected
