"""Preference files: OpenAI's pairs, trajectories in them, rated conversations, and every way to write them wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentrft.data.preferences import read_preferences, read_rated
from agentrft.errors import UserError

USER = {"role": "user", "content": "Where is it?"}
GOOD = {"role": "assistant", "content": "Here."}
BAD = {"role": "assistant", "content": "No idea."}


def call(name: str = "look", arguments: str = '{"at": "here"}', call_id: str = "c") -> dict[str, Any]:
    return {
        "role": "assistant",
        "tool_calls": [{"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}],
    }


RESULT = {"role": "tool", "tool_call_id": "c", "content": "a door"}


def pair(**changes: Any) -> dict[str, Any]:
    return {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]} | changes


def write(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_openais_own_example_is_read(tmp_path):
    row = pair(
        input={
            "messages": [{"role": "developer", "content": "Be short."}, USER],
            "tools": [{"type": "function", "function": {"name": "look", "parameters": {}}}],
            "parallel_tool_calls": True,
        }
    )
    (found,) = read_preferences(write(tmp_path, row))
    assert (found.id, found.line) == ("row-1", 1)
    assert [message.role for message in found.prompt] == ["system", "user"]
    assert [tool.name for tool in found.tools] == ["look"]
    assert [message.content for message in (*found.preferred, *found.rejected)] == ["Here.", "No idea."]


def test_outputs_may_be_trajectories_calls_and_keys_of_ours(tmp_path):
    rows = [
        pair(preferred_output=[call(), RESULT, GOOD], non_preferred_output=[call(arguments='{"at": "there"}')]),
        pair(input={"messages": [USER, call(), RESULT]}, id="after a call", rewards=[1, 0]),
        pair(input={"messages": [USER, BAD, {"role": "user", "content": "Sure?"}], "parallel_tool_calls": None}),
    ]
    first, second, third = read_preferences(write(tmp_path, *rows))
    assert [message.role for message in first.preferred] == ["assistant", "tool", "assistant"]
    assert first.rejected[0].tool_calls[0].arguments == '{"at": "there"}'
    assert (second.id, second.prompt[-1].role) == ("after a call", "tool")
    assert [message.role for message in third.prompt] == ["user", "assistant", "user"]


def test_a_rejected_output_may_call_what_is_not_there(tmp_path):
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    row = pair(input={"messages": [USER], "tools": tools}, non_preferred_output=[call("jump")])
    (found,) = read_preferences(write(tmp_path, row))
    assert found.rejected[0].tool_calls[0].name == "jump"
    row = pair(input={"messages": [USER], "tools": tools}, preferred_output=[call("jump")])
    with pytest.raises(UserError, match="the row calls 'jump', expected one of its tools"):
        list(read_preferences(write(tmp_path, row)))


TWO_CALLS = {"role": "assistant", "tool_calls": [*call()["tool_calls"], *call(call_id="d")["tool_calls"]]}
WRONG: list[tuple[Any, str]] = [
    (pair(input=None), "`input` is null, expected an object"),
    ({"messages": [USER, GOOD]}, "`input` is null, expected an object"),
    (pair(input={}), "got a row with the keys , expected `input.messages`, a list of messages"),
    (pair(input={"messages": [USER], "temperature": 1}), "`input` has the key 'temperature', expected messages"),
    (pair(input={"messages": [USER, GOOD]}), "`input.messages` ends with the assistant"),
    (pair(input={"messages": [USER, call()]}), "`input.messages` ends with the assistant"),
    (pair(input={"messages": [USER, RESULT]}), '`input.messages[1]` answers the call "c", expected one of []'),
    (pair(input={"messages": [USER], "parallel_tool_calls": "no"}), '`input.parallel_tool_calls` is "no"'),
    (
        pair(input={"messages": [USER], "parallel_tool_calls": False}, preferred_output=[TWO_CALLS]),
        "`input.parallel_tool_calls` is false and `preferred_output` makes several calls in one reply",
    ),
    (pair(preferred_output=[]), "got [], expected `preferred_output`, a list of messages"),
    (pair(preferred_output="Here."), 'got "Here.", expected `preferred_output`, a list of messages'),
    (pair(non_preferred_output=None), "got null, expected `non_preferred_output`"),
    (pair(preferred_output=[USER]), "`preferred_output[0].role` is 'user', expected 'assistant'"),
    (pair(preferred_output=[GOOD, BAD]), "`preferred_output[0]` is an answer and 1 message(s) follow"),
    (pair(preferred_output=[call(), RESULT]), "`preferred_output` ends with a tool result"),
    (pair(preferred_output=[call(), GOOD]), "`preferred_output[1]` is from 'assistant', expected the tool's answer"),
    (pair(preferred_output=[{**GOOD, "weight": 0}]), "`preferred_output[0].weight` is 0, expected none"),
    (
        pair(preferred_output=[{"role": "assistant", "content": [{"type": "image_url"}]}]),
        "`preferred_output[0].content",
    ),
    (pair(preferred_output=[call(arguments="[1]")]), "`preferred_output[0].tool_calls[0].function.arguments` is"),
    (pair(non_preferred_output=[GOOD]), "both outputs are the same"),
    (pair(id=True), "`id` is true, expected a string"),
    ({"messages": [USER, GOOD], "desirable": True}, "the row is one rated conversation, expected a pair"),
]


@pytest.mark.parametrize(("row", "what"), WRONG, ids=[what[:40] for _, what in WRONG])
def test_a_wrong_row_is_named_with_its_line(tmp_path, row, what):
    path = write(tmp_path, pair(), row)
    with pytest.raises(UserError) as caught:
        list(read_preferences(path))
    assert caught.value.message.startswith(f"{path}, line 2: {what}"), caught.value.message
    assert "next step: " in caught.value.message
    assert (caught.value.param, caught.value.code) == ("data.preferences", "invalid_row")


def test_an_id_is_taken_once_and_rows_are_read_as_a_stream(tmp_path):
    path = write(tmp_path, pair(id="x"), pair(id="y"), pair(id="x"), "not a row")
    rows = read_preferences(path, param="data.preferences_validation")
    assert [next(rows).id, next(rows).id] == ["x", "y"]
    with pytest.raises(UserError, match="line 3: the id 'x' is taken by line 1") as caught:
        next(rows)
    assert caught.value.param == "data.preferences_validation"


def test_rated_conversations(tmp_path):
    rows = [
        {"messages": [USER, call(), RESULT, GOOD], "desirable": True},
        {"messages": [USER, {**BAD, "weight": 0}, USER, BAD], "desirable": False, "id": 7},
    ]
    good, bad = read_rated(write(tmp_path, *rows))
    assert (good.desirable, good.demonstration.id, good.demonstration.learnt) == (True, "row-1", ())
    assert (bad.desirable, bad.demonstration.id, bad.demonstration.learnt) == (False, "7", (False, True))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"messages": [USER, GOOD]}, "`desirable` is null, expected true or false"),
        ({"messages": [USER, GOOD], "desirable": 1}, "`desirable` is 1, expected true or false"),
        ({"messages": [USER], "desirable": True}, "the demonstration ends with a 'user' message"),
        (pair(), "the row is a pair, expected one conversation"),
    ],
)
def test_a_wrong_rated_row_is_named(tmp_path, row, what):
    path = write(tmp_path, row)
    with pytest.raises(UserError) as caught:
        list(read_rated(path))
    assert caught.value.message.startswith(f"{path}, line 1: {what}"), caught.value.message
