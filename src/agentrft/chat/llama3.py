"""The Llama 3 format (3.1 and later): a call is a bare JSON object, results come back in the role `ipython`.

    <|start_header_id|>assistant<|end_header_id|>\\n\\n
    {"name": "grep", "parameters": {"text": "port"}}<|eot_id|>
    <|start_header_id|>ipython<|end_header_id|>\\n\\n{output}<|eot_id|><|start_header_id|>assistant<|end_header_id|>\\n\\n

The family has no control token around calls, so the grammar is anchored at the reply's start: it is a call if it
begins with `<|python_tag|>`, or with a JSON object that has a "name" and "parameters" (or "arguments"). Any other JSON
object is an answer. Parallel calls are objects separated by `;`. No text stands beside a call.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from agentrft.chat import calls, stream
from agentrft.chat.calls import Unreadable
from agentrft.chat.template import ShippedTemplate
from agentrft.chat.tokens import Mark, Piece, Tokenizer, encode_pieces
from agentrft.types import Message, ToolResult, ToolSpec

_BEGIN, _HEAD, _HEAD_END, _STOP = "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"
_PYTHON = "<|python_tag|>"
_EARLY_STOP = "<|eom_id|>"
_KEYS = ("parameters", "arguments")
_LOOKS_LIKE_CALL = re.compile(r'\{\s*"name"\s*:\s*"[^"]*"\s*,\s*"(parameters|arguments)"')


class Llama3Format:
    """`ChatFormat` of Llama 3; `template` is the model's own, when `agentrft.chat.check` found it usable."""

    name = "llama3"
    stop = _STOP

    def __init__(self, tokenizer: Tokenizer, template: ShippedTemplate | None = None, note: str = "") -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.note = note
        stops = [_STOP] + [token for token in (_EARLY_STOP,) if tokenizer.has(token)]
        self.stop_ids = frozenset(tokenizer.special(token) for token in stops)

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
        system, rest = stream.split_system(messages)
        pieces: list[Piece] = [Mark(_BEGIN)] if self.tokenizer.has(_BEGIN) else []
        if system or tools:
            pieces += _block("system", "\n\n".join(filter(None, [system, _tools_text(tools)])))
        return pieces + _blocks(rest)

    def after(self, messages: Sequence[Message]) -> list[Piece]:
        shipped = self.template.after(messages) if self.template is not None else None
        return shipped if shipped is not None else _blocks(messages)

    def reply(self, message: Message, tools: Sequence[ToolSpec]) -> list[int]:
        text = (message.content or "").strip()
        calls.check_anchored(self.name, message, text, _is_call(text))
        if message.tool_calls:
            bodies = [{"name": c.name, "parameters": calls.arguments_of(c)} for c in message.tool_calls]
            text = "; ".join(calls.dump(body) for body in bodies)
        return encode_pieces(self.tokenizer, [text, Mark(_STOP)])

    def parse(self, ids: Sequence[int], tools: Sequence[ToolSpec]) -> tuple[Message, str | None]:
        body = stream.without_stop(ids, self.stop_ids)
        tagged = bool(body) and self.tokenizer.has(_PYTHON) and body[0] == self.tokenizer.special(_PYTHON)
        text = self.tokenizer.decode(body[1:] if tagged else body).strip()
        if not tagged and not _is_call(text):
            return Message(role="assistant", content=text), None
        try:
            found = _read(text)
        except Unreadable as error:
            reason = f"unreadable call: {error}; expected {_example(tools)}"
            return Message(role="assistant", content=text), reason
        return Message(role="assistant", tool_calls=calls.numbered(found)), None


def _is_call(text: str) -> bool:
    if _LOOKS_LIKE_CALL.match(text):
        return True
    if not text.startswith("{"):
        return False
    try:
        value, _ = calls.read_json(text)
    except Unreadable:
        return False
    return isinstance(value, dict) and "name" in value and any(key in value for key in _KEYS)


def _read(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    while text:
        value, end = calls.read_json(text)
        found.append(calls.read_call(value, _KEYS))
        text = text[end:].lstrip()
        if text.startswith(";"):
            text = text[1:].lstrip()
        elif text and not text.startswith("{"):
            raise Unreadable(f"text after the JSON: {calls.one_line(text, 30)}")
    if not found:
        raise Unreadable("no JSON object")
    return found


def _example(tools: Sequence[ToolSpec]) -> str:
    tool = calls.example_tool(tools)
    name, arguments = (tool.name, calls.example_arguments(tool)) if tool else ("name", {})
    return calls.dump({"name": name, "parameters": arguments})


def _block(role: str, content: str) -> list[Piece]:
    return [Mark(_HEAD), role, Mark(_HEAD_END), f"\n\n{content}", Mark(_STOP)]


def _blocks(messages: Sequence[Message]) -> list[Piece]:
    pieces: list[Piece] = []
    for message in messages:
        pieces += _block("ipython" if message.role == "tool" else message.role, message.content or "")
    return [*pieces, Mark(_HEAD), "assistant", Mark(_HEAD_END), "\n\n"]


def _tools_text(tools: Sequence[ToolSpec]) -> str:
    if not tools:
        return ""
    lines = "\n".join(calls.dump(schema) for schema in calls.chat_style(tools))
    return (
        f"Tools, one JSON schema a line:\n{lines}\nTo call a tool, reply with nothing but JSON: "
        '{"name": "tool name", "parameters": {"argument": "value"}}'
    )
