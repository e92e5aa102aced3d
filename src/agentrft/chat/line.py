"""The line format: one short line a call, for models too small to write JSON reliably (SmolLM2).

A reply that starts with `Answer:` is an answer; anything else is exactly one call line `NAME ARG1 ARG2 …`, arguments by
position in the order of the schema's `properties`. Every argument is one word without white space or a JSON string in
double quotes; a last argument that may be a string takes the rest of the line as it is. Where the schema allows more
than a string, a word is a string if it is nothing else (`5`, `true`, `null`, `[…]`); in quotes it always is. ChatML
framing:

    <|im_start|>system\\n{system}{tool lines}<|im_end|>\\n
    <|im_start|>user\\n{question}<|im_end|>\\n<|im_start|>assistant\\n
    …reply…<|im_end|>                                                    (generated)
    \\n<|im_start|>tool\\n{output}<|im_end|>\\n<|im_start|>assistant\\n      (appended)

No place for text beside a call, for two calls in one reply, or for leaving out an argument before a given one. A reply
that needs one of these, or whose line would be read back as other arguments, is refused.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agentrft.chat import calls, chatml, stream
from agentrft.chat.calls import Unreadable
from agentrft.chat.tokens import Mark, Piece, Tokenizer, encode_pieces
from agentrft.errors import UserError
from agentrft.types import Message, ToolCall, ToolResult, ToolSpec

_ANSWER = "Answer:"
_INTEGER = re.compile(r"[+-]?\d{1,300}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d{1,300}(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?", re.ASCII)
_BRACKETS = {"array": "[", "object": "{"}


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
    """A valid call line, up to the last argument that it must have."""
    count = max((k for k, slot in enumerate(_slots(tool), 1) if slot.is_required), default=0)
    schemas = list(calls.properties(tool).items())[:count]
    return _line(tool, [calls.example(name, schema) for name, schema in schemas])


class _Slot(NamedTuple):
    """One argument's place in a call line."""

    name: str
    kinds: tuple[str, ...]
    is_required: bool
    default: Any
    """Null where the schema names none: what a function's left-out argument is then."""
    takes_rest: bool


def _slots(tool: ToolSpec) -> list[_Slot]:
    schemas = calls.properties(tool)
    needed, last = calls.required(tool), next(reversed(schemas), None)
    slots: list[_Slot] = []
    for name, schema in schemas.items():
        kinds = calls.kinds(schema)
        takes_rest = name == last and "string" in kinds
        slots.append(_Slot(name, kinds, name in needed, schema.get("default"), takes_rest))
    return slots


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
    slots = _slots(tool)
    arguments: dict[str, Any] = {}
    for slot in slots:
        at += len(text[at:]) - len(text[at:].lstrip())
        if at == len(text):
            break
        arguments[slot.name], at = _read_argument(text, at, slot)
    if text[at:].strip():
        raise Unreadable(f"{tool.name} takes {len(slots)} argument(s), got more")
    missing = [slot.name.upper() for slot in slots if slot.is_required and slot.name not in arguments]
    if missing:
        raise Unreadable(f"{' '.join(missing)} missing")
    return arguments


def _read_argument(text: str, at: int, slot: _Slot) -> tuple[Any, int]:
    """The value that starts at `text[at]`, which is no white space, and the position after it."""
    rest = text[at:]
    if _is_json(rest, slot):
        value, end = calls.read_json(text, at)
        if end < len(text) and not text[end].isspace():
            raise Unreadable(f"no space after {slot.name.upper()}")
        if isinstance(value, str) and "string" in slot.kinds:
            return value, end
    else:
        value = rest if slot.takes_rest else rest.split(maxsplit=1)[0]
        end = at + len(value)
    return _typed(value, slot), end


def _is_json(rest: str, slot: _Slot) -> bool:
    """Whether `rest` begins like JSON that the slot takes; a slip in it is told then, not taken for a string."""
    if rest[0] == '"':
        return not slot.takes_rest or _is_quoted(rest)
    brackets = [_BRACKETS[kind] for kind in slot.kinds if kind in _BRACKETS]
    return rest[0] in brackets or len(brackets) == len(slot.kinds)


def _typed(value: Any, slot: _Slot) -> Any:
    """A word, or decoded JSON, as whichever of the slot's kinds it is; a string last, which every word is."""
    kinds = slot.kinds
    word = value if isinstance(value, str) else ""
    if ("array" in kinds and isinstance(value, list)) or ("object" in kinds and isinstance(value, dict)):
        return value
    if "null" in kinds and word == "null":
        return None
    if "boolean" in kinds and word.lower() in ("true", "false"):
        return word.lower() == "true"
    if ("integer" in kinds or "number" in kinds) and _INTEGER.fullmatch(word):
        return int(word)
    if "number" in kinds and _NUMBER.fullmatch(word) and abs(float(word)) != float("inf"):
        return float(word)
    if "string" in kinds and isinstance(value, str):
        return value
    expected = " or ".join(kind if kind == "null" else f"{'an' if kind[0] in 'aio' else 'a'} {kind}" for kind in kinds)
    raise Unreadable(f"{slot.name.upper()} must be {expected}, got {_shown(value)}")


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
    """The line of a call; raises UserError for one that it would not be read back as."""
    arguments = calls.arguments_of(call)
    if unknown := sorted(arguments.keys() - calls.properties(tool).keys()):
        raise _inexpressible(f"{call.name} with {unknown[0]!r}, which its schema lacks", _usage(tool))
    line = _line(tool, _by_position(arguments, tool))
    if why := _misread(line, arguments, tool):
        raise _inexpressible(f"{call.name} with {why}", _usage(tool))
    return line


def _by_position(arguments: Mapping[str, Any], tool: ToolSpec) -> list[Any]:
    """Values up to the last one that is said, defaults in the gaps; a null that is the default anyway is not said."""
    slots, values = _slots(tool), _completed(arguments, tool)
    is_said = [
        slot.name in arguments and (slot.is_required or (values[slot.name], slot.default) != (None, None))
        for slot in slots
    ]
    count = max((k for k, said in enumerate(is_said, 1) if said), default=0)
    for slot, said in zip(slots[:count], is_said, strict=False):
        has_filling = slot.default is not None or ("null" in slot.kinds and not slot.is_required)
        if not said and not has_filling:
            raise _inexpressible(f"{tool.name} without {slot.name!r} but with a later argument", _usage(tool))
    return [values[slot.name] for slot in slots[:count]]


def _completed(arguments: Mapping[str, Any], tool: ToolSpec) -> dict[str, Any]:
    """The arguments that the tool works with: those left out at their default."""
    return {slot.name: arguments.get(slot.name, slot.default) for slot in _slots(tool)}


def _misread(line: str, arguments: Mapping[str, Any], tool: ToolSpec) -> str | None:
    """What a line that was written for `arguments` would be read as instead, or None."""
    try:
        read = _completed(_read_arguments(line, len(tool.name), tool), tool)
    except Unreadable as error:
        return f"arguments that cannot be read back ({error})"
    for name, meant in _completed(arguments, tool).items():
        if repr(read[name]) != repr(meant):  # == takes 1, 1.0 and true for the same
            return f"{name!r} = {_json(meant)}, which would be read back as {_json(read[name])}"
    return None


def _json(value: Any) -> str:
    return calls.one_line(calls.dump(value), 40)


def _line(tool: ToolSpec, values: Sequence[Any]) -> str:
    """The call line with `values` by position."""
    return " ".join([tool.name, *map(_word, values, _slots(tool))])


def _word(value: Any, slot: _Slot) -> str:
    """A string as it is, where that is read back as the same string; anything else as JSON."""
    if isinstance(value, str) and value and value == value.strip() and "\n" not in value and "\r" not in value:
        with contextlib.suppress(Unreadable):
            if _read_argument(value, 0, slot) == (value, len(value)):
                return value
    return calls.dump(value)


def _inexpressible(got: str, expected: str) -> UserError:
    return calls.inexpressible("line", got, expected, "change the row, or set `agent.format: hermes`")
