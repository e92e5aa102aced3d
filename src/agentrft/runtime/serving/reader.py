"""A reply read while it is generated: which of its text may be shown already, and which calls it makes.

What is shown, all together, is what the format's `parse` says of the whole reply: text without markup, calls, and the
raw text of a call that cannot be read. Text is held back only while it may still turn out to be markup, white space at
the end, or half a character.
"""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from agentrft.chat import AnyFormat
from agentrft.runtime.serving.stops import Piece, Pieces
from agentrft.runtime.serving.wire import DrawnToken
from agentrft.types import ToolCall, ToolSpec

_ANSWER = "Answer:"
_CALL = "<tool_call>"
_THINK, _THINK_END = "<think>", "</think>"


class _State(Enum):
    START = "start"
    """Nothing is decided yet."""
    TEXT = "text"
    CALL = "call"


class _Opening(NamedTuple):
    """What a reply's beginning says."""

    state: _State
    skip: int = 0
    """Characters that are markup."""


_HOLD = _Opening(_State.START)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rest:
    """What the end of a reply adds."""

    pieces: Sequence[Piece] = ()
    calls: Sequence[ToolCall] = ()
    malformed: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """Control tokens around calls, where a format has them."""

    open: int | None = None
    close: int | None = None
    """After it, text may follow."""

    @classmethod
    def of(cls, fmt: AnyFormat) -> Marks:
        """None where a reply's start tells calls from text."""
        tokens = fmt.tokenizer
        if fmt.name == "hermes" and tokens.has(_CALL):
            return cls(open=tokens.special(_CALL), close=tokens.special("</tool_call>"))
        if fmt.name == "mistral":
            return cls(open=tokens.special("[TOOL_CALLS]"))
        return cls()


class ReplyReader:
    """Reads one reply, token by token."""

    def __init__(self, fmt: AnyFormat, tools: Sequence[ToolSpec]) -> None:
        """`tools` are those that the reply may call; without any all of it is text."""
        self._fmt = fmt
        self._tools = tools
        self._marks = Marks.of(fmt)
        self._state = _State.START
        self._ids: list[int] = []
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = Pieces()
        self._call_text = ""
        self._shown = False
        """Some text went out."""
        self._joins = False
        """A call stands between the text that went out and what may follow."""

    def feed(self, id_: int, own_bytes: bytes, token: DrawnToken | None) -> list[Piece]:
        """The text that may be shown now that this token is there; stop tokens are not fed."""
        self._ids.append(id_)
        if self._tools and id_ == self._marks.open:
            return self._open_call()
        if self._state is _State.CALL:
            self._call_text += self._utf8.decode(own_bytes)
            if id_ == self._marks.close and self._marks.close is not None:
                self._state, self._joins = _State.TEXT, self._shown
                self._call_text += self._utf8.decode(b"", final=True)
            return []
        self._held.add(Piece(self._utf8.decode(own_bytes), token))
        return self._show(is_last=False)

    def finish(self, *, truncated: bool) -> Rest:
        """What was held back. A reply that was cut shows its text; a call that was cut is not shown."""
        left = self._utf8.decode(b"", final=True)
        if self._state is _State.CALL:
            self._call_text += left
        else:
            self._held.add(Piece(left, None))
        pieces = self._show(is_last=True)
        if truncated or not self._tools:
            return Rest(pieces=pieces)
        message, malformed = self._fmt.parse(self._ids, self._tools)
        if malformed is not None:
            return Rest(pieces=[*pieces, *self._raw()], malformed=malformed)
        if self._state is _State.CALL and self._marks.open is None and message.content:
            # Anchored formats decide at the end only: text after calls, or JSON that is an answer.
            pieces = [Piece(message.content, None)]
        return Rest(pieces=pieces, calls=message.tool_calls)

    def _raw(self) -> list[Piece]:
        """The text of calls that cannot be read, as it is."""
        text = self._call_text.strip()
        return [Piece(f"\n{text}" if self._shown else text, None)] if text else []

    def _open_call(self) -> list[Piece]:
        self._held.add(Piece(self._utf8.decode(b"", final=True), None))
        pieces = self._show(is_last=True)
        self._held.clear()
        self._state = _State.CALL
        self._call_text += self._fmt.decode(self._ids[-1:])
        return pieces

    def _show(self, *, is_last: bool) -> list[Piece]:
        if self._state is _State.START:
            opening = self._opening(self._held.text, is_last)
            self._held.drop(opening.skip)
            self._state = opening.state
            if self._state is _State.CALL:
                self._call_text = self._held.text
                self._held.clear()
        if self._state is not _State.TEXT:
            return []
        text = self._held.text
        if not self._shown or self._joins:
            self._held.drop(len(text) - len(text.lstrip()))
        pieces = self._held.take(len(self._held.text.rstrip()))
        if pieces and self._joins:
            pieces.insert(0, Piece("\n", None))
            self._joins = False
        self._shown = self._shown or bool(pieces)
        return pieces

    def _opening(self, text: str, is_last: bool) -> _Opening:
        """What the reply's first text says it is."""
        said = text.lstrip()
        if self._fmt.name == "mistral":
            return _Opening(_State.TEXT)
        if not said:
            return _Opening(_State.TEXT) if is_last else _HOLD
        if self._fmt.name == "line":
            return self._line(text, said, is_last)
        if self._fmt.name == "llama3":
            return _Opening(_State.CALL if self._tools and self._starts_llama_call(said) else _State.TEXT)
        return self._hermes(text, said, is_last)

    def _starts_llama_call(self, said: str) -> bool:
        return said.startswith(("{", "<|python_tag|>"))

    def _line(self, text: str, said: str, is_last: bool) -> _Opening:
        if said.startswith(_ANSWER):
            return _Opening(_State.TEXT, len(text) - len(said) + len(_ANSWER))
        if _ANSWER.startswith(said) and not is_last:
            return _HOLD
        word = said.split(maxsplit=1)[0]
        names = [tool.name for tool in self._tools]
        if word != said or is_last:
            return _Opening(_State.CALL if word in names else _State.TEXT)
        return _HOLD if any(name.startswith(word) for name in names) else _Opening(_State.TEXT)

    def _hermes(self, text: str, said: str, is_last: bool) -> _Opening:
        if said.startswith(_THINK):
            end = text.find(_THINK_END)
            if end < 0:
                return _Opening(_State.TEXT, len(text)) if is_last else _HOLD
            skip = end + len(_THINK_END)
            opening = self._after_thought(text[skip:], is_last)
            return opening._replace(skip=skip + opening.skip) if opening is not _HOLD else _HOLD
        if _THINK.startswith(said) and not is_last:
            return _HOLD
        return self._after_thought(text, is_last)

    def _after_thought(self, text: str, is_last: bool) -> _Opening:
        said = text.lstrip()
        if not self._tools or self._marks.open is not None:
            return _Opening(_State.TEXT)
        if said.startswith(_CALL):
            return _Opening(_State.CALL)
        return _HOLD if _CALL.startswith(said) and not is_last else _Opening(_State.TEXT)
