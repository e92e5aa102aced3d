"""The path every call takes."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import pytest

from agentrft.errors import ToolFault, ToolOutage
from agentrft.protocols import ToolContext
from agentrft.tools import ArgumentCheck, Guardrails, Policy, ToolLimits, spec_from_function
from agentrft.tools.call import CallPath, OfferedTool
from agentrft.tools.source import Hints
from agentrft.types import Item, ToolCall, ToolResult, ToolSpec

ITEM = Item(id="row-1", messages=())


class FunctionTool:
    """A tool that runs one async function."""

    def __init__(
        self, spec: ToolSpec, function: Callable[..., Any], turn: AbstractAsyncContextManager[object] | None = None
    ) -> None:
        self.spec = spec
        self.function = function
        self.turn: AbstractAsyncContextManager[object] = turn or nullcontext()
        self.contexts: list[ToolContext] = []

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        self.contexts.append(context)
        return await self.function(**arguments)


def path_to(
    tool: FunctionTool,
    *,
    limits: ToolLimits | None = None,
    guardrails: Mapping[str, Any] | None = None,
    hints: Hints | None = None,
    monotonic: Callable[[], float],
) -> CallPath:
    given = Guardrails.model_validate({"retries": {"backoff": [0.001, 0.002]}, **(guardrails or {})})
    offered = {tool.spec.name: OfferedTool(tool=tool, check=ArgumentCheck(tool.spec), hints=hints or Hints())}
    limits = limits or ToolLimits()
    return CallPath(offered, ITEM, "trace_1", limits=limits, policy=Policy(guardrails=given), monotonic=monotonic)


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
    path = path_to(
        FunctionTool(spec, function), limits=limits or ToolLimits(timeout_s=deadline_s), monotonic=Ticks(step_s)
    )
    (result,) = await path.run([ToolCall(id="call_0", name=name or spec.name, arguments=arguments)])
    return result


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
        ("[" * 60_000, 'error: arguments must be a JSON object, example {"text": "text", "path": "text"}'),
        ("[" * 70_000, 'error: arguments must have 65536 bytes at most, example {"text": "text", "path": "text"}'),
        (
            '{"text": ' + "[" * 101 + "]" * 101 + "}",
            'error: arguments must be nested 100 deep at most, example {"text": "text", "path": "text"}',
        ),
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
    limits = ToolLimits(timeout_s=0.05)
    path = path_to(FunctionTool(spec, grep, turn), limits=limits, monotonic=asyncio.get_running_loop().time)
    call = ToolCall(id="call_0", name="grep", arguments='{"text": "port", "path": "/"}')
    await turn.acquire()
    waiting = asyncio.create_task(path.run([call]))
    await asyncio.sleep(0.15)
    turn.release()
    assert (await waiting)[0].output == "/: port"
    assert not turn.locked()


class Flaky:
    """An outage for the first `failures` calls."""

    def __init__(self, failures: int, wait_s: float | None = None) -> None:
        self.failures, self.wait_s = failures, wait_s

    async def __call__(self) -> str:
        if self.failures:
            self.failures -= 1
            raise ToolOutage("the service said 503", wait_s=self.wait_s)
        return "up again"


FLAKY = ToolSpec(name="ask", description="Ask.", parameters={"type": "object", "properties": {}})
CALL = ToolCall(id="call_0", name="ask", arguments="{}")


@pytest.mark.parametrize(
    ("hints", "rules", "tries"),
    [
        (Hints(repeatable=True), {}, 4),  # its server recognises the call
        (Hints(), {"effect": "read"}, 4),
        (Hints(), {}, 1),
        (Hints(repeatable=True), {"effect": "write"}, 1),  # the answer may have been lost after the work was done
        (Hints(repeatable=True, writes=True), {}, 1),
        (Hints(writes=True), {"idempotent": "by_key"}, 4),
        (Hints(writes=True), {"effect": "read"}, 4),
    ],
)
async def test_an_outage_is_tried_again_where_that_is_safe(hints: Hints, rules: dict[str, Any], tries: int) -> None:
    tool = FunctionTool(FLAKY, Flaky(3, wait_s=60.0))  # it asks for a minute, and gets `backoff` at most
    path = path_to(tool, hints=hints, guardrails={"tools": {"*": rules}}, monotonic=Ticks(0.0))
    if tries == 4:
        (result,) = await path.run([CALL])
        assert (result.output, result.tries, result.is_error) == ("up again", 4, False)
    else:
        with pytest.raises(ToolFault, match="the service said 503"):
            await path.run([CALL])
    assert len(tool.contexts) == tries
    assert {context.call_id for context in tool.contexts} == {"call_" + CALL_HASH}


CALL_HASH = hashlib.sha256(b"trace_1/call_0").hexdigest()[:24]


async def test_an_outage_that_lasts_is_a_fault_that_says_how_often_it_was_tried() -> None:
    path = path_to(FunctionTool(FLAKY, Flaky(9)), hints=Hints(repeatable=True), monotonic=Ticks(0.0))
    with pytest.raises(ToolFault, match=r"the service said 503 \(4 tries\)"):
        await path.run([CALL])


async def test_a_call_that_hangs_is_tried_again_only_where_that_is_safe() -> None:
    slept = []

    async def hang() -> str:
        slept.append(None)
        await asyncio.sleep(60)
        return ""

    limits, twice = ToolLimits(timeout_s=0.02), {"retries": {"transient": 1, "backoff": [0.001, 0.001]}}
    for hints, tries in ((Hints(), 1), (Hints(repeatable=True), 2)):
        slept.clear()
        path = path_to(
            FunctionTool(FLAKY, hang),
            limits=limits,
            guardrails=twice,
            hints=hints,
            monotonic=asyncio.get_running_loop().time,
        )
        with pytest.raises(ToolFault, match=r"gave no answer within 0\.02 s"):
            await path.run([CALL])
        assert len(slept) == tries


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
