"""The one path every tool call takes, whatever kind of tool it is.

    parse JSON → known tool? → arguments fit the schema? → its turn → call under a time limit → shape the output

The model's own mistakes come back as results that start with `error:`, one short line each. A broken tool raises
ToolFault: the episode is void, not wrong.
"""

from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn

from agentrft.errors import ToolFault
from agentrft.protocols import Tool, ToolContext
from agentrft.tools.schema import ArgumentCheck
from agentrft.tools.shape import ToolLimits, shape
from agentrft.types import ToolCall, ToolResult

_MAX_ERROR_CHARS = 240


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedTool:
    """A tool that an episode may call, and the check of its arguments."""

    tool: Tool
    check: ArgumentCheck
    turn: AbstractAsyncContextManager[object] = field(default_factory=nullcontext)
    """Held during a call; tools that cannot run side by side share a lock. The time limit starts when it is held."""


class _ModelMistake(Exception):
    """The call is wrong; the text is for the model."""


async def call_tool(
    call: ToolCall,
    offered: Mapping[str, OfferedTool],
    context: ToolContext,
    limits: ToolLimits,
    monotonic: Callable[[], float],
) -> ToolResult:
    """What the call gave back, shaped for the model; `is_error` when the model made a mistake.

    Raises ToolFault when the tool took longer than `context.deadline_s` (from its turn on), raised anything but
    ValueError or TypeError, or returned what is not text. An inline synchronous tool cannot be interrupted: its
    lateness is found afterwards.
    """
    start = monotonic()
    try:
        chosen, arguments = _read(call, offered)
        async with chosen.turn:
            raw = await _run(chosen.tool, call.name, arguments, context, monotonic)
        shaped = shape(raw, limits)
        text, size, is_error = shaped.text, shaped.bytes_in, False
    except _ModelMistake as mistake:
        text, size, is_error = _error_line(str(mistake)), 0, True
    return ToolResult(call_id=call.id, output=text, is_error=is_error, wall_s=monotonic() - start, bytes_in=size)


def _read(call: ToolCall, offered: Mapping[str, OfferedTool]) -> tuple[OfferedTool, dict[str, Any]]:
    chosen = offered.get(call.name)
    if chosen is None:
        raise _ModelMistake(f"no tool {call.name[:24]!r}; tools: {', '.join(offered) or 'none'}")
    try:
        arguments = json.loads(call.arguments, parse_constant=_refuse_number, parse_float=_finite)
    except (ValueError, RecursionError):
        arguments = None
    if not isinstance(arguments, dict):
        raise _ModelMistake(f"arguments must be a JSON object, example {chosen.check.example or '{}'}")
    errors = chosen.check.errors(arguments)
    if errors:
        raise _ModelMistake(chosen.check.explain(errors))
    return chosen, arguments


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        _refuse_number(text)
    return value


async def _run(
    tool: Tool, name: str, arguments: Mapping[str, Any], context: ToolContext, monotonic: Callable[[], float]
) -> str:
    start = monotonic()
    limit = asyncio.timeout(context.deadline_s)
    try:
        async with limit:
            raw = await tool.call(arguments, context)
    except (ToolFault, KeyboardInterrupt):
        raise
    except (ValueError, TypeError) as error:
        raise _ModelMistake(str(error) or type(error).__name__) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ToolFault(describe_crash(name, error)) from error
    except (Exception, SystemExit) as error:
        if limit.expired():
            raise ToolFault(f"tool {name} gave no answer within {context.deadline_s:g} s") from error
        raise ToolFault(describe_crash(name, error)) from error
    if monotonic() - start > context.deadline_s:
        raise ToolFault(f"tool {name} gave no answer within {context.deadline_s:g} s (it could not be interrupted)")
    if not isinstance(raw, str):
        raise ToolFault(f"tool {name} returned {type(raw).__name__}, expected text")
    return raw


def describe_crash(name: str, error: BaseException) -> str:
    """`tool NAME raised KeyError: 'x' (tools.py:42)`, with the innermost line of code that was running."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"tool {name} raised {type(error).__name__}: {error}{place}"


def _error_line(message: str) -> str:
    line = " ".join(message.encode("utf-8", "replace").decode("utf-8").split())
    return f"error: {line if len(line) <= _MAX_ERROR_CHARS else line[:_MAX_ERROR_CHARS] + '…'}"
