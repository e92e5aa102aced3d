"""Request bodies, read so that only one reading is possible; what is ambiguous or could blow up later is refused."""

from __future__ import annotations

import json
import math
from typing import Any

from agentrft.server.errors import ApiError

MAX_DEPTH = 100
_MAX_DIGITS = 300


def check_json(body: bytes) -> None:
    """Raises 400 unless the body is JSON text in UTF-8.

    Refused too: a key twice in one object, NaN and numbers beyond a float, half surrogate pairs, nesting deeper than
    `MAX_DEPTH`.
    """
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refused(f"byte {error.start} is not UTF-8; send the body as UTF-8") from None
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_int
        )
    except json.JSONDecodeError as error:
        what = f"{error.msg} at line {error.lineno}, column {error.colno}"
        raise _refused(f"it is not JSON ({what}); mend it there") from None
    except RecursionError:
        raise _too_deep() from None
    _check_depth(value)
    if "\\ud" in text.lower():
        _check_surrogates(value)


def _check_depth(value: Any) -> None:
    containers = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        parts = (part for entry in containers for part in (entry.values() if isinstance(entry, dict) else entry))
        containers = [part for part in parts if isinstance(part, dict | list)]
    if containers:
        raise _too_deep()


def _check_surrogates(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        raise _refused("it holds half a surrogate pair (an escape such as \\ud83d alone); send both halves") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise _refused(f"the key {twice[:100]!r} is given twice in one object; keep one of them")
    return made


def _constant(name: str) -> Any:
    raise _refused(f"{name} is no JSON number; send null, or leave the field out")


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _refused(f"the number {text[:30]} is beyond what a float holds; send it as a string")
    return value


def _int(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _refused(f"a whole number has {len(text)} digits, expected {_MAX_DIGITS} at most; send it as a string")
    return int(text)


def _too_deep() -> ApiError:
    return _refused(f"it is nested deeper than {MAX_DEPTH} levels; flatten it")


def _refused(why: str) -> ApiError:
    return ApiError(400, f"We could not parse the JSON body of your request: {why}", code="invalid_json")
