"""A tool's JSON: read so that writing it again loses nothing, and projected to the parts that the model needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from agentrft.tools.output.clean import OutputFlag
from agentrft.tools.output.spec import JsonPath, ProjectSpec

_MAX_DEPTH = 64
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
_EMPTY: tuple[Any, ...] = (None, "", [], {})


class CannotRead(Exception):
    """The text is no JSON that can be read and written again; `flag` says why."""

    def __init__(self, flag: OutputFlag) -> None:
        super().__init__(flag.value)
        self.flag = flag


def read_json(text: str) -> Any:
    """The value. NaN and Infinity, which many tools write, are taken.

    Raises CannotRead for what is no JSON, numbers beyond what Python reads or a float holds, a key given twice, and
    nesting deeper than 64 levels.
    """
    # A first look spares ordinary text the parser; a lone number, string or word has no parts to choose from.
    if text.lstrip()[:1] not in ("{", "["):
        raise CannotRead(OutputFlag.NOT_JSON)
    try:
        value = json.loads(text, parse_float=_finite, object_pairs_hook=_unique)
    except RecursionError:
        raise CannotRead(OutputFlag.TOO_DEEP) from None
    except ValueError:
        raise CannotRead(OutputFlag.NOT_JSON) from None
    if _is_deep(value):
        raise CannotRead(OutputFlag.TOO_DEEP)
    return value


def compact(value: Any) -> str:
    """JSON without spaces."""
    return _COMPACT.encode(value)


def map_strings(value: Any, change: Callable[[str], str]) -> Any:
    """`value` with every string changed, keys too. Raises CannotRead when two keys become one."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list):
        return [map_strings(element, change) for element in value]
    if isinstance(value, dict):
        return _unique([(change(key), map_strings(field, change)) for key, field in value.items()])
    return value


def project(value: Any, spec: ProjectSpec) -> tuple[Any, tuple[OutputFlag, ...]]:
    """The parts of `value` that `spec` asks for.

    Elements that no `keep` path reaches go, and the list closes up. What would leave nothing at all leaves `value`.
    """
    flags: tuple[OutputFlag, ...] = ()
    if spec.keep:
        kept = _keep(value, [_segments(path) for path in spec.keep])
        if kept is _NOTHING:
            # An error in place of the usual answer: hiding it would leave the model with `{}`.
            flags = (OutputFlag.KEPT_NOTHING,)
        else:
            value = kept
    if spec.drop:
        value = _drop(value, [_segments(path) for path in spec.drop])
    if spec.drop_empty:
        smaller = _without_empty(value)
        value = value if smaller in _EMPTY else smaller
    return value, flags


_NOTHING = object()
_Paths = Sequence[Sequence[str]]


def _segments(path: JsonPath) -> Sequence[str]:
    return path.split(".") if isinstance(path, str) else path


def _beyond(paths: _Paths, name: str) -> list[Sequence[str]]:
    """What is left of the paths that lead through `name`."""
    return [path[1:] for path in paths if path[0] in ("*", name)]


def _keep(value: Any, paths: _Paths) -> Any:
    if any(not path for path in paths):
        return value
    if isinstance(value, dict):
        fields = {key: _keep(field, _beyond(paths, key)) for key, field in value.items()}
        return {key: field for key, field in fields.items() if field is not _NOTHING} or _NOTHING
    if isinstance(value, list):
        elements = (_keep(element, _beyond(paths, str(n))) for n, element in enumerate(value))
        return [element for element in elements if element is not _NOTHING] or _NOTHING
    return _NOTHING


def _drop(value: Any, paths: _Paths) -> Any:
    if not paths:
        return value
    if isinstance(value, dict):
        fields = ((key, field, _beyond(paths, key)) for key, field in value.items())
        return {key: _drop(field, ahead) for key, field, ahead in fields if all(ahead)}
    if isinstance(value, list):
        elements = ((element, _beyond(paths, str(n))) for n, element in enumerate(value))
        return [_drop(element, ahead) for element, ahead in elements if all(ahead)]
    return value


def _without_empty(value: Any) -> Any:
    if isinstance(value, dict):
        fields = {key: _without_empty(field) for key, field in value.items()}
        return {key: field for key, field in fields.items() if field not in _EMPTY}
    if isinstance(value, list):
        return [_without_empty(element) for element in value]
    return value


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise CannotRead(OutputFlag.NOT_JSON)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise CannotRead(OutputFlag.DUPLICATE_KEYS)
    return fields


def _is_deep(value: Any) -> bool:
    """Whether it nests deeper than the limit: level by level, so that it needs no stack itself."""
    level = [value]
    for _ in range(_MAX_DEPTH + 1):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True
