"""Rows as OpenAI sends them."""

from __future__ import annotations

from agentrft.net.wire import item_object
from agentrft.types import Item, Message, ToolCall, ToolSpec

SCHEMA = {"type": "object", "properties": {}}


def test_a_row():
    call = ToolCall(id="call_1", name="ls", arguments="{}")
    item = Item(
        id="row-7",
        messages=(
            Message(role="user", content="q"),
            Message(role="assistant", tool_calls=(call,)),
            Message(role="tool", content="a", tool_call_id="call_1"),
        ),
        tools=(ToolSpec(name="ls", description="List.", parameters=SCHEMA),),
        fields={"answer": 4, "nested": {"a": [None]}},
    )
    calls = [{"id": "call_1", "type": "function", "function": {"name": "ls", "arguments": "{}"}}]
    assert item_object(item) == {
        "id": "row-7",
        "answer": 4,
        "nested": {"a": [None]},
        "parallel_tool_calls": True,
        "messages": [
            {"name": None, "role": "user", "content": "q"},
            {"name": None, "role": "assistant", "content": None, "tool_calls": calls},
            {"name": None, "role": "tool", "content": "a", "tool_call_id": "call_1"},
        ],
        "tools": [{"type": "function", "function": {"name": "ls", "description": "List.", "parameters": SCHEMA}}],
    }


def test_nulls_and_the_rows_own_words():
    item = Item(id="r", messages=(), fields={"parallel_tool_calls": False, "tools": "mine", "id": "other"})
    assert item_object(item) == {"id": "r", "messages": [], "parallel_tool_calls": False, "tools": None}
