"""Dataset rows in OpenAI's shapes → `Item` and `Demonstration`.

Reinforcement rows: `messages`, optional `tools` and `id`; every other key is the item's own (`item.<key>`).
Demonstration rows: `messages` with the assistant's `tool_calls` and the `tool` messages that answer them, up to the
assistant's final answer; optional `tools` and `id`; other keys are not used. `developer` is read as `system`.
Text only: images and audio are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from agentrft.data.jsonl import RowFault, read_objects, row_error
from agentrft.errors import UserError
from agentrft.types import Item, Message, Role, ToolCall, ToolSpec

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_MESSAGE_KEYS = frozenset({"role", "content", "tool_calls", "tool_call_id", "name", "weight", "refusal"})
_RESERVED = frozenset({"messages", "tools", "id"})
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """One recorded conversation to imitate: every assistant message in it is a reply to learn."""

    id: str
    messages: tuple[Message, ...]
    """Ends with the assistant's final answer."""
    tools: tuple[ToolSpec, ...] = ()
    line: int = 0
    """Line in the source file, 1-based; 0 when made in memory."""


def read_items(path: Path, *, param: str = "data.train") -> Iterator[Item]:
    """Items of a reinforcement file, one by one; raises UserError at the first bad row and for repeated ids."""
    lines_by_id: dict[str, int] = {}
    for line, row in read_objects(path, param):
        try:
            item = _item(row, line)
            _claim_id(lines_by_id, item.id, line)
        except RowFault as fault:
            raise row_error(path, line, fault, param) from None
        yield item


def read_demonstrations(path: Path, *, param: str = "data.demonstrations") -> Iterator[Demonstration]:
    """Demonstrations of a supervised file, one by one; raises UserError as `read_items` does."""
    lines_by_id: dict[str, int] = {}
    for line, row in read_objects(path, param):
        try:
            messages = messages_of(row)
            _check_conversation(messages)
            demonstration = Demonstration(id=_id(row, line), messages=messages, tools=_tools(row), line=line)
            _check_names(demonstration)
            _claim_id(lines_by_id, demonstration.id, line)
        except RowFault as fault:
            raise row_error(path, line, fault, param) from None
        yield demonstration


def item_from_row(row: Mapping[str, Any], *, line: int = 0, param: str = "item") -> Item:
    """One reinforcement row that is already decoded; raises UserError."""
    try:
        return _item(row, line)
    except RowFault as fault:
        raise UserError(f"{fault.what}; next step: {fault.step}", param=param, code="invalid_row") from None


def _item(row: Mapping[str, Any], line: int) -> Item:
    messages = messages_of(row)
    if messages[-1].role not in ("user", "system"):
        raise RowFault(
            f"the last message is from {messages[-1].role!r}, expected 'user': the agent speaks next",
            "end `messages` with the user's question (answers belong into other keys, or into demonstrations)",
        )
    _check_answered(messages)
    fields = {key: value for key, value in row.items() if key not in _RESERVED}
    return Item(id=_id(row, line), messages=messages, tools=_tools(row), fields=fields, line=line)


def _id(row: Mapping[str, Any], line: int) -> str:
    value = row.get("id")
    if value is None:
        return f"row-{line}"
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RowFault(f"`id` is {_show(value)}, expected a string or a whole number", "mend `id` or leave it out")
    return str(value)


def _claim_id(lines_by_id: dict[str, int], id_: str, line: int) -> None:
    if id_ in lines_by_id:
        raise RowFault(
            f"the id {id_!r} is taken by line {lines_by_id[id_]}, expected a different id in every row",
            "rename one, or leave `id` out (the line number is used)",
        )
    lines_by_id[id_] = line


# ----------------------------------------------------------------------------------------------------------- messages


def messages_of(row: Mapping[str, Any]) -> tuple[Message, ...]:
    """`row["messages"]`; raises RowFault."""
    value = row.get("messages")
    if not isinstance(value, list) or not value:
        known = ", ".join(map(repr, list(row)[:6]))
        got = _show(value) if "messages" in row else f"a row with the keys {known}"
        raise RowFault(f"got {got}, expected `messages`, a list of messages", 'add "messages": [{"role": "user", …}]')
    return tuple(_message(entry, f"messages[{k}]") for k, entry in enumerate(value))


def _message(value: Any, at: str) -> Message:
    if not isinstance(value, dict):
        raise RowFault(f"`{at}` is {_show(value)}, expected an object with `role` and `content`", "mend the message")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RowFault(f"`{at}.role` is {_show(role)}, expected one of {', '.join(_ROLES)}", f"mend `{at}.role`")
    for key in value:
        if key not in _MESSAGE_KEYS and value[key]:
            expected = "role, content, tool_calls, tool_call_id"
            raise RowFault(f"`{at}` has the key {key!r}, expected {expected}", f"remove `{at}.{key}`")
    if value.get("weight", 1) not in (1, None):
        raise RowFault(
            f"`{at}.weight` is {_show(value['weight'])}, expected 1: every assistant message is learnt",
            "remove the weight, or end the demonstration before that message",
        )
    calls = calls_of(value.get("tool_calls"), f"{at}.tool_calls")
    if calls and role != "assistant":
        raise RowFault(f"`{at}.tool_calls` stands on a {role!r} message, expected 'assistant'", "mend the role")
    call_id = value.get("tool_call_id")
    if (role == "tool") != isinstance(call_id, str):
        raise RowFault(
            f"`{at}.tool_call_id` is {_show(call_id)} on a {role!r} message, expected a string on 'tool' messages only",
            f"mend `{at}.tool_call_id`",
        )
    content = _content(value.get("content"), at)
    if content is None and not calls:
        raise RowFault(f"`{at}.content` is {_show(value.get('content'))}, expected a string", f"mend `{at}.content`")
    return Message(role=cast(Role, _ROLES[role]), content=content, tool_calls=calls, tool_call_id=call_id)


def _content(value: Any, at: str) -> str | None:
    """Text of a message: a string, or OpenAI's list of text parts."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise RowFault(f"`{at}.content` is {_show(value)}, expected a string", f"mend `{at}.content`")
    texts: list[str] = []
    for k, part in enumerate(value):
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise RowFault(
                f"`{at}.content[{k}]` is {_show(kind)}, expected a text part: only text can be trained here",
                "leave images and audio out",
            )
        texts.append(text)
    return "".join(texts)


def calls_of(value: Any, at: str) -> tuple[ToolCall, ...]:
    """Tool calls in OpenAI's shape, `at` their place for errors; raises RowFault."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowFault(f"`{at}` is {_show(value)}, expected a list", f"mend `{at}`")
    return tuple(_call(entry, f"{at}[{k}]") for k, entry in enumerate(value))


def _call(value: Any, at: str) -> ToolCall:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(value.get("id"), str):
        shape = '{"id": "call_1", "type": "function", "function": {"name": …, "arguments": …}}'
        raise RowFault(f"`{at}` is {_show(value)}, expected {shape}", f"mend `{at}`")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        raise RowFault(f"`{at}.function.name` is {_show(name)}, expected a tool's name", f"mend `{at}.function.name`")
    try:
        decoded = json.loads(arguments) if isinstance(arguments, str) else None
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(arguments, str) or not isinstance(decoded, dict):
        raise RowFault(
            f"`{at}.function.arguments` is {_show(arguments)}, expected a string that holds a JSON object",
            'write the arguments as text, such as "{\\"path\\": \\"/\\"}"',
        )
    return ToolCall(id=value["id"], name=name, arguments=arguments)


def _check_conversation(messages: Sequence[Message]) -> None:
    """Every call is answered and the assistant has the last word."""
    _check_answered(messages)
    if messages[-1].role != "assistant" or messages[-1].tool_calls:
        got = "a tool call" if messages[-1].tool_calls else f"a {messages[-1].role!r} message"
        raise RowFault(
            f"the demonstration ends with {got}, expected the assistant's final answer",
            "add the final assistant message",
        )


def _check_answered(messages: Sequence[Message]) -> None:
    """Every call is answered once, right after its reply."""
    waiting: list[str] = []
    for k, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                raise RowFault(
                    f"`messages[{k}]` answers the call {_show(message.tool_call_id)}, expected one of {waiting}",
                    "put each tool message right after the reply that made its call, with the same id",
                )
            waiting.remove(message.tool_call_id)
            continue
        if waiting:
            raise RowFault(
                f"`messages[{k}]` is from {message.role!r}, expected the tool's answer to {waiting[0]!r}",
                "add the missing tool message",
            )
        waiting = [call.id for call in message.tool_calls]


def _check_names(demonstration: Demonstration) -> None:
    names = {tool.name for tool in demonstration.tools}
    for message in demonstration.messages:
        for call in message.tool_calls:
            if names and call.name not in names:
                raise RowFault(
                    f"the demonstration calls {call.name!r}, expected one of its tools {sorted(names)}",
                    "add the tool to the row's `tools`, or mend the call",
                )


# -------------------------------------------------------------------------------------------------------------- tools


def _tools(row: Mapping[str, Any]) -> tuple[ToolSpec, ...]:
    value = row.get("tools")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowFault(f"`tools` is {_show(value)}, expected a list", "mend `tools`")
    made = tuple(_tool(entry, f"tools[{k}]") for k, entry in enumerate(value))
    names = [tool.name for tool in made]
    for name in names:
        if names.count(name) > 1:
            raise RowFault(f"`tools` names {name!r} twice, expected different names", "remove one of them")
    return made


def _tool(value: Any, at: str) -> ToolSpec:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict):
        shape = '{"type": "function", "function": {"name": …, "description": …, "parameters": …}}'
        raise RowFault(f"`{at}` is {_show(value)}, expected {shape}", f"mend `{at}`")
    name = function.get("name")
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise RowFault(
            f"`{at}.function.name` is {_show(name)}, expected 1 to 64 letters, digits, '_', '.' or '-'",
            f"mend `{at}.function.name`",
        )
    # OpenAI reads a function without `parameters` as one that takes none.
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(parameters, dict) or not isinstance(parameters.get("properties", {}), dict):
        raise RowFault(
            f"`{at}.function.parameters` is {_show(parameters)}, expected the JSON Schema of an object",
            'write {"type": "object", "properties": {…}, "required": […]}',
        )
    description = function.get("description") or ""
    if not isinstance(description, str):
        raise RowFault(f"`{at}.function.description` is {_show(description)}, expected a string", f"mend `{at}`")
    return ToolSpec(name=name, description=description, parameters=parameters)


def _show(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
