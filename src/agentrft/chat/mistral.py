"""The Mistral format (tokenizer versions 3 and 7, and Tekken): calls as a JSON list behind `[TOOL_CALLS]`.

    [AVAILABLE_TOOLS] [{…}][/AVAILABLE_TOOLS][INST] {system}\\n\\n{question}[/INST]
    [TOOL_CALLS] [{"name": "grep", "arguments": {"text": "port"}, "id": "call00000"}]</s>
    [TOOL_RESULTS] {"content": "…", "call_id": "call00000"}[/TOOL_RESULTS]

Calls are found by the id of `[TOOL_CALLS]`. The ids the model writes are not read back: results answer by position,
with ids such as `call00000`. The later grammar (`[TOOL_CALLS]name[ARGS]{…}`) is not written or read.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentrft.chat import calls, stream
from agentrft.chat.calls import Unreadable
from agentrft.chat.template import ShippedTemplate, call_id
from agentrft.chat.tokens import Mark, Piece, Tokenizer, encode_pieces
from agentrft.types import Message, ToolResult, ToolSpec

_BEGIN, _STOP = "<s>", "</s>"
_INST, _INST_END = "[INST]", "[/INST]"
_TOOLS, _TOOLS_END = "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]"
_CALLS = "[TOOL_CALLS]"
_RESULTS, _RESULTS_END = "[TOOL_RESULTS]", "[/TOOL_RESULTS]"


class MistralFormat:
    """`ChatFormat` of Mistral models; `template` is the model's own, when `agentrft.chat.check` found it usable."""

    name = "mistral"
    stop = _STOP

    def __init__(self, tokenizer: Tokenizer, template: ShippedTemplate | None = None, note: str = "") -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.note = note
        for token in (_INST, _INST_END, _CALLS, _RESULTS, _RESULTS_END):
            tokenizer.special(token)
        self.stop_ids = frozenset({tokenizer.special(_STOP)})

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        return stream.render_prompt(self, messages, tools)

    def results(self, results: Sequence[ToolResult]) -> list[int]:
        outputs = [Message(role="tool", content=result.output) for result in results]
        return encode_pieces(self.tokenizer, self.after(outputs))

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def head(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Piece]:
        if self.template is not None:
            return self.template.head(messages, tools)
        pieces: list[Piece] = [Mark(_BEGIN)] if self.tokenizer.has(_BEGIN) else []
        if tools:
            text = f" {calls.dump(calls.chat_style(tools))}"
            pieces += [Mark(_TOOLS), text, Mark(_TOOLS_END)] if self.tokenizer.has(_TOOLS) else _question(text)
        return pieces + _blocks(messages)

    def after(self, messages: Sequence[Message]) -> list[Piece]:
        shipped = self.template.after(messages) if self.template is not None else None
        return shipped if shipped is not None else _blocks(messages)

    def reply(self, message: Message, tools: Sequence[ToolSpec]) -> list[int]:
        text = (message.content or "").strip()
        pieces: list[Piece] = [f" {text}"] if text else []
        if message.tool_calls:
            bodies = [
                {"name": call.name, "arguments": calls.arguments_of(call), "id": call_id(k)}
                for k, call in enumerate(message.tool_calls)
            ]
            pieces += [Mark(_CALLS), f" {calls.dump(bodies)}"]
        return encode_pieces(self.tokenizer, [*pieces, Mark(_STOP)])

    def parse(self, ids: Sequence[int], tools: Sequence[ToolSpec]) -> tuple[Message, str | None]:
        body = stream.without_stop(ids, self.stop_ids)
        mark = self.tokenizer.special(_CALLS)
        if mark not in body:
            return Message(role="assistant", content=self.tokenizer.decode(body).strip()), None
        start = body.index(mark)
        text = self.tokenizer.decode(body[:start]).strip()
        try:
            found = _read(self.tokenizer.decode(body[start + 1 :]).strip())
        except Unreadable as error:
            reason = f"unreadable call: {error}; expected {_example(tools)}"
            return Message(role="assistant", content=self.tokenizer.decode(body).strip()), reason
        return Message(role="assistant", content=text or None, tool_calls=calls.numbered(found)), None


def _read(text: str) -> list[tuple[str, str]]:
    value, end = calls.read_json(text)
    if text[end:].strip():
        raise Unreadable(f"text after the JSON: {calls.one_line(text[end:], 30)}")
    if not isinstance(value, list) or not value:
        raise Unreadable(f"calls are a JSON list, got {calls.one_line(calls.dump(value), 30)}")
    return [calls.read_call(entry, ("arguments",)) for entry in value]


def _example(tools: Sequence[ToolSpec]) -> str:
    tool = calls.example_tool(tools)
    name, arguments = (tool.name, calls.example_arguments(tool)) if tool else ("name", {})
    return f"{_CALLS} {calls.dump([{'name': name, 'arguments': arguments}])}"


def _question(text: str) -> list[Piece]:
    return [Mark(_INST), f" {text}", Mark(_INST_END)]


def _blocks(messages: Sequence[Message]) -> list[Piece]:
    """Questions and results; a system text goes before the question that follows it, the family has no role for it."""
    pieces: list[Piece] = []
    waiting: list[str] = []
    results = 0
    for message in messages:
        content = message.content or ""
        if message.role == "tool":
            body = calls.dump({"content": content, "call_id": call_id(results)})
            pieces += [Mark(_RESULTS), f" {body}", Mark(_RESULTS_END)]
            results += 1
        else:
            waiting.append(content)
        if message.role == "user":
            pieces += _question("\n\n".join(waiting))
            waiting = []
    return pieces + (_question("\n\n".join(waiting)) if waiting else [])
