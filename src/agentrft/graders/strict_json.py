"""What a judge or an endpoint answers, read so that only one reading is possible.

A field given twice, NaN, infinities and floats too large for one are refused: which of two verdicts is meant would be a
guess, and the others are no numbers to learn from.
"""

from __future__ import annotations

import json
import math
from typing import Any


def read_object(text: str | bytes) -> dict[str, Any]:
    """The JSON object that the whole text is; raises ValueError that says, in few words, why it is none."""
    try:
        read = json.loads(text, object_pairs_hook=_once_each, parse_constant=_refused, parse_float=_finite)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"no JSON from character {error.pos + 1} on") from None
    except UnicodeDecodeError:
        raise ValueError("no Unicode") from None
    if not isinstance(read, dict):
        raise ValueError("no JSON object")
    return read


def number_in(read: dict[str, Any], field: str) -> float:
    """The finite number in a field; raises ValueError for everything else, true and "1" included."""
    if field not in read:
        raise ValueError(f"no `{field}`")
    value = read[field]
    if type(value) not in (int, float):
        raise ValueError(f"`{field}` is no number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"`{field}` is too large for a float") from None


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field given twice")
    return fields


def _refused(name: str) -> Any:
    raise ValueError(f"{name[:20]} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refused(text)
