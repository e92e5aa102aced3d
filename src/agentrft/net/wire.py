"""Rows and messages as OpenAI sends them to tools and endpoint graders."""

from __future__ import annotations

from typing import Any

from agentrft.types import Item, Message, ToolCall, ToolSpec


def item_object(item: Item) -> dict[str, Any]:
    """The whole row: every field, `tools` and each message's `name` null where the row has none.

    Services must bear nulls; OpenAI's rows arrive like this, `parallel_tool_calls` included.
    """
    return {
        "parallel_tool_calls": True,
        **item.fields,
        "id": item.id,
        "messages": [{"name": None, **message_object(message)} for message in item.messages],
        "tools": [_tool(spec) for spec in item.tools] or None,
    }


def message_object(message: Message) -> dict[str, Any]:
    """A message as chat completions carry it."""
    shown: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.role == "assistant":
        shown["tool_calls"] = [call_object(call) for call in message.tool_calls]
    if message.role == "tool":
        shown["tool_call_id"] = message.tool_call_id
    return shown


def call_object(call: ToolCall) -> dict[str, Any]:
    """A tool call as chat completions carry it."""
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def _tool(spec: ToolSpec) -> dict[str, Any]:
    function = {"name": spec.name, "description": spec.description, "parameters": dict(spec.parameters)}
    return {"type": "function", "function": function}
