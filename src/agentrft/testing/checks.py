"""Checks for your own tools and graders: one line in your tests, every problem named at once.

    async def test_my_tool():
        await check_tool(MyTool(), {"path": "/etc/hosts"})

They look at the contract in `agentrft.protocols` and at ordinary mishaps. They do not judge whether a grader's numbers
are sensible or hard to cheat.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import jsonschema

from agentrft.errors import ToolFault
from agentrft.protocols import Grader, Tool, ToolContext
from agentrft.types import Grade, Item, Message, Sample, StopReason, ToolCall, ToolSpec

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ITEM = Item(id="check", messages=(Message(role="user", content="check"),))


async def check_tool(tool: Tool, arguments: Mapping[str, Any], *, item: Item = _ITEM, deadline_s: float = 30.0) -> None:
    """Call `tool` with good `arguments`, twice at once, and read its spec.

    Raises AssertionError that lists every problem found.
    """
    problems = [*_spec_problems(tool.spec), *_turn_problems(tool)]
    if not problems:
        problems += _argument_problems(tool.spec, arguments)
        context = ToolContext(trace_id="trace_check", call_id="call_check", item=item, deadline_s=deadline_s)
        async with asyncio.TaskGroup() as group:
            # Calls of one reply run side by side, so a tool must bear it.
            calls = [group.create_task(_call_problem(tool, arguments, context)) for _ in range(2)]
        problems += dict.fromkeys(problem for call in calls if (problem := call.result()))
    _raise(f"tool {tool.spec.name!r}", problems)


async def check_grader(grader: Grader, item: Item, samples: Sequence[Sample] = ()) -> None:
    """Grade `samples` and some that every grader meets sooner or later: empty, truncated, very long, odd characters.

    Each must give a finite number or a reason, the same one twice. Raises AssertionError that lists every problem.
    """
    problems = []
    for name, sample in [*_odd_samples(), *((f"samples[{i}]", sample) for i, sample in enumerate(samples))]:
        problems += [f"{name}: {problem}" for problem in await _grade_problems(grader, sample, item)]
    _raise("grader", problems)


def _turn_problems(tool: Tool) -> Iterator[str]:
    if not isinstance(getattr(tool, "turn", None), AbstractAsyncContextManager):
        yield "no `turn`: expected what is held during a call, `contextlib.nullcontext()` where calls need not wait"


def _spec_problems(spec: ToolSpec) -> Iterator[str]:
    if not _NAME.fullmatch(spec.name):
        yield f"name {spec.name!r}: expected 1 to 64 letters, digits, `_` or `-`"
    if not spec.description.strip():
        yield "no description: the model has nothing to choose this tool by"
    if spec.parameters.get("type") != "object" or "properties" not in spec.parameters:
        yield f"parameters: expected a JSON Schema of type object with `properties`, got {dict(spec.parameters)}"
    try:
        jsonschema.Draft202012Validator.check_schema(dict(spec.parameters))
    except jsonschema.SchemaError as error:
        yield f"parameters: not a JSON Schema: {error.message}"


def _argument_problems(spec: ToolSpec, arguments: Mapping[str, Any]) -> Iterator[str]:
    for error in jsonschema.Draft202012Validator(dict(spec.parameters)).iter_errors(dict(arguments)):
        yield f"arguments {dict(arguments)} do not fit the schema: {error.message}"


async def _call_problem(tool: Tool, arguments: Mapping[str, Any], context: ToolContext) -> str | None:
    try:
        async with tool.turn, asyncio.timeout(context.deadline_s):
            output = await tool.call(arguments, context)
    except TimeoutError:
        return f"call({dict(arguments)}) took longer than {context.deadline_s} s"
    except ToolFault as fault:
        return f"call({dict(arguments)}) could not reach what it needs: {fault}"
    except Exception as error:  # the boundary to code under test
        expected = "give arguments that work" if isinstance(error, ValueError) else "raise ValueError or ToolFault"
        return f"call({dict(arguments)}) raised {type(error).__name__}: {error}; {expected}"
    return None if isinstance(output, str | bytes) else f"call returned {type(output).__name__}; expected str"


async def _grade_problems(grader: Grader, sample: Sample, item: Item) -> list[str]:
    grades = []
    for _ in range(2):
        try:
            grades.append(await grader.grade(sample, item, "trace_check"))
        except Exception as error:  # the boundary to code under test
            return [f"grade raised {type(error).__name__}: {error}; expected a Grade with a reason"]
    first, second = grades
    if not isinstance(first, Grade):
        return [f"grade returned {type(first).__name__}; expected Grade"]
    if first.traceback:
        return [f"the grader's code raised:\n{first.traceback}"]
    if first.value is not None and not math.isfinite(first.value):
        return [f"value is {first.value}; expected a finite number, or no value and a reason"]
    if (first.value, first.reason) != (second.value, second.reason):
        return [f"two grades of the same sample differ: {first.value} and {second.value}"]
    return []


def _odd_samples() -> Iterator[tuple[str, Sample]]:
    call = ToolCall(id="call_0_0", name="no_such_tool", arguments="{not json")
    yield "empty answer", Sample(output_text="")
    yield "very long answer", Sample(output_text="word " * 20_000)
    yield "odd characters", Sample(output_text="\x00\u200b🙂 NaN {{item.x}} é")
    yield "malformed call, turn limit", Sample(output_text="", output_tools=(call,), stop_reason=StopReason.MAX_TURNS)
    yield "truncated reply", Sample(output_text="", stop_reason=StopReason.MAX_REPLY_TOKENS)


def _raise(what: str, problems: Sequence[str]) -> None:
    if problems:
        raise AssertionError(f"{what} has {len(problems)} problem(s):\n" + "\n".join(f"- {p}" for p in problems))
