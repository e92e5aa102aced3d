"""A chat request, checked: messages, tools, and what the reply may be."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from agentrft.data.jsonl import RowFault
from agentrft.data.rows import check_answered, messages_of, tools_of
from agentrft.errors import UserError
from agentrft.runtime.serving.wire import MAX_TOP_LOG_PROBS, ChatRequest
from agentrft.types import Message, ToolSpec

_MAX_STOPS = 4
_PLACE = re.compile(r"`((?:messages|tools)[\w.\[\]]*)`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """What to reply to, and how."""

    messages: tuple[Message, ...]
    tools: tuple[ToolSpec, ...]
    callable: tuple[ToolSpec, ...]
    """Those that the reply may call: none with `tool_choice: none`, one when it names a function."""
    must_call: bool
    strict: bool
    """A tool asks that its calls be held to its schema."""
    one_call: bool
    schema: Mapping[str, Any] | bool | None
    """JSON Schema that an answer has to meet; None for any text."""


def read_conversation(request: ChatRequest) -> Conversation:
    """The request's parts in our words; raises UserError with the field that is wrong."""
    _check_numbers(request)
    try:
        messages = messages_of({"messages": list(request.messages)}, weights=True)
        check_answered(messages)
        tools = tools_of({"tools": list(request.tools)})
    except RowFault as fault:
        found = _PLACE.search(fault.what)
        param = found[1] if found else "messages"
        raise UserError(f"{fault.what}; next step: {fault.step}", param=param) from None
    mode, may_call = _choice(request.tool_choice, tools)
    return Conversation(
        messages=messages,
        tools=tools,
        callable=may_call,
        must_call=mode == "required",
        strict=any(tool["function"].get("strict") for tool in request.tools),
        one_call=not request.parallel_tool_calls,
        schema=_schema(request.response_format),
    )


def _choice(
    choice: Any, tools: tuple[ToolSpec, ...]
) -> tuple[Literal["none", "auto", "required"], tuple[ToolSpec, ...]]:
    if choice in ("none", "auto", "required"):
        if choice == "required" and not tools:
            raise _wrong("tool_choice", "'required' without tools", "tools to choose from", "send `tools`")
        return choice, () if choice == "none" else tools
    function = choice.get("function") if isinstance(choice, Mapping) and choice.get("type") == "function" else None
    if not isinstance(function, Mapping):
        expected = 'none, auto, required, or {"type": "function", "function": {"name": …}}'
        raise _wrong("tool_choice", repr(choice)[:80], expected, "set one of these")
    named = tuple(tool for tool in tools if tool.name == function.get("name"))
    if not named:
        names = ", ".join(tool.name for tool in tools) or "none"
        raise _wrong("tool_choice", f"the function {function.get('name')!r}", f"one of the tools ({names})", "name one")
    return "required", named


def _schema(wanted: Any) -> Mapping[str, Any] | bool | None:
    kind = wanted.get("type") if isinstance(wanted, Mapping) else wanted
    if kind in (None, "text"):
        return None
    if kind == "json_object":
        return {"type": "object"}
    described = wanted.get("json_schema") if kind == "json_schema" and isinstance(wanted, Mapping) else None
    schema = described.get("schema", True) if isinstance(described, Mapping) else None
    if not isinstance(schema, Mapping | bool):
        expected = '{"type": "json_schema", "json_schema": {"name": …, "schema": {…}}}, json_object or text'
        raise _wrong("response_format", repr(wanted)[:80], expected, "set one of these")
    return schema


def _check_numbers(request: ChatRequest) -> None:
    _between("temperature", request.temperature, 0.0, 2.0)
    _between("top_p", request.top_p, 0.0, 1.0)
    _between("top_logprobs", request.top_logprobs, 0, MAX_TOP_LOG_PROBS, whole=True)
    if request.top_logprobs and not request.logprobs:
        raise _wrong("top_logprobs", str(request.top_logprobs), "`logprobs` with it", "set `logprobs` to true")
    if request.max_tokens is not None:
        _between("max_tokens", request.max_tokens, 1, math.inf, whole=True)
    if request.seed is not None:
        _between("seed", request.seed, -(2**63), 2**64, whole=True)
    if len(request.stop) > _MAX_STOPS or not all(isinstance(stop, str) and stop for stop in request.stop):
        got = repr(list(request.stop))[:80]
        raise _wrong("stop", got, f"at most {_MAX_STOPS} strings that are not empty", "send fewer")


def _between(name: str, value: Any, low: float, high: float, *, whole: bool = False) -> None:
    kinds = (int,) if whole else (int, float)
    if not isinstance(value, kinds) or isinstance(value, bool) or not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        limits = f"{low:g} to {high:g}" if high < math.inf else f"{low:g} or more"
        raise _wrong(name, repr(value)[:80], f"{kind}, {limits}", f"mend `{name}`")


def _wrong(param: str, got: str, expected: str, step: str) -> UserError:
    return UserError(f"`{param}` cannot be used: got {got}, expected {expected}; next step: {step}", param=param)
