"""Checks across a whole dataset, before a job is accepted: what the grader and the tools expect of every row."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from agentrft.data.splits import content_hash
from agentrft.errors import UserError
from agentrft.types import Item

ItemPath = tuple[str | int, ...]
"""A path below `item`: `("reference", "ports", 0)` is `item.reference.ports[0]`."""


def check_dataset(
    items: Iterable[Item],
    *,
    item_paths: Collection[ItemPath] = (),
    tool_names: Collection[str] | None = None,
    source: str = "the dataset",
    param: str = "data.train",
) -> list[str]:
    """Warnings about `items`; raises UserError with the row's number where one cannot be used.

    `item_paths` are what the grader reads (`agentrft.graders.item_paths`); every row must have them, not null.
    `tool_names` are the tools that the job binds; a row may only name these (None: not known, not checked).
    """
    values: dict[ItemPath, set[str]] = {path: set() for path in item_paths}
    first_line: dict[str, int] = {}
    repeated: list[tuple[int, int]] = []
    count = 0
    for item in items:
        count += 1
        for path, seen in values.items():
            seen.add(json.dumps(_value(item, path, source, param), sort_keys=True))
        if tool_names is not None:
            _check_tools(item, tool_names, source)
        first = first_line.setdefault(content_hash(item), item.line)
        if first != item.line:
            repeated.append((first, item.line))
    warnings = [
        f"{source}: `{show_path(path)}` is the same in all {count} rows, so the grader cannot tell them apart by it"
        for path, seen in values.items()
        if count > 1 and len(seen) == 1
    ]
    if repeated:
        first, again = repeated[0]
        warnings.append(f"{source}: {len(repeated)} rows repeat an earlier one (line {again} repeats line {first})")
    return warnings


def show_path(path: Sequence[str | int]) -> str:
    """`item.reference.ports[0]`, as templates write it."""
    return "item" + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)


def _value(item: Item, path: ItemPath, source: str, param: str) -> Any:
    value: Any = item.fields
    for k, part in enumerate(path):
        value = _step(value, part)
        if value is None:
            got = ", ".join(item.fields) or "none"
            raise UserError(
                f"{source}, line {item.line} (id {item.id!r}): the grader reads `{show_path(path)}`, but this row has "
                f"no `{show_path(path[: k + 1])}` (or it is null); got the keys: {got}; expected it in every row; next "
                "step: add it to the row, or mend the grader's reference",
                param=param,
                code="missing_item_key",
            )
    return value


def _step(value: Any, part: str | int) -> Any:
    if isinstance(part, int):
        inside = isinstance(value, list) and -len(value) <= part < len(value)
        return value[part] if inside else None
    return value.get(part) if isinstance(value, Mapping) else None


def _check_tools(item: Item, tool_names: Collection[str], source: str) -> None:
    for tool in item.tools:
        if tool.name not in tool_names:
            known = ", ".join(sorted(tool_names)) or "none"
            raise UserError(
                f"{source}, line {item.line} (id {item.id!r}): the row describes the tool {tool.name!r}, which the "
                f"job does not bind; expected one of: {known}; next step: bind it in `agent.tools`, or remove it from "
                "the row",
                param="agent.tools",
                code="unknown_tool",
            )
