"""An episode as lines that a person can read; terminal and HTML render the same lines."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from agentrft.types import Episode, Grade, Message, Turn

LineKind = Literal["system", "user", "assistant", "call", "malformed", "result", "error", "end"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One thing that was said or done."""

    kind: LineKind
    text: str
    turn: int | None = None
    """1-based reply it belongs to; None before the first reply and for the end."""


def transcript(episode: Episode, grade: Grade | None = None) -> list[Line]:
    """Everything in order: the prompt, each reply with its calls and their results, and how it ended."""
    prompt = episode.messages[: len(episode.messages) - _messages_of_turns(episode)]
    lines = [_prompt_line(message) for message in prompt]
    for number, turn in enumerate(episode.turns, start=1):
        lines += _turn_lines(turn, number)
    return [*lines, Line(kind="end", text=_ending(episode, grade))]


def _messages_of_turns(episode: Episode) -> int:
    return sum(1 + len(turn.results) for turn in episode.turns)


def _prompt_line(message: Message) -> Line:
    kind: dict[str, LineKind] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "result"}
    return Line(kind=kind[message.role], text=message.content or "")


def _turn_lines(turn: Turn, number: int) -> Iterator[Line]:
    if turn.reply.content:
        yield Line(kind="malformed" if turn.malformed else "assistant", text=turn.reply.content, turn=number)
    for call in turn.reply.tool_calls:
        yield Line(kind="call", text=f"{call.name} {call.arguments}", turn=number)
    for result in turn.results:
        yield Line(kind="error" if result.is_error else "result", text=result.output, turn=number)


def _ending(episode: Episode, grade: Grade | None) -> str:
    calls = f"{episode.n_calls} call{'' if episode.n_calls == 1 else 's'}"
    ending = f"{episode.stop_reason.value} after {calls}, {episode.wall_s:.1f} s"
    if episode.fault:
        ending += f"; {episode.fault}"
    if grade is None:
        return ending
    return ending + (f"; no grade: {grade.reason}" if grade.value is None else f"; grade {grade.value:.3f}")
