"""Rows from files: what is read, and what a user is told about line 17."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrft.data.jsonl import MAX_ROW_BYTES, read_objects
from agentrft.data.rows import item_from_row, read_demonstrations, read_items
from agentrft.errors import UserError
from agentrft.types import Message, ToolCall, ToolSpec

_GOOD = '{"messages": [{"role": "user", "content": "q"}]}'
_CALL = {"id": "c1", "type": "function", "function": {"name": "ls", "arguments": '{"path": "/"}'}}


def _write(folder: Path, *lines: str | bytes) -> Path:
    path = folder / "train.jsonl"
    path.write_bytes(b"\n".join(line.encode() if isinstance(line, str) else line for line in lines) + b"\n")
    return path


def _row(**change: object) -> str:
    return json.dumps({"messages": [{"role": "user", "content": "q"}], **change})


def _demonstration(*messages: dict, **more: object) -> str:
    return json.dumps({"messages": list(messages), **more})


USER = {"role": "user", "content": "q"}
CALLS = {"role": "assistant", "content": None, "tool_calls": [_CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "a"}
ANSWER = {"role": "assistant", "content": "done"}


def test_every_other_key_is_a_field_of_the_item(tmp_path):
    tool = {"type": "function", "function": {"name": "ls", "description": "List.", "parameters": {"type": "object"}}}
    path = _write(
        tmp_path,
        json.dumps(
            {
                "messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": "q"}],
                "tools": [tool],
                "answer": 7,
                "parallel_tool_calls": True,
            }
        ),
        "",
        _row(id="b"),
        _row(id=12),
    )
    first, second, third = read_items(path)
    assert first.id == "row-1"
    assert first.line == 1
    assert first.messages == (Message(role="system", content="s"), Message(role="user", content="q"))
    assert first.tools == (ToolSpec(name="ls", description="List.", parameters={"type": "object"}),)
    assert first.fields == {"answer": 7, "parallel_tool_calls": True}
    assert (second.id, second.line) == ("b", 3)
    assert third.id == "12"


def test_reading_is_a_stream(tmp_path):
    path = _write(tmp_path, _GOOD, "broken")
    rows = read_items(path)
    assert next(rows).line == 1
    with pytest.raises(UserError):
        next(rows)


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "w.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + _GOOD.encode() + b"\r\n" + _GOOD.encode())
    assert [item.line for item in read_items(path)] == [1, 2]


def test_text_parts_are_joined(tmp_path):
    parts = [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]
    item = item_from_row({"messages": [{"role": "user", "content": parts}]})
    assert item.messages[0].content == "ab"


def test_a_tool_without_parameters_takes_none(tmp_path):
    item = item_from_row({"messages": [USER], "tools": [{"type": "function", "function": {"name": "now"}}]})
    assert item.tools[0].parameters == {"type": "object", "properties": {}}


BAD_ROWS = [
    ('{"messages": [', "not JSON: Expecting value at column 15, got"),
    ("[1]", "got a JSON list, expected an object"),
    ('"x"', "got a JSON string, expected an object"),
    (b'{"a": "\xff"}', "not UTF-8: got byte 0xff at position 8, expected UTF-8 text"),
    (_GOOD.encode("utf-16"), "not UTF-8: got byte 0xff at position 1"),
    ('{"messages": [], "x": NaN}', "got NaN, expected a finite number"),
    ('{"messages": [], "x": -Infinity}', "got -Infinity, expected a finite number"),
    ('{"messages": [], "x": 1e999}', "got the number 1e999, expected one within a float's range"),
    ('{"messages": [], "x": ' + "9" * 5000 + "}", "got a whole number of 5000 digits, expected 300 at most"),
    ('{"x": 1, "x": 2}', "got the key 'x' twice in one object"),
    ('{"x": "\\ud83d"}', "got half a surrogate pair"),
    ('{"x": ' + "[" * 101 + "]" * 101 + "}", "nested deeper than 100 levels"),
    ('{"x": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested deeper than 100 levels"),
    ('{"question": "q"}', "got a row with the keys 'question', expected `messages`"),
    ('{"messages": "q"}', 'got "q", expected `messages`, a list of messages'),
    (_row(messages=["q"]), '`messages[0]` is "q", expected an object'),
    (
        _row(messages=[{"role": "usr", "content": "q"}]),
        '`messages[0].role` is "usr", expected one of system',
    ),
    (_row(messages=[{"role": [], "content": "q"}]), "`messages[0].role` is [], expected one of"),
    (_row(messages=[{"role": "user", "content": 3}]), "`messages[0].content` is 3, expected a string"),
    (_row(messages=[{"role": "user", "content": None}]), "`messages[0].content` is null, expected a string"),
    (_row(messages=[{"role": "user", "content": "q", "audio": {"id": 1}}]), "`messages[0]` has the key 'audio'"),
    (
        _row(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
        '`messages[0].content[0]` is "image_url", expected a text part',
    ),
    (_row(messages=[USER, ANSWER]), "the last message is from 'assistant', expected 'user'"),
    (_row(messages=[{**USER, "tool_calls": [_CALL]}]), "`messages[0].tool_calls` stands on a 'user' message"),
    (_row(messages=[{"role": "tool", "content": "x"}, USER]), "`messages[0].tool_call_id` is null on a 'tool' message"),
    (_row(messages=[USER, CALLS, USER]), "`messages[2]` is from 'user', expected the tool's answer to 'c1'"),
    (_row(messages=[USER, CALLS, RESULT, RESULT, USER]), '`messages[3]` answers the call "c1", expected one of []'),
    (_row(messages=[{**USER, "tool_call_id": "c"}]), "`messages[0].tool_call_id` is \"c\" on a 'user' message"),
    (_row(id=""), '`id` is "", expected a string or a whole number'),
    (_row(id=True), "`id` is true, expected"),
    (_row(tools={}), "`tools` is {}, expected a list"),
    (_row(tools=["ls"]), '`tools[0]` is "ls", expected {"type": "function"'),
    (_row(tools=[{"function": {"name": "a b"}}]), '`tools[0].function.name` is "a b", expected 1 to 64 letters'),
    (_row(tools=[{"function": {"name": "a", "parameters": "x"}}]), "`tools[0].function.parameters` is"),
    (_row(tools=[{"function": {"name": "a", "description": 1}}]), "`tools[0].function.description` is 1"),
    (_row(tools=[{"function": {"name": "a"}}] * 2), "`tools` names 'a' twice"),
]


@pytest.mark.parametrize(("bad", "what"), BAD_ROWS, ids=[what[:40] for _, what in BAD_ROWS])
def test_a_bad_line_17_is_named_with_what_was_got_and_the_next_step(tmp_path, bad, what):
    path = _write(tmp_path, *[_GOOD] * 16, bad, _GOOD)
    with pytest.raises(UserError) as caught:
        list(read_items(path, param="data.validation"))
    assert caught.value.message.startswith(f"{path}, line 17: ")
    assert what in caught.value.message
    assert "; next step: " in caught.value.message
    assert caught.value.param == "data.validation"
    assert caught.value.code == "invalid_row"
    assert len(caught.value.message) < 500


def test_repeated_ids_name_both_lines(tmp_path):
    path = _write(tmp_path, _row(id="row-2"), _GOOD)
    with pytest.raises(UserError, match=r"line 2: the id 'row-2' is taken by line 1, expected a different id"):
        list(read_items(path))


def test_a_row_longer_than_the_limit_is_refused(tmp_path):
    path = tmp_path / "long.jsonl"
    path.write_bytes(b'{"x": "' + b"a" * MAX_ROW_BYTES + b'"}\n')
    with pytest.raises(UserError, match="line 1: the row is longer than 64000000 bytes"):
        list(read_items(path))


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path, content):
    path = tmp_path / "empty.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match="holds no rows; expected one JSON object a line; next step") as caught:
        list(read_items(path))
    assert caught.value.code == "empty_file"


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"cannot read .*gone.jsonl: no such file; .*next step: check `data.test`"):
        list(read_items(tmp_path / "gone.jsonl", param="data.test"))
    with pytest.raises(UserError, match="it is a folder"):
        list(read_items(tmp_path))


@given(content=st.binary(max_size=200))
@settings(max_examples=200, deadline=None, derandomize=True, database=None)
def test_any_bytes_give_rows_or_a_user_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    path.write_bytes(content)
    with contextlib.suppress(UserError):
        for line, row in read_objects(path, "data.train"):
            assert line >= 1
            assert isinstance(row, dict)


def test_demonstrations(tmp_path):
    path = _write(tmp_path, _demonstration(USER, CALLS, RESULT, ANSWER, extra="not used"))
    (demonstration,) = read_demonstrations(path)
    assert demonstration.id == "row-1"
    assert demonstration.line == 1
    assert demonstration.messages == (
        Message(role="user", content="q"),
        Message(role="assistant", tool_calls=(ToolCall(id="c1", name="ls", arguments='{"path": "/"}'),)),
        Message(role="tool", content="a", tool_call_id="c1"),
        Message(role="assistant", content="done"),
    )


def test_replies_of_weight_0_are_shown_and_not_learnt(tmp_path):
    path = _write(
        tmp_path,
        _demonstration(USER, {**ANSWER, "weight": 0}, USER, {**ANSWER, "weight": 1}),
        _demonstration(USER, {**ANSWER, "weight": None}, USER, ANSWER),
    )
    assert [one.learnt for one in read_demonstrations(path)] == [(False, True), ()]


def test_a_demonstration_may_end_with_a_call(tmp_path):
    (one,) = read_demonstrations(_write(tmp_path, _demonstration(USER, CALLS)))
    assert one.messages[-1].tool_calls


def test_an_item_has_no_weights(tmp_path):
    path = _write(tmp_path, _row(messages=[USER, {**ANSWER, "weight": 0}, USER]))
    with pytest.raises(UserError, match=r"`messages\[1\].weight` is 0, expected none: only demonstrations have them"):
        list(read_items(path))


BAD_DEMONSTRATIONS = [
    ([USER], "the demonstration ends with a 'user' message, expected one of the assistant's"),
    ([USER, CALLS, ANSWER], "`messages[2]` is from 'assistant', expected the tool's answer to 'c1'"),
    ([USER, RESULT, ANSWER], '`messages[1]` answers the call "c1", expected one of []'),
    ([USER, CALLS, RESULT, RESULT, ANSWER], '`messages[3]` answers the call "c1", expected one of []'),
    ([USER, {**ANSWER, "weight": 0}], "every assistant message has `weight` 0, expected one to learn"),
    ([USER, {**ANSWER, "weight": 0.5}], "`messages[1].weight` is 0.5 on a 'assistant' message, expected 0 or 1"),
    ([USER, {**ANSWER, "weight": True}], "`messages[1].weight` is true on a 'assistant' message"),
    ([{**USER, "weight": 0}, ANSWER], "`messages[0].weight` is 0 on a 'user' message"),
    ([USER, {"role": "assistant"}], "`messages[1].content` is null, expected a string"),
    ([USER, {**CALLS, "tool_calls": "ls"}], '`messages[1].tool_calls` is "ls", expected a list'),
    ([USER, {**CALLS, "tool_calls": [{"name": "ls"}]}], "`messages[1].tool_calls[0]` is"),
]


@pytest.mark.parametrize(("messages", "what"), BAD_DEMONSTRATIONS, ids=[what[:40] for _, what in BAD_DEMONSTRATIONS])
def test_bad_demonstrations(tmp_path, messages, what):
    path = _write(tmp_path, _demonstration(USER, ANSWER), _demonstration(*messages))
    with pytest.raises(UserError) as caught:
        list(read_demonstrations(path))
    assert caught.value.message.startswith(f"{path}, line 2: {what}")
    assert caught.value.param == "data.demonstrations"


@pytest.mark.parametrize(
    ("function", "what"),
    [
        ({"name": "", "arguments": "{}"}, "function.name` is"),
        ({"name": "ls", "arguments": {"path": "/"}}, 'function.arguments` is {"path": "/"}, expected a string'),
        ({"name": "ls", "arguments": "[]"}, 'function.arguments` is "[]", expected a string that holds a JSON object'),
        ({"name": "ls", "arguments": "[" * 100_000}, "function.arguments` is"),
    ],
)
def test_bad_calls(tmp_path, function, what):
    call = {**CALLS, "tool_calls": [{"id": "c1", "function": function}]}
    with pytest.raises(UserError) as caught:
        list(read_demonstrations(_write(tmp_path, _demonstration(USER, call, RESULT, ANSWER))))
    assert what in caught.value.message


def test_a_demonstration_may_only_call_its_own_tools(tmp_path):
    path = _write(
        tmp_path, _demonstration(USER, CALLS, RESULT, ANSWER, tools=[{"type": "function", "function": {"name": "cat"}}])
    )
    with pytest.raises(UserError, match=r"calls 'ls', expected one of its tools \['cat'\]"):
        list(read_demonstrations(path))


def test_a_row_in_memory_is_refused_without_a_place():
    with pytest.raises(UserError) as caught:
        item_from_row({})
    assert caught.value.message.startswith("got a row with the keys , expected `messages`")
    assert caught.value.param == "item"
