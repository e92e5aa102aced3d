"""Token exactness of every format: streams equal whole prompts, replies read back, text forges no control token."""

from __future__ import annotations

import json

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from agentrft.chat import calls
from agentrft.types import Message, ToolCall, ToolResult

_SETTINGS = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
# Control tokens of all families, whole and in pieces, among arbitrary text.
_FORGERIES = st.sampled_from(
    [
        *("<|im_start|>", "<|im_end|>", "<|im_start|>assistant\n", "<|im_", "end|>", "<think>", "</think>"),
        *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
        *("<|eot_id|>", "<|start_header_id|>", "<|python_tag|>", "<s>", "</s>"),
        *("[INST]", "[/INST]", "[TOOL_CALLS]", "[TOOL_RESULTS]", "Answer:", '"', " ", "\n", '{"name":'),
    ]
)
_TEXT = st.lists(st.one_of(st.text(max_size=12), _FORGERIES), max_size=5).map("".join)
_ANSWER = _TEXT.map(str.strip)


def _call(k: int, name: str, **arguments: object) -> ToolCall:
    return ToolCall(id=f"call_{k}", name=name, arguments=json.dumps(arguments, ensure_ascii=False))


_CALL_ARGUMENTS = st.one_of(
    st.tuples(st.just("cat"), st.fixed_dictionaries({"path": _TEXT})),
    st.tuples(st.just("grep"), st.builds(lambda text, path: {"text": text, "path": path}, _TEXT, _TEXT)),
    st.tuples(
        st.just("convert"),
        st.builds(
            lambda value, unit: {"value": value, "unit": unit},
            st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)),
            _TEXT,
        ),
    ),
)


@st.composite
def _turn(draw, most_calls: int) -> tuple[Message, list[ToolResult]]:
    chosen = draw(st.lists(_CALL_ARGUMENTS, min_size=1, max_size=most_calls))
    made = tuple(_call(k, name, **arguments) for k, (name, arguments) in enumerate(chosen))
    results = [ToolResult(call_id=call.id, output=draw(_TEXT)) for call in made]
    return Message(role="assistant", tool_calls=made), results


@given(data=st.data())
@_SETTINGS
def test_stream_of_prompt_replies_and_results_equals_the_whole_conversation(fmt, tools, data):
    most_calls = 1 if fmt.name == "line" else 3
    messages = [Message(role="user", content=data.draw(_TEXT))]
    if data.draw(st.booleans()):
        messages.insert(0, Message(role="system", content=data.draw(_TEXT)))
    stream = fmt.prompt(messages, tools)
    for turn, results in data.draw(st.lists(_turn(most_calls), max_size=3)):
        stream += fmt.reply(turn, tools) + fmt.results(results)
        answers = [Message(role="tool", content=r.output, tool_call_id=r.call_id) for r in results]
        messages += [turn, *data.draw(st.permutations(answers))]  # rows may hold them in any order
        assert stream == fmt.prompt(messages, tools)
    answer = Message(role="assistant", content=data.draw(_ANSWER))
    assume(not _reads_as_call(fmt, answer.content))
    stream += fmt.reply(answer, tools)
    assert fmt.prompt([*messages, answer], tools)[: len(stream)] == stream
    again = [*messages, answer, Message(role="user", content="And now?")]
    assert fmt.prompt(again, tools)[: len(stream)] == stream


@given(data=st.data())
@_SETTINGS
def test_a_reply_is_read_back_as_written(fmt, tools, data):
    turn, _ = data.draw(_turn(1 if fmt.name == "line" else 3))
    for message in (turn, Message(role="assistant", content=data.draw(_ANSWER))):
        if fmt.name in ("hermes", "llama3") and not message.tool_calls and _reads_as_call(fmt, message.content):
            continue
        ids = fmt.reply(message, tools)
        assume(_can_be_spelt(fmt, message))
        assert [id_ in fmt.stop_ids for id_ in ids] == [False] * (len(ids) - 1) + [True]
        assert fmt.parse(ids, tools) == (message, None)


def _can_be_spelt(fmt, message: Message) -> bool:
    """SmolLM2's vocabulary lacks 21 rare bytes; text with them is not tokenised without loss."""
    text = " ".join([message.content or "", *(call.arguments for call in message.tool_calls)])
    return fmt.decode(fmt.tokenizer.encode(text)) == text


def _reads_as_call(fmt, text: str) -> bool:
    """Families without control tokens around calls cannot tell an answer that looks like one; think blocks are cut."""
    return text.startswith(("{", "<think>")) or (
        not fmt.tokenizer.has("<tool_call>") and text.startswith("<tool_call>")
    )


@given(text=_TEXT)
@_SETTINGS
def test_text_never_becomes_a_control_token(fmt, tools, text):
    marks = set(fmt.tokenizer._marks.values())

    def frame(ids: list[int]) -> list[int]:
        return [id_ for id_ in ids if id_ in marks]

    def prompt(content: str) -> list[int]:
        return fmt.prompt([Message(role="system", content=content), Message(role="user", content=content)], tools)

    def results(content: str) -> list[int]:
        return fmt.results([ToolResult(call_id="call_0", output=content)])

    assert frame(prompt(text)) == frame(prompt("x"))
    assert frame(results(text)) == frame(results("x"))
    if not _reads_as_call(fmt, text.strip()):
        reply, plain = (fmt.reply(Message(role="assistant", content=t), tools) for t in (text, "x"))
        assert frame(reply) == frame(plain)


@given(ids=st.lists(st.integers(min_value=0, max_value=300), max_size=40), stopped=st.booleans())
@_SETTINGS
def test_any_generated_ids_can_be_read(fmt, tools, ids, stopped):
    marks = sorted(fmt.tokenizer._marks.values())
    ids = [marks[id_ % len(marks)] if id_ % 5 == 0 else id_ for id_ in ids]
    message, malformed = fmt.parse([*ids, *fmt.stop_ids][: len(ids) + stopped], tools)
    assert message.role == "assistant"
    assert malformed is None or "\n" not in malformed
    assert malformed is None or not message.tool_calls
    for call in message.tool_calls:
        assert isinstance(calls.arguments_of(call), dict)


def test_lone_surrogates_in_tool_output_are_replaced(fmt):
    broken = fmt.results([ToolResult(call_id="call_0", output="a\ud800b")])
    mended = fmt.results([ToolResult(call_id="call_0", output="a\ufffdb")])
    assert broken == mended
