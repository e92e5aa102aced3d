"""Tool calls as JSON text: reading what a model wrote, writing what a demonstration says, and example calls.

Readers raise `Unreadable` with a reason on one line that the model can act on; they never raise anything else,
whatever the text holds (deep nesting, numbers of 10,000 digits, NaN, half surrogate pairs).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from agentrft.errors import UserError
from agentrft.types import Message, ToolCall, ToolSpec


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
    """The decoded arguments of a call in a row; raises UserError when they are not a JSON object."""
    text = call.arguments.strip()
    try:
        value, end = read_json(text)
    except Unreadable as error:
        raise _bad_arguments(call, str(error)) from None
    if not isinstance(value, dict) or end < len(text):
        raise _bad_arguments(call, f"got {one_line(text, 60)!r}")
    return value


def _bad_arguments(call: ToolCall, why: str) -> UserError:
    return UserError(
        f"the arguments of a call of {call.name!r} are not a JSON object: {why}; expected JSON text such as "
        '{"path": "/"}; next step: mend `tool_calls[].function.arguments` in the row',
        param="data",
        code="invalid_demonstration",
    )


def inexpressible(format_name: str, got: str, expected: str, step: str) -> UserError:
    """The error for a reply that a format cannot write so that it reads it back as meant.

    The reply is a demonstrated one or an earlier turn of an item; whoever read the row knows its file and line.
    """
    return UserError(
        f"the {format_name} format cannot write this assistant reply: got {got}, expected {expected}; "
        f"next step: {step}",
        param="data",
        code="invalid_demonstration",
    )


def check_anchored(format_name: str, message: Message, text: str, reads_as_call: bool) -> None:
    """Raise UserError for a reply that a format misreads because a reply's start alone says whether it is a call."""
    shown = one_line(text, 40)
    if message.tool_calls and text:
        got, expected, step = f"text beside a call ({shown!r})", "a call alone", "remove the text from the row"
        raise inexpressible(format_name, got, expected, step)
    if reads_as_call:
        got, expected = f"an answer that reads as a call ({shown})", "a call in `tool_calls`, or another answer"
        raise inexpressible(format_name, got, expected, "change the row")


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


def kinds(schema: Mapping[str, Any]) -> tuple[str, ...]:
    """The JSON types an argument may have, in the schema's order; `string` alone where the schema leaves it open."""
    found: list[str] = []
    for branch in _branches(schema):
        types = branch.get("type")
        named = [name for name in (types if isinstance(types, list) else [types]) if isinstance(name, str)]
        values = branch.get("enum") or ([branch["const"]] if "const" in branch else [])
        found += named or [_KINDS.get(type(value), "string") for value in values]
    return tuple(dict.fromkeys(found)) or ("string",)


def _branches(schema: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield schema
    for key in ("anyOf", "oneOf"):
        for branch in schema.get(key, ()):
            if isinstance(branch, Mapping):
                yield from _branches(branch)


_KINDS = {bool: "boolean", int: "integer", float: "number", list: "array", dict: "object", type(None): "null"}


_BY_KIND: dict[str, Any] = {"integer": 1, "number": 1.5, "boolean": True, "array": [], "object": {}}


def example_arguments(tool: ToolSpec) -> dict[str, Any]:
    """One valid arguments object of the required arguments, from examples, enums, defaults or the type."""
    needed = required(tool)
    return {name: example(name, schema) for name, schema in properties(tool).items() if name in needed}


def example(name: str, schema: Mapping[str, Any]) -> Any:
    """One valid value of an argument; the argument's name where any string will do."""
    for key in ("examples", "enum"):
        if schema.get(key):
            return schema[key][0]
    for key in ("const", "default"):
        if schema.get(key) is not None:
            return schema[key]
    low = schema.get("minimum")
    kind = next((kind for kind in kinds(schema) if kind != "null"), "string")
    return low if low is not None else _BY_KIND.get(kind, name)


def example_tool(tools: Sequence[ToolSpec], name: str | None = None) -> ToolSpec | None:
    """The tool an error message shows: the one meant, else the first."""
    return (name and find_tool(name, tools)) or (tools[0] if tools else None)
