"""Lists of JSON objects as rows, one a line: CSV or Markdown with a one-line header, or one JSON value a line."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from typing import Any

from agentrft.tools.output.document import compact
from agentrft.tools.output.fit import Body
from agentrft.tools.output.spec import TableFormat

_MIN_ROWS = 5
_MIN_SHARED_FRAC = 0.8
_MAX_NAMES_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """A list, and the object around it."""

    rows: list[Any]
    key: str | None = None
    """Where it was in the object; None when the list was all there was."""
    rest: str = ""
    """The object's other fields, compact JSON; empty when there are none."""


def find_rows(value: Any) -> Rows | None:
    """The list that `value` is, or the only list among the fields of the object that it is."""
    if isinstance(value, list):
        return Rows(rows=value)
    if not isinstance(value, dict):
        return None
    lists = [key for key, field in value.items() if isinstance(field, list)]
    if len(lists) != 1:
        return None
    key = lists[0]
    rest = {name: field for name, field in value.items() if name != key}
    return Rows(rows=value[key], key=key, rest=compact(rest) if rest else "")


def as_table(found: Rows, format: TableFormat) -> Body | None:
    """The rows as a table, or None for fewer than 5 rows, or rows that share less than 80 % of their keys.

    Shared is the part of cells that are there, of all keys times all rows. Columns without any value are dropped and
    named. A missing, null or empty cell is empty; a cell that is nested, or has a line break, is compact JSON.
    """
    rows = found.rows
    if len(rows) < _MIN_ROWS or not all(isinstance(row, dict) for row in rows):
        return None
    every = dict.fromkeys(key for row in rows for key in row)
    if not every or sum(len(row) for row in rows) < _MIN_SHARED_FRAC * len(every) * len(rows):
        return None
    filled = {key: any(row.get(key) not in (None, "") for row in rows) for key in every}
    columns = [key for key in every if filled[key]]
    if not columns:
        return None
    write = _write_csv if format == "csv" else _write_markdown
    cells = ([_cell(row.get(key)) for key in columns] for row in rows)
    head, lines = write([_cell(key) for key in columns], cells)
    about = _about(len(rows), len(columns), [key for key in every if not filled[key]])
    return _body(found, about, head, lines)


def as_lines(found: Rows) -> Body:
    """The rows as compact JSON, one a line."""
    lines = "\n".join(compact(row) for row in found.rows)
    return _body(found, f"{len(found.rows)} rows, one JSON value a line", "", lines)


def _body(found: Rows, about: str, head: str, lines: str) -> Body:
    name = "" if found.key is None else f"{_cell(found.key)}: "
    header = "".join(f"{line}\n" for line in (found.rest, name + about, head) if line)
    return Body(text=header + lines, header_chars=len(header), unit="row")


def _about(n_rows: int, n_columns: int, dropped: list[str]) -> str:
    text = f"{n_rows} rows × {_columns(n_columns)}"
    if not dropped:
        return text
    names = [_cell(name) for name in dropped[:_MAX_NAMES_SHOWN]]
    if len(dropped) > _MAX_NAMES_SHOWN:
        names.append(f"{len(dropped) - _MAX_NAMES_SHOWN} more")
    return f"{text}, {_columns(len(dropped))} dropped (always empty): {', '.join(names)}"


def _columns(count: int) -> str:
    return "1 column" if count == 1 else f"{count} columns"


def _cell(value: Any) -> str:
    """The value on one line: a row is a line, whatever it holds."""
    if value is None:
        return ""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False) if "\n" in value or "\r" in value else value
    return compact(value)


def _write_csv(columns: list[str], rows: Any) -> tuple[str, str]:
    head, lines = io.StringIO(), io.StringIO()
    csv.writer(head, lineterminator="\n").writerow(columns)
    csv.writer(lines, lineterminator="\n").writerows(rows)
    return head.getvalue().removesuffix("\n"), lines.getvalue().removesuffix("\n")


def _write_markdown(columns: list[str], rows: Any) -> tuple[str, str]:
    head = f"{_markdown_line(columns)}\n{_markdown_line(['---'] * len(columns))}"
    return head, "\n".join(_markdown_line(row) for row in rows)


def _markdown_line(cells: list[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
