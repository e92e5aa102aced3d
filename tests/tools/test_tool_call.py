"""The path every call takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from agentrft.errors import ToolFault
from agentrft.protocols import ToolContext
from agentrft.tools import ArgumentCheck, OfferedTool, ToolLimits, call_tool, spec_from_function
from agentrft.types import Item, ToolCall, ToolResult, ToolSpec

ITEM = Item(id="row-1", messages=())


class FunctionTool:
    """A tool that runs one async function."""

    def __init__(self, spec: ToolSpec, function: Callable[..., Any]) -> None:
        self.spec = spec
        self.function = function

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        return await self.function(**arguments)


async def grep(text: str, path: str) -> str:
    """Print lines under PATH that contain TEXT."""
    return f"{path}: {text}"


class Ticks:
    """A clock that moves one second at every look."""

    def __init__(self, step_s: float = 1.0) -> None:
        self.now, self.step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now += self.step_s
        return self.now


async def run(
    function: Callable[..., Any],
    arguments: str,
    *,
    name: str | None = None,
    deadline_s: float = 30.0,
    limits: ToolLimits | None = None,
    step_s: float = 0.0,
) -> ToolResult:
    spec = spec_from_function(function)
    offered = {spec.name: OfferedTool(tool=FunctionTool(spec, function), check=ArgumentCheck(spec))}
    call = ToolCall(id="call_0", name=name or spec.name, arguments=arguments)
    context = ToolContext(trace_id="trace_1", item=ITEM, deadline_s=deadline_s)
    return await call_tool(call, offered, context, limits or ToolLimits(), Ticks(step_s))


async def test_a_good_call() -> None:
    result = await run(grep, '{"text": "port", "path": "/é"}', step_s=1.0)
    # start 1; _run looks at 2 and 3; the end is 4
    assert result == ToolResult(call_id="call_0", output="/é: port", wall_s=3.0, bytes_in=9)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ('{"path": "/"}', 'error: missing text (string); example {"text": "text", "path": "text"}'),
        ('{"text": 3, "path": "/"}', 'error: text: expected string, got 3; example {"text": "text", "path": "text"}'),
        ("", 'error: arguments must be a JSON object, example {"text": "text", "path": "text"}'),
        ("[1]", 'error: arguments must be a JSON object, example {"text": "text", "path": "text"}'),
        ('{"text": NaN}', 'error: arguments must be a JSON object, example {"text": "text", "path": "text"}'),
        ('{"text": 1e999}', 'error: arguments must be a JSON object, example {"text": "text", "path": "text"}'),
        ("[" * 100_000, 'error: arguments must be a JSON object, example {"text": "text", "path": "text"}'),
        ("9" * 10_000, 'error: arguments must be a JSON object, example {"text": "text", "path": "text"}'),
    ],
)
async def test_the_models_mistakes_are_one_short_line(arguments: str, said: str) -> None:
    result = await run(grep, arguments)
    assert result.output == said
    assert result.is_error
    assert result.bytes_in == 0


async def test_an_unknown_tool_names_the_known_ones() -> None:
    result = await run(grep, "{}", name="find")
    assert (result.output, result.is_error) == ("error: no tool 'find'; tools: grep", True)


async def test_numbers_the_schema_allows_pass() -> None:
    async def scale(by: float) -> str:
        return repr(by)

    assert (await run(scale, '{"by": 2.5e3}')).output == "2500.0"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("no folder /x"), "error: no folder /x"),
        (ValueError("two\n  lines"), "error: two lines"),
        (ValueError(), "error: ValueError"),
        (TypeError("bad mix"), "error: bad mix"),
        (ValueError("x" * 500), "error: " + "x" * 240 + "…"),
        (ValueError("half \ud800"), "error: half ?"),
    ],
)
async def test_what_the_tool_says_of_arguments_is_shown(error: Exception, said: str) -> None:
    async def ls(path: str) -> str:
        raise error

    result = await run(ls, '{"path": "/"}')
    assert (result.output, result.is_error) == (said, True)


@pytest.mark.parametrize("error", [KeyError("k"), RuntimeError("r"), SystemExit(3), TimeoutError("t"), OSError("o")])
async def test_anything_else_a_tool_raises_is_a_fault(error: BaseException) -> None:
    async def ls(path: str) -> str:
        raise error

    with pytest.raises(ToolFault, match=rf"tool ls raised {type(error).__name__}: .*test_tool_call\.py:\d+") as caught:
        await run(ls, '{"path": "/"}')
    assert caught.value.__cause__ is error


async def test_a_fault_passes_through_as_it_is() -> None:
    fault = ToolFault("the endpoint is down")

    async def ls(path: str) -> str:
        raise fault

    with pytest.raises(ToolFault) as caught:
        await run(ls, '{"path": "/"}')
    assert caught.value is fault


async def test_a_slow_tool_is_a_fault() -> None:
    cancelled = asyncio.Event()

    async def ls(path: str) -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return ""

    with pytest.raises(ToolFault, match=r"tool ls gave no answer within 0\.05 s"):
        await run(ls, '{"path": "/"}', deadline_s=0.05)
    assert cancelled.is_set()


async def test_lateness_that_could_not_be_interrupted_is_found_afterwards() -> None:
    async def ls(path: str) -> str:
        return "late"

    with pytest.raises(ToolFault, match="could not be interrupted"):
        await run(ls, '{"path": "/"}', deadline_s=5.0, step_s=6.0)


async def test_waiting_for_the_turn_is_not_time_of_the_call() -> None:
    spec = spec_from_function(grep)
    turn = asyncio.Lock()
    offered = {"grep": OfferedTool(tool=FunctionTool(spec, grep), check=ArgumentCheck(spec), turn=turn)}
    context = ToolContext(trace_id="trace_1", item=ITEM, deadline_s=0.05)
    call = ToolCall(id="call_0", name="grep", arguments='{"text": "port", "path": "/"}')
    await turn.acquire()
    waiting = asyncio.create_task(call_tool(call, offered, context, ToolLimits(), asyncio.get_running_loop().time))
    await asyncio.sleep(0.15)
    turn.release()
    assert (await waiting).output == "/: port"
    assert not turn.locked()


async def test_cancelling_the_episode_is_not_a_fault() -> None:
    started = asyncio.Event()

    async def ls(path: str) -> str:
        started.set()
        await asyncio.sleep(60)
        return ""

    task = asyncio.create_task(run(ls, '{"path": "/"}'))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_tool_that_cancels_itself_is_a_fault() -> None:
    async def ls(path: str) -> str:
        raise asyncio.CancelledError

    with pytest.raises(ToolFault, match="CancelledError"):
        await run(ls, '{"path": "/"}')


async def test_output_is_shaped() -> None:
    async def cat(path: str) -> str:
        return "x" * 100

    limits = ToolLimits(output_tokens=50, count_tokens=len)
    result = await run(cat, json.dumps({"path": "/"}), limits=limits)
    assert result.output == "x" * 25 + "\n[75 characters left out]"
    assert (result.bytes_in, result.is_error) == (100, False)


async def test_a_tool_that_returns_no_text_is_broken() -> None:
    async def cat(path: str) -> int:
        return 3

    with pytest.raises(ToolFault, match="returned int, expected text"):
        await run(cat, '{"path": "/"}')
