"""The line format: one short line a call, for models too small to write JSON reliably (SmolLM2).

A reply that starts with `Answer:` is an answer; anything else is exactly one call line `NAME ARG1 ARG2 …`, arguments by
position in the order of the schema's `properties`. Every argument is one word without white space or a JSON string in
double quotes; a last argument of type string takes the rest of the line as it is. ChatML framing:

    <|im_start|>system\\n{system}{tool lines}<|im_end|>\\n
    <|im_start|>user\\n{question}<|im_end|>\\n<|im_start|>assistant\\n
    …reply…<|im_end|>                                                    (generated)
    \\n<|im_start|>tool\\n{output}<|im_end|>\\n<|im_start|>assistant\\n      (appended)

No place for text beside a call, for two calls in one reply, or for leaving out an argument before a given one: a
demonstration that needs one of these is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from agentrft.chat import calls, chatml, stream
from agentrft.chat.calls import Unreadable
from agentrft.chat.tokens import Mark, Piece, Tokenizer, encode_pieces
from agentrft.errors import UserError
from agentrft.types import Message, ToolCall, ToolResult, ToolSpec

_ANSWER = "Answer:"
_INTEGER = re.compile(r"[+-]?\d{1,300}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d{1,300}(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)


class LineFormat:
    """`ChatFormat` of the line format over a ChatML tokenizer."""

    name = "line"
    stop = chatml.END
    note = "the line format writes its own prompt; the model's chat template is not used"

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.stop_ids = frozenset({tokenizer.special(chatml.END)})

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        return stream.render_prompt(self, messages, tools)

    def results(self, results: Sequence[ToolResult]) -> list[int]:
        outputs = [Message(role="tool", content=result.output) for result in results]
        return encode_pieces(self.tokenizer, self.after(outputs))

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(ids)

    def head(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[Piece]:
        system, rest = stream.split_system(messages)
        lines = [system] if system else []
        if tools:
            lines += ["Tools:", *(tool_line(tool) for tool in tools)]
            lines.append(f'Reply with one tool line, or with "{_ANSWER} value".')
        else:
            lines.append(f'Reply with "{_ANSWER} value".')
        pieces = chatml.block("system", "\n".join(lines))
        for message in rest:
            pieces += chatml.block(message.role, message.content or "")
        return pieces + chatml.opening()

    def after(self, messages: Sequence[Message]) -> list[Piece]:
        pieces: list[Piece] = ["\n"]
        for message in messages:
            pieces += chatml.block(message.role, message.content or "")
        return pieces + chatml.opening()

    def reply(self, message: Message, tools: Sequence[ToolSpec]) -> list[int]:
        text = _write(message, tools)
        return encode_pieces(self.tokenizer, [text, Mark(chatml.END)])

    def parse(self, ids: Sequence[int], tools: Sequence[ToolSpec]) -> tuple[Message, str | None]:
        text = self.tokenizer.decode(stream.without_stop(ids, self.stop_ids)).strip()
        if text.startswith(_ANSWER):
            return Message(role="assistant", content=text[len(_ANSWER) :].strip()), None
        try:
            call = _read(text, tools)
        except Unreadable as error:
            return Message(role="assistant", content=text), str(error)
        return Message(role="assistant", tool_calls=calls.numbered([call])), None


def tool_line(tool: ToolSpec) -> str:
    """One tool as the system prompt shows it: `grep TEXT PATH: print lines under PATH that contain TEXT`."""
    description = " ".join(tool.description.split("\n\n")[0].split()).rstrip(".")
    return f"{_usage(tool)}: {description}" if description else _usage(tool)


def _usage(tool: ToolSpec) -> str:
    needed = calls.required(tool)
    words = [name.upper() if name in needed else f"[{name.upper()}]" for name in calls.properties(tool)]
    return " ".join([tool.name, *words])


def _example_line(tool: ToolSpec) -> str:
    call = ToolCall(id="", name=tool.name, arguments=calls.dump(calls.example_arguments(tool)))
    return _write_call(call, tool)


# ------------------------------------------------------------------------------------------------------------ reading


def _read(text: str, tools: Sequence[ToolSpec]) -> tuple[str, str]:
    """Name and arguments (JSON text) of a call line; raises Unreadable."""
    name = text.split(maxsplit=1)[0] if text else ""
    tool = calls.find_tool(name, tools)
    if tool is None:
        known = " | ".join(_usage(t) for t in tools)
        expected = f'one line {known}, or "{_ANSWER} value"' if known else f'"{_ANSWER} value"'
        said = f"no tool named {calls.one_line(name, 30)!r}" if name else "empty reply"
        raise Unreadable(f"{said}; expected {calls.one_line(expected, 300)}")
    try:
        return name, calls.dump(_read_arguments(text, len(name), tool))
    except Unreadable as error:
        raise Unreadable(f"{error}; expected {_usage(tool)}, for example: {_example_line(tool)}") from None


def _read_arguments(text: str, at: int, tool: ToolSpec) -> dict[str, Any]:
    if "\n" in text or "\r" in text:
        raise Unreadable("more than one line")
    schemas = list(calls.properties(tool).items())
    arguments: dict[str, Any] = {}
    for position, (name, schema) in enumerate(schemas):
        at += len(text[at:]) - len(text[at:].lstrip())
        if at == len(text):
            break
        rest_is_it = position == len(schemas) - 1 and calls.kind(schema) == "string"
        arguments[name], at = _read_rest(text, at) if rest_is_it else _read_argument(text, at, name, schema)
    if text[at:].strip():
        raise Unreadable(f"{tool.name} takes {len(schemas)} argument(s), got more")
    missing = [name.upper() for name, _ in schemas if name in calls.required(tool) and name not in arguments]
    if missing:
        raise Unreadable(f"{' '.join(missing)} missing")
    return arguments


def _read_rest(text: str, at: int) -> tuple[str, int]:
    """The rest of the line as it is, unless all of it is one quoted string."""
    rest = text[at:]
    if _is_quoted(rest):
        return calls.read_json(rest)[0], len(text)
    return rest, len(text)


def _read_argument(text: str, at: int, name: str, schema: Mapping[str, Any]) -> tuple[Any, int]:
    kind = calls.kind(schema)
    if text[at] == '"' or kind in ("array", "object"):
        value, end = calls.read_json(text, at)
        if end < len(text) and not text[end].isspace():
            raise Unreadable(f"no space after {name.upper()}")
    else:
        value = text[at:].split(maxsplit=1)[0]
        end = at + len(value)
    return _typed(value, kind, name.upper()), end


def _typed(value: Any, kind: str, shown: str) -> Any:
    if kind in ("array", "object"):
        if isinstance(value, list if kind == "array" else dict):
            return value
    elif kind == "integer" and _INTEGER.fullmatch(value):
        return int(value)
    elif kind == "number" and _NUMBER.fullmatch(value) and abs(float(value)) != float("inf"):
        return int(value) if _INTEGER.fullmatch(value) else float(value)
    elif kind == "boolean" and value.lower() in ("true", "false"):
        return value.lower() == "true"
    elif kind not in ("integer", "number", "boolean"):
        return value
    raise Unreadable(f"{shown} must be {'an' if kind[0] in 'aio' else 'a'} {kind}, got {_shown(value)}")


def _shown(value: Any) -> str:
    return calls.one_line(value if isinstance(value, str) else calls.dump(value), 30)


def _is_quoted(text: str) -> bool:
    if not text.startswith('"'):
        return False
    try:
        return calls.read_json(text)[1] == len(text)
    except Unreadable:
        return False


# ------------------------------------------------------------------------------------------------------------ writing


def _write(message: Message, tools: Sequence[ToolSpec]) -> str:
    made = list(message.tool_calls)
    if not made:
        return f"{_ANSWER} {(message.content or '').strip()}".rstrip()
    if len(made) > 1:
        raise _inexpressible(f"{len(made)} calls in one reply", "one call a reply")
    if (message.content or "").strip():
        raise _inexpressible(f"text beside a call ({calls.one_line(message.content or '', 40)!r})", "a call alone")
    call = made[0]
    tool = calls.find_tool(call.name, tools)
    if tool is None:
        raise _inexpressible(f"a call of {call.name!r}, which is not a tool here", "a call of a declared tool")
    return _write_call(call, tool)


def _write_call(call: ToolCall, tool: ToolSpec) -> str:
    arguments = {name: value for name, value in calls.arguments_of(call).items() if value is not None}
    schemas = calls.properties(tool)
    if unknown := sorted(arguments.keys() - schemas.keys()):
        raise _inexpressible(f"{call.name} with {unknown[0]!r}, which its schema lacks", _usage(tool))
    names = list(schemas)
    given = [k for k, name in enumerate(names) if name in arguments]
    words = [call.name]
    for name in names[: given[-1] + 1 if given else 0]:
        value = arguments.get(name, schemas[name].get("default"))
        if value is None:
            raise _inexpressible(f"{call.name} without {name!r} but with a later argument", _usage(tool))
        is_last = name == names[-1] and calls.kind(schemas[name]) == "string"
        words.append(_word(value, is_last))
    return " ".join(words)


def _word(value: Any, is_last: bool) -> str:
    if not isinstance(value, str):
        return calls.dump(value)
    plain = bool(value) and value == value.strip() and "\n" not in value and "\r" not in value
    if is_last:
        plain = plain and not _is_quoted(value)
    else:
        plain = plain and not value.startswith('"') and not any(char.isspace() for char in value)
    return value if plain else calls.dump(value)


def _inexpressible(got: str, expected: str) -> UserError:
    return UserError(
        f"the line format cannot write this demonstrated reply: got {got}, expected {expected}; next step: change the "
        "demonstration, or set `agent.format: hermes`",
        param="data.demonstrations",
        code="invalid_demonstration",
    )
