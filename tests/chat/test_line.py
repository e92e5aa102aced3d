"""The line format by example: what a reply may look like, and what the model is told when it does not."""

from __future__ import annotations

import pytest

from agentrft.chat import LineFormat
from agentrft.chat.line import tool_line
from agentrft.errors import UserError
from agentrft.types import Message, ToolCall, ToolSpec


@pytest.fixture(scope="module")
def line(smollm2) -> LineFormat:
    return LineFormat(smollm2)


def _read(line: LineFormat, text: str, tools: list[ToolSpec]) -> tuple[Message, str | None]:
    return line.parse([*line.tokenizer.encode(text), 2], tools)


@pytest.mark.parametrize(
    ("text", "name", "arguments"),
    [
        ("ls /", "ls", '{"path": "/"}'),
        ("grep port /apps", "grep", '{"text": "port", "path": "/apps"}'),
        ("  grep   port   /apps  ", "grep", '{"text": "port", "path": "/apps"}'),
        # a last string argument takes the rest of the line as it is
        ("cat /a file  with spaces", "cat", '{"path": "/a file  with spaces"}'),
        ('cat "quoted" end', "cat", '{"path": "\\"quoted\\" end"}'),
        # unless all of it is one quoted string
        ('cat "/a b"', "cat", '{"path": "/a b"}'),
        ('grep "two words" /', "grep", '{"text": "two words", "path": "/"}'),
        ("convert 3 km", "convert", '{"value": 3, "unit": "km"}'),
        ("convert -2.5e3 km 4 TRUE", "convert", '{"value": -2500.0, "unit": "km", "digits": 4, "exact": true}'),
    ],
)
def test_call_lines(line, tools, text, name, arguments):
    message, malformed = _read(line, text, tools)
    assert malformed is None
    assert message == Message(role="assistant", tool_calls=(ToolCall(id="call_0", name=name, arguments=arguments),))


@pytest.mark.parametrize(
    ("text", "content"),
    [("Answer: 8080", "8080"), ("Answer:8080", "8080"), (" Answer: a\nb ", "a\nb"), ("Answer:", "")],
)
def test_answers(line, tools, text, content):
    assert _read(line, text, tools) == (Message(role="assistant", content=content), None)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "",
            "empty reply; expected one line ls PATH | cat PATH | grep TEXT PATH | convert VALUE UNIT [DIGITS] [EXACT]",
        ),
        ("answer: 3", "no tool named 'answer:'; expected one line ls PATH"),
        ("ls a\nls b", "more than one line; expected ls PATH, for example: ls path"),
        ("grep port", "PATH missing; expected grep TEXT PATH, for example: grep text path"),
        ("convert", "VALUE UNIT missing; expected convert VALUE UNIT [DIGITS] [EXACT], for example: convert 1.5 unit"),
        ("convert many km", "VALUE must be a number, got many"),
        ("convert 1e999 km", "VALUE must be a number, got 1e999"),
        ("convert nan km", "VALUE must be a number, got nan"),
        ("convert 1 km 2.5", "DIGITS must be an integer, got 2.5"),
        ("convert 1 km 2 yes", "EXACT must be a boolean, got yes"),
        ("convert 1 km 2 true more", "convert takes 4 argument(s), got more"),
        ('grep "open /', "Unterminated string starting at at character 1 of the JSON"),
        ('grep "a"b /', "no space after TEXT"),
    ],
)
def test_unreadable_replies_say_what_is_expected(line, tools, text, reason):
    message, malformed = _read(line, text, tools)
    assert malformed is not None
    assert malformed.startswith(reason)
    assert "expected" in malformed
    assert "\n" not in malformed
    assert message.content == text.strip()


def test_lists_and_objects_are_json(line):
    tool = ToolSpec(
        name="put",
        description="",
        parameters={
            "properties": {"rows": {"type": "array"}, "options": {"type": "object"}},
            "required": ["rows", "options"],
        },
    )
    message, malformed = _read(line, 'put [1, "b c"] {"k": null}', [tool])
    assert malformed is None
    assert message.tool_calls[0].arguments == '{"rows": [1, "b c"], "options": {"k": null}}'
    assert _read(line, 'put {"a": 1} {}', [tool])[1].startswith('ROWS must be an array, got {"a": 1}')


def test_a_nullable_argument_has_its_other_type(line):
    tool = ToolSpec(
        name="top",
        description="",
        parameters={"properties": {"n": {"anyOf": [{"type": "integer"}, {"type": "null"}]}}, "required": []},
    )
    assert _read(line, "top 5", [tool])[0].tool_calls[0].arguments == '{"n": 5}'
    assert _read(line, "top", [tool])[0].tool_calls[0].arguments == "{}"


def test_prompt_layout(line, tools):
    ids = line.prompt(
        [Message(role="system", content="Answer questions about files."), Message(role="user", content="Which port?")],
        tools[:3],
    )
    assert line.decode(ids) == (
        "<|im_start|>system\nAnswer questions about files.\nTools:\nls PATH: list a folder\ncat PATH: print a file\n"
        "grep TEXT PATH: print lines under PATH that contain TEXT\n"
        'Reply with one tool line, or with "Answer: value".<|im_end|>\n'
        "<|im_start|>user\nWhich port?<|im_end|>\n<|im_start|>assistant\n"
    )
    assert ids.count(1) == 3
    assert ids.count(2) == 2


def test_tool_line_shows_optional_arguments_and_the_first_paragraph():
    tool = ToolSpec(
        name="find",
        description="Find a thing\nquickly.\n\nMore words.",
        parameters={"properties": {"what": {"type": "string"}, "limit": {"type": "integer"}}, "required": ["what"]},
    )
    assert tool_line(tool) == "find WHAT [LIMIT]: Find a thing quickly"


def test_a_default_fills_the_gap_before_a_later_argument(line, tools):
    call = ToolCall(id="x", name="convert", arguments='{"value": 1, "unit": "km", "exact": true}')
    ids = line.reply(Message(role="assistant", tool_calls=(call,)), tools)
    assert line.decode(ids) == "convert 1 km 2 true<|im_end|>"


@pytest.mark.parametrize(
    ("message", "got"),
    [
        (
            Message(
                role="assistant",
                tool_calls=(
                    ToolCall(id="a", name="ls", arguments='{"path": "/"}'),
                    ToolCall(id="b", name="ls", arguments='{"path": "/"}'),
                ),
            ),
            "2 calls in one reply",
        ),
        (
            Message(role="assistant", content="hm", tool_calls=(ToolCall(id="a", name="ls", arguments="{}"),)),
            "text beside a call",
        ),
        (Message(role="assistant", tool_calls=(ToolCall(id="a", name="rm", arguments="{}"),)), "a call of 'rm'"),
        (
            Message(role="assistant", tool_calls=(ToolCall(id="a", name="ls", arguments='{"dir": 1}'),)),
            "ls with 'dir'",
        ),
        (
            Message(role="assistant", tool_calls=(ToolCall(id="a", name="grep", arguments='{"path": "/"}'),)),
            "grep without 'text'",
        ),
    ],
)
def test_replies_that_a_line_cannot_carry_are_refused(line, tools, message, got):
    with pytest.raises(UserError, match="line format cannot write this assistant reply: got") as caught:
        line.reply(message, tools)
    assert got in caught.value.message
    assert "next step: change the row" in caught.value.message
    assert (caught.value.code, caught.value.param) == ("invalid_demonstration", "data")


@pytest.mark.parametrize("arguments", ["", "[1]", '{"path": NaN}', '{"path": "\\ud800"}', "{}x", "[" * 100_000])
def test_arguments_in_rows_must_be_a_json_object(line, tools, arguments):
    call = ToolCall(id="a", name="ls", arguments=arguments)
    with pytest.raises(UserError, match="arguments of a call of 'ls' are not a JSON object"):
        line.reply(Message(role="assistant", tool_calls=(call,)), tools)


def test_white_space_around_arguments_in_rows_is_json_too(line, tools):
    call = ToolCall(id="a", name="ls", arguments='\n {"path": "/"} ')
    assert line.decode(line.reply(Message(role="assistant", tool_calls=(call,)), tools)) == "ls /<|im_end|>"


def test_an_unreadable_call_shows_an_example_even_where_an_optional_argument_comes_first(line, make_spec):
    tool = make_spec("put", required=("b",), a={"type": "integer"}, b={"type": "string"})
    assert _read(line, "put", [tool])[1] == "B missing; expected put [A] B, for example: put 1 b"
