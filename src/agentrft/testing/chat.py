"""The smallest chat format, one token a character, and a chat model that plays a script."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from agentrft.types import Message, ToolCall, ToolResult, ToolSpec

_STOP = 0
_OPENINGS = {"system": 1, "user": 2, "assistant": 3, "tool": 4}
_FIRST_CHAR = 5
_ALPHABET = "\n" + "".join(chr(code) for code in range(32, 127))


class CharFormat:
    """A chat format for tests; a token is a character, a role's opening or the stop (id 0).

    A reply that starts with `!` is a call: `!NAME` or `!NAME {json arguments}`; any other reply is the answer.
    Characters outside printable ASCII become `?`. Tools are not described in the prompt.
    """

    name = "char"
    stop_ids = frozenset({_STOP})
    vocabulary = _FIRST_CHAR + len(_ALPHABET)
    """Number of ids."""

    def encode(self, text: str) -> list[int]:
        """One id a character; never an opening or a stop."""
        return [_FIRST_CHAR + _ALPHABET.find(char if char in _ALPHABET else "?") for char in text]

    def prompt(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> list[int]:
        """Every message between its opening and a stop, then the opening of the reply."""
        ids: list[int] = []
        for message in messages:
            ids += [_OPENINGS[message.role], *self.encode(_text(message)), _STOP]
        return [*ids, _OPENINGS["assistant"]]

    def parse(self, ids: Sequence[int], tools: Sequence[ToolSpec]) -> tuple[Message, str | None]:
        """The answer, or the call; a call whose arguments are no JSON object is malformed."""
        text = self._text(ids)
        if not text.startswith("!"):
            return Message(role="assistant", content=text), None
        name, _, arguments = text[1:].partition(" ")
        problem = _problem(name, arguments or "{}")
        if problem:
            return Message(role="assistant", content=text), problem
        call = ToolCall(id="call_0", name=name, arguments=arguments or "{}")
        return Message(role="assistant", tool_calls=(call,)), None

    def results(self, results: Sequence[ToolResult]) -> list[int]:
        """Every result between the tool opening and a stop, then the opening of the reply."""
        ids: list[int] = []
        for result in results:
            ids += [_OPENINGS["tool"], *self.encode(result.output), _STOP]
        return [*ids, _OPENINGS["assistant"]]

    def reply(self, message: Message, tools: Sequence[ToolSpec]) -> list[int]:
        """The reply's characters and the stop."""
        return [*self.encode(_text(message)), _STOP]

    def decode(self, ids: Sequence[int]) -> str:
        """Characters, with openings and stops as `<n>`."""
        return "".join(_ALPHABET[i - _FIRST_CHAR] if i >= _FIRST_CHAR else f"<{i}>" for i in ids)

    def _text(self, ids: Sequence[int]) -> str:
        return self.decode(ids[:-1] if ids and ids[-1] == _STOP else ids)


def _text(message: Message) -> str:
    if not message.tool_calls:
        return message.content or ""
    call = message.tool_calls[0]
    return f"!{call.name}" if call.arguments == "{}" else f"!{call.name} {call.arguments}"


def _problem(name: str, arguments: str) -> str | None:
    if not name:
        return "a call needs a tool name after `!`"
    try:
        parsed = json.loads(arguments)
    except ValueError:
        return f"the arguments are not JSON: {arguments}"
    return None if isinstance(parsed, dict) else f"the arguments must be a JSON object, got {arguments}"


class ScriptedChatModel:
    """A chat model that answers by a function of the messages, or from a list, one after the other."""

    def __init__(self, script: Callable[[Sequence[Message]], str | Message] | Sequence[str | Message]) -> None:
        self.seen: list[list[Message]] = []
        """The messages of every request."""
        self._script = script

    async def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Message:
        """The next scripted message; plain text becomes an assistant message."""
        self.seen.append(list(messages))
        said = self._script(messages) if callable(self._script) else self._script[len(self.seen) - 1]
        return Message(role="assistant", content=said) if isinstance(said, str) else said
