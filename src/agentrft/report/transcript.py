"""An episode as lines to read: the same lines for the terminal and the page."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from agentrft.report.text import printable
from agentrft.report.wording import stop_words
from agentrft.types import Episode, Message, StopReason, ToolCall

LineKind = Literal["system", "user", "text", "call", "credit", "result", "error", "answer", "end"]
PromptPart = Literal["whole", "question", "none"]
"""How much of what came before the first reply: everything, all but the system message, nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One entry of a transcript; `text` is printable and may span several lines."""

    kind: LineKind
    text: str


def transcript(episode: Episode, *, prompt: PromptPart = "whole", credit: Sequence[str] = ()) -> list[Line]:
    """The episode from its prompt to its end, escape sequences removed from everything the model or a tool said.

    `credit` says of every turn what it earned (`agentrft.report.credit`); it comes after the turn's calls or answer.
    """
    spoken = sum(1 + len(turn.results) for turn in episode.turns)
    before = episode.messages[: len(episode.messages) - spoken]
    lines = [line for message in before for line in _prompt_lines(message)]
    kept = {"whole": lines, "question": [line for line in lines if line.kind != "system"], "none": []}[prompt]
    return [*kept, *_turn_lines(episode, credit)]


def call_text(call: ToolCall) -> str:
    """`grep(text="billing", path="/")`; the raw text when the arguments are not a JSON object."""
    try:
        arguments = json.loads(call.arguments)
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        return printable(f"{call.name} {call.arguments}")
    inner = ", ".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    return printable(f"{call.name}({inner})")


def _turn_lines(episode: Episode, credit: Sequence[str]) -> Iterator[Line]:
    for number, turn in enumerate(episode.turns, start=1):
        is_answer = number == len(episode.turns) and episode.stop_reason is StopReason.ANSWERED
        content = printable(turn.reply.content or "")
        if is_answer:
            yield Line(kind="answer", text=content)
        elif content.strip():
            yield Line(kind="text", text=content)
        for call in turn.reply.tool_calls:
            yield Line(kind="call", text=call_text(call))
        for text in credit[number - 1 : number]:
            yield Line(kind="credit", text=printable(text))
        for result in turn.results:
            yield Line(kind="error" if result.is_error else "result", text=printable(result.output))
        if turn.malformed and not turn.results:
            yield Line(kind="error", text=printable(turn.malformed))
    if episode.stop_reason is not StopReason.ANSWERED:
        why = f": {printable(episode.fault)}" if episode.fault else ""
        yield Line(kind="end", text=f"{stop_words(episode.stop_reason)}{why}")


def _prompt_lines(message: Message) -> Iterator[Line]:
    kinds: dict[str, LineKind] = {"system": "system", "user": "user", "assistant": "text", "tool": "result"}
    if message.content:
        yield Line(kind=kinds[message.role], text=printable(message.content))
    for call in message.tool_calls:
        yield Line(kind="call", text=call_text(call))
