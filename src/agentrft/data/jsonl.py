"""JSON Lines, read as a stream, every fault named by file and line.

A UTF-8 byte-order mark and blank lines are skipped. Refused, because something later would silently differ: NaN and
numbers beyond a float's range, a key written twice in one object, half surrogate pairs, nesting deeper than 100.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agentrft.errors import UserError

MAX_ROW_BYTES = 64_000_000
_MAX_DEPTH = 100


class RowFault(Exception):
    """What is wrong with one row, without its place: `what` (got and expected) and the next `step`."""

    def __init__(self, what: str, step: str) -> None:
        super().__init__(what)
        self.what = what
        self.step = step


def row_error(path: Path, line: int, fault: RowFault, param: str) -> UserError:
    """`fault` with its place."""
    message = f"{path}, line {line}: {fault.what}; next step: {fault.step}"
    return UserError(message, param=param, code="invalid_row")


def read_objects(path: Path, param: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and decoded object of every row; raises UserError at the first row that is not one."""
    found = False
    with _open(path, param) as file:
        line = 0
        while raw := file.readline(MAX_ROW_BYTES + 1):
            line += 1
            if line == 1:
                raw = raw.removeprefix(codecs.BOM_UTF8)
            if not raw.strip():
                continue
            try:
                value = _decode(raw)
            except RowFault as fault:
                raise row_error(path, line, fault, param) from None
            found = True
            yield line, value
    if not found:
        raise UserError(
            f"{path} holds no rows; expected one JSON object a line; next step: write at least one row, or point "
            f"`{param}` at another file",
            param=param,
            code="empty_file",
        )


def _open(path: Path, param: str) -> Any:
    try:
        return path.open("rb")
    except OSError as error:
        why = {FileNotFoundError: "no such file", IsADirectoryError: "it is a folder"}
        raise UserError(
            f"cannot read {path}: {why.get(type(error), error.strerror)}; expected a JSONL file; next step: check "
            f"`{param}` (paths are relative to the job file)",
            param=param,
            code="file_not_found",
        ) from None


def _decode(raw: bytes) -> dict[str, Any]:
    if len(raw) > MAX_ROW_BYTES:
        raise RowFault(f"the row is longer than {MAX_ROW_BYTES} bytes", "split the row, or move large texts into tools")
    try:
        text = raw.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise RowFault(
            f"not UTF-8: got byte 0x{raw[error.start]:02x} at position {error.start + 1}, expected UTF-8 text",
            "save the file as UTF-8",
        ) from None
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
    except json.JSONDecodeError as error:
        around = text[max(0, error.pos - 20) : error.pos + 20]
        raise RowFault(
            f"not JSON: {error.msg} at column {error.pos + 1}, got {around!r}, expected one JSON object",
            "mend the line (one whole object a line, double quotes, no trailing commas)",
        ) from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(value, dict):
        raise RowFault(f"got a JSON {_kind(value)}, expected an object", "write each row as {...}")
    _check_depth(value)
    if "\\ud" in text.lower():
        _check_surrogates(value)
    return value


def _check_depth(value: Any, depth: int = 0) -> None:
    if depth > _MAX_DEPTH:
        raise _too_deep()
    if isinstance(value, dict | list):
        for entry in value.values() if isinstance(value, dict) else value:
            _check_depth(entry, depth + 1)


def _too_deep() -> RowFault:
    return RowFault(f"the row is nested deeper than {_MAX_DEPTH} levels", "flatten it")


def _check_surrogates(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise RowFault(
            "got half a surrogate pair (an escape such as \\ud83d alone), expected whole characters",
            "write the file again with the characters themselves, or with both halves",
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise RowFault(f"got the key {twice!r} twice in one object, expected it once", "remove one of them")
    return made


def _constant(name: str) -> Any:
    raise RowFault(f"got {name}, expected a finite number", "write null, or leave the key out")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise RowFault(f"got the number {text[:30]}, expected one within a float's range", "write it as a string")
    return value


def _integer(text: str) -> int:
    if len(text) > 300:
        raise RowFault(f"got a whole number of {len(text)} digits, expected 300 at most", "write it as a string")
    return int(text)


def _kind(value: Any) -> str:
    names = {list: "list", str: "string", bool: "boolean", type(None): "null"}
    return names.get(type(value), "number")
