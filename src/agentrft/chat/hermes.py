"""The Hermes format (Qwen 2.5 and 3, Hermes, other ChatML models): calls as JSON between `<tool_call>` marks.

    <|im_start|>assistant\\n
    …text…\\n<tool_call>\\n{"name": "grep", "arguments": {"text": "port"}}\\n</tool_call><|im_end|>
    \\n<|im_start|>user\\n<tool_response>\\n{output}\\n</tool_response><|im_end|>\\n<|im_start|>assistant\\n

Where the tokenizer has `<tool_call>` as a control token, calls are found by its id and nowhere else; otherwise a reply
is a call only if it starts with that text. Several blocks in one reply are parallel calls. A leading `<think>` block is
read over: it is trained like everything generated but is not part of the message.
"""

from __future__ import annotations

from collections.abc import Sequence

from agentrft.chat import calls, chatml, stream
from agentrft.chat.calls import Unreadable
from agentrft.chat.template import ShippedTemplate
from agentrft.chat.tokens import Mark, Piece, Tokenizer, encode_pieces
from agentrft.types import Message, ToolResult, ToolSpec

_OPEN, _CLOSE = "<tool_call>", "</tool_call>"
_RESULT_OPEN, _RESULT_CLOSE = "<tool_response>", "</tool_response>"
_THINK, _THINK_END = "<think>", "</think>"


class HermesFormat:
    """`ChatFormat` of the Hermes family; `template` is the model's own, when `agentrft.chat.check` found it usable."""

    name = "hermes"
    stop = chatml.END

    def __init__(self, tokenizer: Tokenizer, template: ShippedTemplate | None = None, note: str = "") -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.note = note
        self.stop_ids = frozenset({tokenizer.special(chatml.END)})

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
        pieces: list[Piece] = []
        if system or tools:
            text = "\n\n".join(filter(None, [system, _tools_text(tools)]))
            pieces += chatml.block("system", text)
        return pieces + self._blocks(rest) + chatml.opening()

    def after(self, messages: Sequence[Message]) -> list[Piece]:
        shipped = self.template.after(messages) if self.template is not None else None
        return shipped if shipped is not None else ["\n", *self._blocks(messages), *chatml.opening()]

    def _blocks(self, messages: Sequence[Message]) -> list[Piece]:
        """Messages in order; tool results that stand together share one block in the user's role."""
        pieces: list[Piece] = []
        for k, message in enumerate(messages):
            if message.role != "tool":
                pieces += chatml.block(message.role, message.content or "")
                continue
            is_first = k == 0 or messages[k - 1].role != "tool"
            is_last = k == len(messages) - 1 or messages[k + 1].role != "tool"
            pieces += [Mark(chatml.START), "user\n"] if is_first else ["\n"]
            content = f"\n{message.content or ''}\n"
            pieces += [self._mark(_RESULT_OPEN), content, self._mark(_RESULT_CLOSE)]
            pieces += [Mark(chatml.END), "\n"] if is_last else []
        return pieces

    def reply(self, message: Message, tools: Sequence[ToolSpec]) -> list[int]:
        text = (message.content or "").strip()
        if not self.tokenizer.has(_OPEN):
            said = _without_thought(text)
            calls.check_anchored(self.name, message, said, said.startswith(_OPEN))
        pieces = self._thought_and_text(text)
        for k, call in enumerate(message.tool_calls):
            body = calls.dump({"name": call.name, "arguments": calls.arguments_of(call)})
            pieces += ["\n"] if k or pieces else []
            pieces += [self._mark(_OPEN), f"\n{body}\n", self._mark(_CLOSE)]
        return encode_pieces(self.tokenizer, [*pieces, Mark(chatml.END)])

    def parse(self, ids: Sequence[int], tools: Sequence[ToolSpec]) -> tuple[Message, str | None]:
        body = stream.without_stop(ids, self.stop_ids)
        outside: list[str] = []
        found: list[tuple[str, str]] = []
        try:
            if self.tokenizer.has(_OPEN):
                self._read_by_id(body, outside, found)
            else:
                _read_by_text(_without_thought(self.tokenizer.decode(body)), outside, found)
        except Unreadable as error:
            text = _without_thought(self.tokenizer.decode(body))
            return Message(role="assistant", content=text), f"unreadable call: {error}; expected {_example(tools)}"
        content = "\n".join(filter(None, (text.strip() for text in outside)))
        return Message(
            role="assistant", content=content if content or not found else None, tool_calls=calls.numbered(found)
        ), None

    def _read_by_id(self, ids: list[int], outside: list[str], found: list[tuple[str, str]]) -> None:
        open_id = self.tokenizer.special(_OPEN)
        close_id = self.tokenizer.special(_CLOSE) if self.tokenizer.has(_CLOSE) else None
        at = 0
        while open_id in ids[at:]:
            start = ids.index(open_id, at)
            outside.append(self.tokenizer.decode(ids[at:start]))
            if close_id is None or close_id not in ids[start:]:
                raise Unreadable(f"{_CLOSE} is missing")
            end = ids.index(close_id, start)
            found.append(_read_body(self.tokenizer.decode(ids[start + 1 : end])))
            at = end + 1
        outside.append(self.tokenizer.decode(ids[at:]))
        outside[0] = _without_thought(outside[0])

    def _thought_and_text(self, text: str) -> list[Piece]:
        """A demonstration's leading `<think>` block with the control tokens that the model writes it with."""
        if not (text.startswith(_THINK) and _THINK_END in text):
            return [text] if text else []
        thought, _, rest = text.removeprefix(_THINK).partition(_THINK_END)
        return [self._mark(_THINK), thought, self._mark(_THINK_END), rest]

    def _mark(self, token: str) -> Piece:
        return Mark(token) if self.tokenizer.has(token) else token


def _without_thought(text: str) -> str:
    text = text.strip()
    return text.partition(_THINK_END)[2].strip() if text.startswith(_THINK) else text


def _read_by_text(text: str, outside: list[str], found: list[tuple[str, str]]) -> None:
    if not text.startswith(_OPEN):
        outside.append(text)
        return
    at = 0
    while text.startswith(_OPEN, at):
        value, end = calls.read_json(text, _skip_space(text, at + len(_OPEN)))
        end = _skip_space(text, end)
        if not text.startswith(_CLOSE, end):
            raise Unreadable(f"{_CLOSE} is missing")
        found.append(calls.read_call(value, ("arguments",)))
        at = _skip_space(text, end + len(_CLOSE))
    outside.append(text[at:])


def _read_body(text: str) -> tuple[str, str]:
    value, end = calls.read_json(text, _skip_space(text, 0))
    if text[end:].strip():
        raise Unreadable(f"text after the JSON: {calls.one_line(text[end:], 30)}")
    return calls.read_call(value, ("arguments",))


def _skip_space(text: str, at: int) -> int:
    return len(text) - len(text[at:].lstrip())


def _example(tools: Sequence[ToolSpec]) -> str:
    tool = calls.example_tool(tools)
    name, arguments = (tool.name, calls.example_arguments(tool)) if tool else ("name", {})
    return f"{_OPEN}{calls.dump({'name': name, 'arguments': arguments})}{_CLOSE}"


def _tools_text(tools: Sequence[ToolSpec]) -> str:
    if not tools:
        return ""
    lines = "\n".join(calls.dump(schema) for schema in calls.chat_style(tools))
    example = calls.dump({"name": "tool name", "arguments": {"argument": "value"}})
    return (
        f"Tools, one JSON schema a line:\n<tools>\n{lines}\n</tools>\nTo call tools, write for each call its name and "
        f"an object of arguments as JSON:\n{_OPEN}\n{example}\n{_CLOSE}"
    )
