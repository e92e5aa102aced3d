"""Hermes, Llama 3 and Mistral by example: what counts as a call, and what the model is told when it is unreadable."""

from __future__ import annotations

import pytest

from agentrft.chat import HermesFormat, Llama3Format, MistralFormat
from agentrft.chat.tokens import FastTokenizer, Mark, Piece, encode_pieces
from agentrft.errors import UserError
from agentrft.types import Message, ToolCall, ToolResult

_LS = '{"name": "ls", "arguments": {"path": "/"}}'
_CALL = ToolCall(id="call_0", name="ls", arguments='{"path": "/"}')
_OTHER = ToolCall(id="call_1", name="cat", arguments='{"path": "/a"}')


@pytest.fixture(scope="module")
def hermes(tokenizers_by_family) -> HermesFormat:
    """With `<tool_call>` as a control token."""
    return HermesFormat(tokenizers_by_family["qwen"])


@pytest.fixture(scope="module")
def hermes_text(tokenizers_by_family) -> HermesFormat:
    """Without: the grammar is anchored at the reply's start."""
    return HermesFormat(tokenizers_by_family["chatml"])


@pytest.fixture(scope="module")
def llama3(tokenizers_by_family) -> Llama3Format:
    return Llama3Format(tokenizers_by_family["llama3"])


@pytest.fixture(scope="module")
def mistral(tokenizers_by_family) -> MistralFormat:
    return MistralFormat(tokenizers_by_family["mistral"])


def _ids(tokenizer: FastTokenizer, *pieces: Piece) -> list[int]:
    return encode_pieces(tokenizer, pieces)


OPEN, CLOSE, END = Mark("<tool_call>"), Mark("</tool_call>"), Mark("<|im_end|>")


def test_hermes_reads_parallel_calls_and_the_text_before_them(hermes, tools):
    other = '{"name": "cat", "arguments": {"path": "/a"}}'
    ids = _ids(hermes.tokenizer, "Look.\n", OPEN, f"\n{_LS}\n", CLOSE, "\n", OPEN, other, CLOSE, END)
    message, malformed = hermes.parse(ids, tools)
    assert malformed is None
    assert message == Message(role="assistant", content="Look.", tool_calls=(_CALL, _OTHER))
    again = hermes.reply(message, tools)
    assert hermes.parse(again, tools)[0] == message


def test_hermes_ignores_call_text_that_is_not_the_control_token(hermes, tools):
    text = f"The file says <tool_call>{_LS}</tool_call>"
    assert hermes.parse(_ids(hermes.tokenizer, text, END), tools) == (Message(role="assistant", content=text), None)


def test_hermes_without_control_tokens_reads_calls_only_at_the_start(hermes_text, tools):
    quoted = f"It says <tool_call>{_LS}</tool_call>"
    assert hermes_text.parse(_ids(hermes_text.tokenizer, quoted, END), tools)[0].tool_calls == ()
    real = f'<tool_call>\n{_LS}\n</tool_call>\n<tool_call>{{"name": "cat", "arguments": {{"path": "/a"}}}}</tool_call>'
    message, malformed = hermes_text.parse(_ids(hermes_text.tokenizer, real, END), tools)
    assert malformed is None
    assert message.tool_calls == (_CALL, _OTHER)


def test_hermes_arguments_may_hold_the_closing_tag(hermes_text, tools):
    call = ToolCall(id="call_0", name="ls", arguments='{"path": "</tool_call>"}')
    message = Message(role="assistant", tool_calls=(call,))
    assert hermes_text.parse(hermes_text.reply(message, tools), tools) == (message, None)


def test_hermes_reads_over_a_leading_thought(hermes, tools):
    ids = _ids(hermes.tokenizer, Mark("<think>"), "\nhm\n", Mark("</think>"), "\n\nDone.", END)
    assert hermes.parse(ids, tools) == (Message(role="assistant", content="Done."), None)
    demonstrated = Message(role="assistant", content="<think>\nhm\n</think>\n\nDone.")
    assert hermes.reply(demonstrated, tools) == ids


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("{", "Expecting property name enclosed in double quotes at character 2 of the JSON"),
        ("ls /", "Expecting value at character 1 of the JSON"),
        ('{"arguments": {}}', 'the call has no "name"'),
        ('{"name": "ls"}', 'the call of ls has no "arguments"'),
        ('{"name": "ls", "arguments": "/"}', '"arguments" of ls is not a JSON object'),
        ("[1]", "a call is a JSON object, got [1]"),
        (f"{_LS} {_LS}", "text after the JSON"),
        ('{"name": "ls", "arguments": {"path": NaN}}', "the JSON cannot be read (NaN is not JSON)"),
        ('{"name": "ls", "arguments": {"path": 1e999}}', "the JSON cannot be read"),
        ('{"name": "ls", "arguments": {"path": ' + "9" * 5000 + "}}", "the JSON cannot be read"),
        ('{"name": "ls", "arguments": {"path": "\\ud800"}}', "the JSON holds half a surrogate pair"),
        ("[" * 100_000, "the JSON cannot be read"),
    ],
)
def test_hermes_unreadable_calls_say_why_and_show_a_valid_one(hermes, tools, body, reason):
    message, malformed = hermes.parse(_ids(hermes.tokenizer, OPEN, body, CLOSE, END), tools)
    assert message.tool_calls == ()
    assert malformed is not None
    assert malformed.startswith(f"unreadable call: {reason}")
    assert malformed.endswith('expected <tool_call>{"name": "ls", "arguments": {"path": "path"}}</tool_call>')
    assert "\n" not in malformed


def test_hermes_call_without_its_end_is_unreadable(hermes, hermes_text, tools):
    assert "</tool_call> is missing" in hermes.parse(_ids(hermes.tokenizer, OPEN, _LS, END), tools)[1]
    text = _ids(hermes_text.tokenizer, f"<tool_call>{_LS}", END)
    assert "</tool_call> is missing" in hermes_text.parse(text, tools)[1]


def test_hermes_results_of_one_reply_share_a_block(hermes):
    outputs = [ToolResult(call_id="call_0", output="a"), ToolResult(call_id="call_1", output="b")]
    assert hermes.decode(hermes.results(outputs)) == (
        "\n<|im_start|>user\n<tool_response>\na\n</tool_response>\n<tool_response>\nb\n</tool_response><|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_llama3_reads_bare_json_and_answers_that_are_json(llama3, tools):
    t = llama3.tokenizer
    call = '{"name": "ls", "parameters": {"path": "/"}}'
    expected = Message(role="assistant", tool_calls=(_CALL,))
    for pieces in ([call], [f" {call}\n"], [Mark("<|python_tag|>"), call], [_LS]):
        assert llama3.parse(_ids(t, *pieces, Mark("<|eot_id|>")), tools) == (expected, None)
    assert llama3.parse(_ids(t, call, Mark("<|eom_id|>")), tools) == (expected, None)
    for answer in ('{"total": 3}', '{"name": "Ada"}', "{not json", "It is 3."):
        assert llama3.parse(_ids(t, answer, Mark("<|eot_id|>")), tools) == (
            Message(role="assistant", content=answer),
            None,
        )


def test_llama3_parallel_calls_are_separated_by_semicolons(llama3, tools):
    message = Message(role="assistant", tool_calls=(_CALL, _OTHER))
    ids = llama3.reply(message, tools)
    assert llama3.decode(ids) == (
        '{"name": "ls", "parameters": {"path": "/"}}; {"name": "cat", "parameters": {"path": "/a"}}<|eot_id|>'
    )
    assert llama3.parse(ids, tools) == (message, None)


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "ls", "parameters": {"path": }}',
        '{"name": "ls", "parameters": {}} and more',
        '{"name": "ls", "parameters": 3}',
    ],
)
def test_llama3_unreadable_calls_show_a_valid_one(llama3, tools, text):
    _, malformed = llama3.parse(_ids(llama3.tokenizer, text, Mark("<|eot_id|>")), tools)
    assert malformed is not None
    assert malformed.endswith('expected {"name": "ls", "parameters": {"path": "path"}}')


def test_llama3_tagged_reply_without_json_is_unreadable(llama3, tools):
    _, malformed = llama3.parse(_ids(llama3.tokenizer, Mark("<|python_tag|>"), "ls()", Mark("<|eot_id|>")), tools)
    assert malformed.startswith("unreadable call: Expecting value at character 1")
    assert "no JSON object" in llama3.parse(_ids(llama3.tokenizer, Mark("<|python_tag|>")), tools)[1]


@pytest.mark.parametrize("fmt", ["llama3", "hermes_text"])
def test_without_control_tokens_around_calls_text_beside_one_is_refused(fmt, tools, request):
    told = Message(role="assistant", content="Look.", tool_calls=(_CALL,))
    with pytest.raises(UserError, match=r"cannot write this assistant reply: got text beside a call \('Look.'\)"):
        request.getfixturevalue(fmt).reply(told, tools)


@pytest.mark.parametrize(
    ("fmt", "answer"),
    [("llama3", '{"name": "Ada", "parameters": {}}'), ("hermes_text", "<tool_call> is how a call begins")],
)
def test_without_control_tokens_around_calls_an_answer_that_reads_as_one_is_refused(fmt, answer, tools, request):
    with pytest.raises(UserError, match="got an answer that reads as a call") as caught:
        request.getfixturevalue(fmt).reply(Message(role="assistant", content=answer), tools)
    assert (caught.value.code, caught.value.param) == ("invalid_demonstration", "data")


def test_a_thought_may_stand_before_a_call_without_control_tokens(hermes_text, tools):
    message = Message(role="assistant", content="<think>\nhm\n</think>", tool_calls=(_CALL,))
    read, malformed = hermes_text.parse(hermes_text.reply(message, tools), tools)
    assert (read.tool_calls, malformed) == ((_CALL,), None)


@pytest.mark.parametrize("fmt", ["hermes", "hermes_text", "llama3", "mistral"])
def test_nested_arguments_quotes_and_other_scripts_are_read_back(fmt, tools, request):
    arguments = '{"rows": [{"k": [1, 1.0, null, true, {}]}], "q": "a \\"b\\" \\\\ {}; </tool_call>\\n", "é": "日本 🙂"}'
    made = tuple(ToolCall(id=f"call_{k}", name=name, arguments=arguments) for k, name in enumerate(("ls", 'q"é')))
    message = Message(role="assistant", tool_calls=made)
    chosen = request.getfixturevalue(fmt)
    assert chosen.parse(chosen.reply(message, tools), tools) == (message, None)


@pytest.mark.parametrize(
    ("fmt", "shown"),
    [
        ("hermes", "<tool_response>\nof ls\n</tool_response>\n<tool_response>\nof cat\n</tool_response>"),
        ("llama3", "ipython<|end_header_id|>\n\nof ls<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\nof cat"),
        (
            "mistral",
            '[TOOL_RESULTS] {"content": "of ls", "call_id": "call00000"}[/TOOL_RESULTS]'
            '[TOOL_RESULTS] {"content": "of cat", "call_id": "call00001"}[/TOOL_RESULTS]',
        ),
    ],
)
def test_results_stand_in_the_order_of_the_calls_whatever_their_order_in_the_row(fmt, shown, tools, request):
    chosen = request.getfixturevalue(fmt)
    row = [
        Message(role="user", content="Look."),
        Message(role="assistant", tool_calls=(_CALL, _OTHER)),
        Message(role="tool", content="of cat", tool_call_id="call_1"),
        Message(role="tool", content="of ls", tool_call_id="call_0"),
        Message(role="user", content="And now?"),
    ]
    text = chosen.decode(chosen.prompt(row, tools))
    assert shown in text
    assert text.index("of cat") < text.index("And now?")


def test_mistral_layout_of_calls_and_results(mistral, tools):
    message = Message(role="assistant", tool_calls=(_CALL, _OTHER))
    assert mistral.decode(mistral.reply(message, tools)) == (
        '[TOOL_CALLS] [{"name": "ls", "arguments": {"path": "/"}, "id": "call00000"}, '
        '{"name": "cat", "arguments": {"path": "/a"}, "id": "call00001"}]</s>'
    )
    outputs = [ToolResult(call_id="call_0", output='a "b"'), ToolResult(call_id="call_1", output="c")]
    assert mistral.decode(mistral.results(outputs)) == (
        '[TOOL_RESULTS] {"content": "a \\"b\\"", "call_id": "call00000"}[/TOOL_RESULTS]'
        '[TOOL_RESULTS] {"content": "c", "call_id": "call00001"}[/TOOL_RESULTS]'
    )


@pytest.mark.parametrize("text", [_LS, "[]", "[{}]", "[", f"[{_LS}] more"])
def test_mistral_unreadable_calls_show_a_valid_one(mistral, tools, text):
    _, malformed = mistral.parse(_ids(mistral.tokenizer, Mark("[TOOL_CALLS]"), text, Mark("</s>")), tools)
    assert malformed is not None
    assert malformed.endswith('expected [TOOL_CALLS] [{"name": "ls", "arguments": {"path": "path"}}]')


def test_mistral_puts_the_system_text_before_the_question(mistral):
    messages = [Message(role="system", content="Be brief."), Message(role="user", content="Why?")]
    assert mistral.decode(mistral.prompt(messages, [])) == "<s>[INST] Be brief.\n\nWhy?[/INST]"
