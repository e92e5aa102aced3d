"""One try of one call, and whether and when there may be another."""

from __future__ import annotations

import asyncio
import random
import traceback
from collections.abc import Callable, Mapping
from typing import Any

from tenacity import RetryCallState

from agentrft.errors import ToolFault, ToolOutage
from agentrft.protocols import Tool, ToolContext
from agentrft.tools.guardrails.history import Request
from agentrft.tools.source import Hints


class ModelMistake(Exception):
    """The call is wrong; the text is for the model."""


async def ask(
    tool: Tool, name: str, arguments: Mapping[str, Any], context: ToolContext, monotonic: Callable[[], float]
) -> str:
    """The tool's output as text.

    Raises ModelMistake for what the tool rejects, ToolOutage when it did not answer in time, ToolFault when it broke.
    """
    start = monotonic()
    limit = asyncio.timeout(context.deadline_s)
    try:
        async with limit:
            raw = await tool.call(arguments, context)
    except (ToolFault, KeyboardInterrupt):
        raise
    except (ValueError, TypeError) as error:
        raise ModelMistake(message_of(error) or type(error).__name__) from error
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ToolFault(describe_crash(name, error)) from error
    except (Exception, SystemExit) as error:
        if limit.expired():
            raise ToolOutage(f"tool {name} gave no answer within {context.deadline_s:g} s") from error
        raise ToolFault(describe_crash(name, error)) from error
    if monotonic() - start > context.deadline_s:
        raise ToolFault(f"tool {name} gave no answer within {context.deadline_s:g} s (it could not be interrupted)")
    if isinstance(raw, bytes):
        return raw.decode("utf-8", "replace")
    if not isinstance(raw, str):
        raise ToolFault(f"tool {name} returned {type(raw).__name__}, expected text")
    return raw


def may_repeat(request: Request, hints: Hints) -> bool:
    """Whether a call whose answer was lost may be sent again: reads, and writes that recognise a repeated call."""
    if request.writes:
        return request.rules.idempotent == "by_key"
    return hints.repeatable or request.rules.effect == "read"


def wait_s(state: RetryCallState, first_s: float, longest_s: float) -> float:
    """Exponential with full jitter, or what the tool asks for, within the longest wait."""
    lost = state.outcome.exception() if state.outcome else None
    if isinstance(lost, ToolOutage) and lost.wait_s is not None:
        # Whoever was told the same must not come back at once.
        return min(lost.wait_s, longest_s) * (1 + 0.1 * random.random())
    return min(first_s * 2 ** (state.attempt_number - 1), longest_s) * random.random()


def describe_crash(name: str, error: BaseException) -> str:
    """`tool NAME raised KeyError: 'x' (tools.py:42)`, with the innermost line of code that was running."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" ({frames[-1].filename.rsplit('/', 1)[-1]}:{frames[-1].lineno})" if frames else ""
    return f"tool {name} raised {type(error).__name__}: {message_of(error)}{place}"


def message_of(error: BaseException) -> str:
    """What the error says; an error of the user's may not even be able to."""
    try:
        return str(error)
    except Exception:
        return "(its message cannot be shown)"
