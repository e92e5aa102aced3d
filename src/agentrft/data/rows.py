"""Dataset rows in OpenAI's shapes → `Item` and `Demonstration`.

Reinforcement rows: `messages`, optional `tools` and `id`; every other key is the item's own (`item.<key>`).
Demonstration rows: `messages` with the assistant's `tool_calls` and the `tool` messages that answer them, up to a
reply of the assistant's, its answer or a call; optional `tools` and `id`; other keys are not used. An assistant message
with `weight: 0` is shown and not learnt. `developer` is read as `system`. Text only: images and audio are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from agentrft.data.jsonl import RowFault, read_objects, row_error
from agentrft.errors import UserError
from agentrft.types import Item, Message, Role, ToolCall, ToolSpec

T = TypeVar("T")

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_MESSAGE_KEYS = frozenset({"role", "content", "tool_calls", "tool_call_id", "name", "weight", "refusal"})
_RESERVED = frozenset({"messages", "tools", "id"})
_TOOL_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """One recorded conversation to imitate."""

    id: str
    messages: tuple[Message, ...]
    """Ends with a reply of the assistant's."""
    tools: tuple[ToolSpec, ...] = ()
    learnt: tuple[bool, ...] = ()
    """For each assistant message, in order, whether it is a reply to learn (`weight`); empty when all are."""
    line: int = 0
    """Line in the source file, 1-based; 0 when made in memory."""


def read_items(path: Path, *, param: str = "data.train") -> Iterator[Item]:
    """Items of a reinforcement file, one by one; raises UserError at the first bad row and for repeated ids."""
    return read_rows(path, param, _item)


def read_demonstrations(path: Path, *, param: str = "data.demonstrations") -> Iterator[Demonstration]:
    """Demonstrations of a supervised file, one by one; raises UserError as `read_items` does."""
    return read_rows(path, param, demonstration_of)


def read_rows(path: Path, param: str, made_of: Callable[[Mapping[str, Any], int], T]) -> Iterator[T]:
    """What `made_of` makes of each row and its line; raises UserError for its RowFaults, and as `read_items` does."""
    lines_by_id: dict[str, int] = {}
    for line, row in read_objects(path, param):
        try:
            made = made_of(row, line)
            _claim_id(lines_by_id, id_of(row, line), line)
        except RowFault as fault:
            raise row_error(path, line, fault, param) from None
        yield made


def item_from_row(row: Mapping[str, Any], *, line: int = 0, param: str = "item") -> Item:
    """One reinforcement row that is already decoded; raises UserError."""
    try:
        return _item(row, line)
    except RowFault as fault:
        raise UserError(f"{fault.what}; next step: {fault.step}", param=param, code="invalid_row") from None


def demonstration_of(row: Mapping[str, Any], line: int) -> Demonstration:
    """One supervised row that is already decoded; raises RowFault."""
    messages = messages_of(row, weights=True)
    _check_conversation(messages)
    tools = tools_of(row)
    check_names(messages, tools)
    return Demonstration(id=id_of(row, line), messages=messages, tools=tools, learnt=_learnt(row), line=line)


def _learnt(row: Mapping[str, Any]) -> tuple[bool, ...]:
    learnt = tuple(message.get("weight") != 0 for message in row["messages"] if message["role"] == "assistant")
    if not any(learnt):
        raise RowFault("every assistant message has `weight` 0, expected one to learn", "give one the weight 1")
    return () if all(learnt) else learnt


def _item(row: Mapping[str, Any], line: int) -> Item:
    messages = messages_of(row)
    if messages[-1].role not in ("user", "system"):
        raise RowFault(
            f"the last message is from {messages[-1].role!r}, expected 'user': the agent speaks next",
            "end `messages` with the user's question (answers belong into other keys, or into demonstrations)",
        )
    check_answered(messages)
    fields = {key: value for key, value in row.items() if key not in _RESERVED}
    return Item(id=id_of(row, line), messages=messages, tools=tools_of(row), fields=fields, line=line)


def id_of(row: Mapping[str, Any], line: int) -> str:
    """The row's own `id`, else `row-<line>`; raises RowFault."""
    value = row.get("id")
    if value is None:
        return f"row-{line}"
    if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
        raise RowFault(f"`id` is {show(value)}, expected a string or a whole number", "mend `id` or leave it out")
    return str(value)


def _claim_id(lines_by_id: dict[str, int], id_: str, line: int) -> None:
    """Note the id; raises RowFault when an earlier line has it."""
    if id_ in lines_by_id:
        raise RowFault(
            f"the id {id_!r} is taken by line {lines_by_id[id_]}, expected a different id in every row",
            "rename one, or leave `id` out (the line number is used)",
        )
    lines_by_id[id_] = line


# ----------------------------------------------------------------------------------------------------------- messages


def messages_of(
    row: Mapping[str, Any], key: str = "messages", *, inside: str = "", weights: bool = False
) -> tuple[Message, ...]:
    """`row[key]`, a list of messages, of the object `inside`; raises RowFault. With `weights` a `weight` may be 0."""
    value, at = row.get(key), f"{inside}{key}"
    if not isinstance(value, list) or not value:
        known = ", ".join(map(repr, list(row)[:6]))
        got = show(value) if key in row else f"a row with the keys {known}"
        raise RowFault(f"got {got}, expected `{at}`, a list of messages", f'add "{key}": [{{"role": "user", …}}]')
    return tuple(_message(entry, f"{at}[{k}]", weights) for k, entry in enumerate(value))


def _message(value: Any, at: str, weights: bool) -> Message:
    if not isinstance(value, dict):
        raise RowFault(f"`{at}` is {show(value)}, expected an object with `role` and `content`", "mend the message")
    role = value.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise RowFault(f"`{at}.role` is {show(role)}, expected one of {', '.join(_ROLES)}", f"mend `{at}.role`")
    for key in value:
        if key not in _MESSAGE_KEYS and value[key]:
            expected = "role, content, tool_calls, tool_call_id"
            raise RowFault(f"`{at}` has the key {key!r}, expected {expected}", f"remove `{at}.{key}`")
    _check_weight(value, at, weights)
    calls = calls_of(value.get("tool_calls"), f"{at}.tool_calls")
    if calls and role != "assistant":
        raise RowFault(f"`{at}.tool_calls` stands on a {role!r} message, expected 'assistant'", "mend the role")
    call_id = value.get("tool_call_id")
    if (role == "tool") != isinstance(call_id, str):
        raise RowFault(
            f"`{at}.tool_call_id` is {show(call_id)} on a {role!r} message, expected a string on 'tool' messages only",
            f"mend `{at}.tool_call_id`",
        )
    content = _content(value.get("content"), at)
    if content is None and not calls:
        raise RowFault(f"`{at}.content` is {show(value.get('content'))}, expected a string", f"mend `{at}.content`")
    return Message(role=cast(Role, _ROLES[role]), content=content, tool_calls=calls, tool_call_id=call_id)


def _check_weight(message: Mapping[str, Any], at: str, weights: bool) -> None:
    weight = message.get("weight", 1)
    if weight is None or (weight == 1 and not isinstance(weight, bool)):
        return
    if not weights:
        raise RowFault(f"`{at}.weight` is {show(weight)}, expected none: only demonstrations have them", "remove it")
    if message["role"] != "assistant" or weight != 0 or isinstance(weight, bool):
        raise RowFault(
            f"`{at}.weight` is {show(weight)} on a {message['role']!r} message, expected 0 or 1, on assistant's",
            f"mend `{at}.weight`",
        )


def _content(value: Any, at: str) -> str | None:
    """Text of a message: a string, or OpenAI's list of text parts."""
    if value is None or isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise RowFault(f"`{at}.content` is {show(value)}, expected a string", f"mend `{at}.content`")
    texts: list[str] = []
    for k, part in enumerate(value):
        text = part.get("text") if isinstance(part, dict) else None
        if not isinstance(text, str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise RowFault(
                f"`{at}.content[{k}]` is {show(kind)}, expected a text part: only text can be trained here",
                "leave images and audio out",
            )
        texts.append(text)
    return "".join(texts)


def calls_of(value: Any, at: str) -> tuple[ToolCall, ...]:
    """Tool calls in OpenAI's shape, `at` their place for errors; raises RowFault."""
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowFault(f"`{at}` is {show(value)}, expected a list", f"mend `{at}`")
    return tuple(_call(entry, f"{at}[{k}]") for k, entry in enumerate(value))


def _call(value: Any, at: str) -> ToolCall:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict) or not isinstance(value.get("id"), str):
        shape = '{"id": "call_1", "type": "function", "function": {"name": …, "arguments": …}}'
        raise RowFault(f"`{at}` is {show(value)}, expected {shape}", f"mend `{at}`")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        raise RowFault(f"`{at}.function.name` is {show(name)}, expected a tool's name", f"mend `{at}.function.name`")
    try:
        decoded = json.loads(arguments) if isinstance(arguments, str) else None
    except (ValueError, RecursionError):
        decoded = None
    if not isinstance(arguments, str) or not isinstance(decoded, dict):
        raise RowFault(
            f"`{at}.function.arguments` is {show(arguments)}, expected a string that holds a JSON object",
            'write the arguments as text, such as "{\\"path\\": \\"/\\"}"',
        )
    return ToolCall(id=value["id"], name=name, arguments=arguments)


def _check_conversation(messages: Sequence[Message]) -> None:
    """Every call is answered, but those of the last message: what it teaches is to make them."""
    check_answered(messages)
    if messages[-1].role != "assistant":
        raise RowFault(
            f"the demonstration ends with a {messages[-1].role!r} message, expected one of the assistant's",
            "add the final assistant message",
        )


def check_answered(messages: Sequence[Message], at: str = "messages") -> None:
    """Raise RowFault unless every call is answered once, right after its reply; those of the last message may wait."""
    waiting: list[str] = []
    for k, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in waiting:
                raise RowFault(
                    f"`{at}[{k}]` answers the call {show(message.tool_call_id)}, expected one of {waiting}",
                    "put each tool message right after the reply that made its call, with the same id",
                )
            waiting.remove(message.tool_call_id)
            continue
        if waiting:
            raise RowFault(
                f"`{at}[{k}]` is from {message.role!r}, expected the tool's answer to {waiting[0]!r}",
                "add the missing tool message",
            )
        waiting = [call.id for call in message.tool_calls]


def check_names(messages: Sequence[Message], tools: Sequence[ToolSpec]) -> None:
    """Raise RowFault for a call of a tool that the row does not describe, where it describes any."""
    names = {tool.name for tool in tools}
    for message in messages:
        for call in message.tool_calls:
            if names and call.name not in names:
                raise RowFault(
                    f"the row calls {call.name!r}, expected one of its tools {sorted(names)}",
                    "add the tool to the row's `tools`, or mend the call",
                )


# -------------------------------------------------------------------------------------------------------------- tools


def tools_of(row: Mapping[str, Any]) -> tuple[ToolSpec, ...]:
    """`row["tools"]` in OpenAI's shape, empty when there are none; raises RowFault."""
    value = row.get("tools")
    if value is None:
        return ()
    if not isinstance(value, list):
        raise RowFault(f"`tools` is {show(value)}, expected a list", "mend `tools`")
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
        raise RowFault(f"`{at}` is {show(value)}, expected {shape}", f"mend `{at}`")
    name = function.get("name")
    if not isinstance(name, str) or not _TOOL_NAME.fullmatch(name):
        raise RowFault(
            f"`{at}.function.name` is {show(name)}, expected 1 to 64 letters, digits, '_', '.' or '-'",
            f"mend `{at}.function.name`",
        )
    # OpenAI reads a function without `parameters` as one that takes none.
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(parameters, dict) or not isinstance(parameters.get("properties", {}), dict):
        raise RowFault(
            f"`{at}.function.parameters` is {show(parameters)}, expected the JSON Schema of an object",
            'write {"type": "object", "properties": {…}, "required": […]}',
        )
    description = function.get("description") or ""
    if not isinstance(description, str):
        raise RowFault(f"`{at}.function.description` is {show(description)}, expected a string", f"mend `{at}`")
    return ToolSpec(name=name, description=description, parameters=parameters)


def show(value: Any) -> str:
    """The value as JSON, cut to what a message has room for."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"
