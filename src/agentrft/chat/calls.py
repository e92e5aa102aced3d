"""Tool calls as JSON text: reading what a model wrote, writing what a demonstration says, and example calls.

Readers raise `Unreadable` with a reason on one line that the model can act on; they never raise anything else,
whatever the text holds (deep nesting, numbers of 10,000 digits, NaN, half surrogate pairs).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentrft.errors import UserError
from agentrft.types import ToolCall, ToolSpec


class Unreadable(Exception):
    """A reply's text is not the call it set out to be; `str()` is the reason, on one line."""


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


# Models put raw line breaks into JSON strings (code, SQL); `strict=False` reads them as meant.
_DECODER = json.JSONDecoder(strict=False, parse_constant=_no_constant)


def read_json(text: str, at: int = 0) -> tuple[Any, int]:
    """The JSON value that starts at `text[at]` and the position after it; raises Unreadable."""
    try:
        value, end = _DECODER.raw_decode(text, at)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise Unreadable(f"{error.msg} at character {error.pos - at + 1} of the JSON") from None
    except UnicodeEncodeError:
        raise Unreadable("the JSON holds half a surrogate pair") from None
    except (ValueError, RecursionError) as error:
        raise Unreadable(one_line(f"the JSON cannot be read ({error})")) from None
    return value, end


def read_call(value: Any, argument_keys: Sequence[str]) -> tuple[str, str]:
    """Name and arguments (JSON text) of one decoded call object; raises Unreadable."""
    if not isinstance(value, dict):
        raise Unreadable(f"a call is a JSON object, got {one_line(json.dumps(value, ensure_ascii=False), 40)}")
    name = value.get("name")
    if not isinstance(name, str) or not name:
        raise Unreadable('the call has no "name"')
    key = next((key for key in argument_keys if key in value), None)
    if key is None:
        raise Unreadable(f'the call of {one_line(name, 40)} has no "{argument_keys[0]}"')
    if not isinstance(value[key], dict):
        raise Unreadable(f'"{key}" of {one_line(name, 40)} is not a JSON object')
    return name, dump(value[key])


def dump(value: Any) -> str:
    """JSON text as every part of agentrft writes it: one line, real characters instead of escapes."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def arguments_of(call: ToolCall) -> dict[str, Any]:
    """The decoded arguments of a demonstrated call; raises UserError when they are not a JSON object."""
    try:
        value, end = read_json(call.arguments)
    except Unreadable as error:
        raise _bad_arguments(call, str(error)) from None
    if not isinstance(value, dict) or call.arguments[end:].strip():
        raise _bad_arguments(call, f"got {one_line(call.arguments, 60)!r}")
    return value


def _bad_arguments(call: ToolCall, why: str) -> UserError:
    return UserError(
        f"the arguments of a demonstrated call of {call.name!r} are not a JSON object: {why}; expected JSON text such "
        'as {"path": "/"}; next step: mend `tool_calls[].function.arguments` in the demonstrations',
        param="data.demonstrations",
        code="invalid_demonstration",
    )


def one_line(text: str, limit: int = 160) -> str:
    """`text` with white space collapsed, cut to `limit` characters."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def numbered(calls: Sequence[tuple[str, str]]) -> tuple[ToolCall, ...]:
    """Parsed (name, arguments) pairs as calls `call_0`, `call_1` …"""
    return tuple(ToolCall(id=f"call_{k}", name=name, arguments=text) for k, (name, text) in enumerate(calls))


def chat_style(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Tool specs as chat completions carry them."""
    return [
        {
            "type": "function",
            "function": {"name": t.name, "description": t.description, "parameters": dict(t.parameters)},
        }
        for t in tools
    ]


def find_tool(name: str, tools: Sequence[ToolSpec]) -> ToolSpec | None:
    return next((tool for tool in tools if tool.name == name), None)


def properties(tool: ToolSpec) -> dict[str, Mapping[str, Any]]:
    """Argument schemas by name, in the order of positional arguments."""
    found = tool.parameters.get("properties", {})
    return {str(k): v if isinstance(v, Mapping) else {} for k, v in found.items()}


def required(tool: ToolSpec) -> frozenset[str]:
    return frozenset(tool.parameters.get("required", ()))


def kind(schema: Mapping[str, Any]) -> str:
    """The JSON type an argument is meant to have; `string` where the schema leaves it open, null branches skipped."""
    for branch in _branches(schema):
        types = branch.get("type")
        for name in types if isinstance(types, list) else [types]:
            if isinstance(name, str) and name != "null":
                return name
        values = branch.get("enum") or ([branch["const"]] if "const" in branch else [])
        for value in values:
            if value is not None:
                return _kind_of(value)
    return "string"


def _branches(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    for key in ("anyOf", "oneOf"):
        for branch in schema.get(key, ()):
            if isinstance(branch, Mapping):
                yield branch


def _kind_of(value: Any) -> str:
    names = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return names.get(type(value), "string")


_BY_KIND: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}


def example_arguments(tool: ToolSpec) -> dict[str, Any]:
    """One valid arguments object of the required arguments, from examples, enums, defaults or the type."""
    needed = required(tool)
    return {name: _example(name, schema) for name, schema in properties(tool).items() if name in needed}


def _example(name: str, schema: Mapping[str, Any]) -> Any:
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    low = schema.get("minimum")
    return low if low is not None else _BY_KIND.get(kind(schema), name)


def example_tool(tools: Sequence[ToolSpec], name: str | None = None) -> ToolSpec | None:
    """The tool an error message shows: the one meant, else the first."""
    return (name and find_tool(name, tools)) or (tools[0] if tools else None)
