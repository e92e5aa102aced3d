"""Preference rows → `Preference` (two continuations of one conversation) and `Rated` (one, good or bad).

A pair is OpenAI's: `{"input": {"messages", "tools", "parallel_tool_calls"}, "preferred_output": […],
"non_preferred_output": […]}`. Beyond OpenAI, an output may be a whole trajectory: replies with `tool_calls`, the `tool`
messages that answer them, up to an answer or a last call. A rated row is a demonstration with `desirable`: true or
false. `id` is optional in both; other keys are not used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrft.data.jsonl import RowFault
from agentrft.data.rows import (
    Demonstration,
    check_answered,
    check_names,
    demonstration_of,
    id_of,
    messages_of,
    read_rows,
    show,
    tools_of,
)
from agentrft.types import Message, ToolSpec

_INPUT_KEYS = ("messages", "tools", "parallel_tool_calls")
_OUTPUTS = ("preferred_output", "non_preferred_output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference:
    """Two ways to go on from one conversation, of which the first is better."""

    id: str
    prompt: tuple[Message, ...]
    """Ends with a question or a tool result: the assistant speaks next."""
    preferred: tuple[Message, ...]
    """Replies with their tool results; begins and ends with the assistant."""
    rejected: tuple[Message, ...]
    """As `preferred`, and not the same."""
    tools: tuple[ToolSpec, ...] = ()
    line: int = 0
    """Line in the source file, 1-based; 0 when made in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """One whole conversation, and whether it should happen more or less often."""

    demonstration: Demonstration
    desirable: bool


def read_preferences(path: Path, *, param: str = "data.preferences") -> Iterator[Preference]:
    """Pairs of a file, one by one; raises UserError at the first bad row and for repeated ids."""
    return read_rows(path, param, _preference)


def read_rated(path: Path, *, param: str = "data.preferences") -> Iterator[Rated]:
    """Rated conversations of a file, one by one; raises UserError as `read_preferences` does."""
    return read_rows(path, param, _rated)


def _preference(row: Mapping[str, Any], line: int) -> Preference:
    if "desirable" in row and "input" not in row:
        raise RowFault(
            "the row is one rated conversation, expected a pair (`input`, `preferred_output`, `non_preferred_output`)",
            "train on rated conversations with `method.dpo.loss: {type: kto}`",
        )
    given = row.get("input")
    if not isinstance(given, dict):
        raise RowFault(f"`input` is {show(given)}, expected an object", 'write "input": {"messages": […]}')
    unknown = next((key for key in given if key not in _INPUT_KEYS), None)
    if unknown is not None:
        raise RowFault(f"`input` has the key {unknown!r}, expected {', '.join(_INPUT_KEYS)}", f"remove {unknown!r}")
    prompt = messages_of(given, inside="input.")
    check_answered(prompt, "input.messages")
    if prompt[-1].role == "assistant":
        raise RowFault(
            "`input.messages` ends with the assistant, expected a question or a tool result: the outputs come next",
            "move that message to the beginning of both outputs",
        )
    tools = tools_of(given)
    preferred, rejected = (_output(row, key) for key in _OUTPUTS)
    if preferred == rejected:
        raise RowFault("both outputs are the same, expected two to compare", "remove the row")
    check_names((*prompt, *preferred), tools)  # a rejected call may well be one of a tool that is not there
    _check_parallel(given.get("parallel_tool_calls"), preferred)
    return Preference(
        id=id_of(row, line), prompt=prompt, preferred=preferred, rejected=rejected, tools=tools, line=line
    )


def _output(row: Mapping[str, Any], key: str) -> tuple[Message, ...]:
    messages = messages_of(row, key)
    check_answered(messages, key)
    for k, message in enumerate(messages):
        if message.role not in ("assistant", "tool"):
            raise RowFault(
                f"`{key}[{k}].role` is {message.role!r}, expected 'assistant', or 'tool' for results of its calls",
                "put what comes before the reply into `input.messages`",
            )
        is_answer = message.role == "assistant" and not message.tool_calls
        if is_answer and k < len(messages) - 1:
            raise RowFault(
                f"`{key}[{k}]` is an answer and {len(messages) - 1 - k} message(s) follow, expected it to be the last",
                "keep one reply, or calls with their results and one answer",
            )
    if messages[-1].role == "tool":
        raise RowFault(f"`{key}` ends with a tool result, expected a reply of the assistant", "add what it replied")
    return messages


def _check_parallel(allowed: Any, preferred: tuple[Message, ...]) -> None:
    if allowed is not None and not isinstance(allowed, bool):
        raise RowFault(f"`input.parallel_tool_calls` is {show(allowed)}, expected true or false", "mend it")
    if allowed is False and any(len(message.tool_calls) > 1 for message in preferred):
        raise RowFault(
            "`input.parallel_tool_calls` is false and `preferred_output` makes several calls in one reply",
            "remove one of the two",
        )


def _rated(row: Mapping[str, Any], line: int) -> Rated:
    if "input" in row:
        raise RowFault(
            "the row is a pair, expected one conversation with `messages` and `desirable`",
            "train on pairs with `method.dpo.loss: {type: dpo}`",
        )
    desirable = row.get("desirable")
    if not isinstance(desirable, bool):
        raise RowFault(f"`desirable` is {show(desirable)}, expected true or false", 'add "desirable": true or false')
    return Rated(demonstration=demonstration_of(row, line), desirable=desirable)
