"""The arguments of a call, from the model's JSON."""

from __future__ import annotations

import json
from typing import Any, NoReturn

_MAX_BYTES = 65_536
_MAX_DEPTH = 100


def read_arguments(text: str) -> dict[str, Any] | str:
    """The arguments, or what is wrong with them."""
    if len(text.encode("utf-8", "replace")) > _MAX_BYTES:
        return f"arguments must have {_MAX_BYTES} bytes at most"
    try:
        arguments = json.loads(text, parse_constant=_refuse_number, parse_float=_finite)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        return "arguments must be a JSON object"
    if _is_deeper(arguments, _MAX_DEPTH):
        return f"arguments must be nested {_MAX_DEPTH} deep at most"
    return arguments


def _is_deeper(value: Any, depth: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inside = value.values() if isinstance(value, dict) else value
    return depth == 0 or any(_is_deeper(one, depth - 1) for one in inside)


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        _refuse_number(text)
    return value
