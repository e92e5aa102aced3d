"""A call path over plain functions, with a clock that stands still."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import pytest

from agentrft.protocols import ToolContext
from agentrft.tools import ArgumentCheck, Guardrails, Policy, ToolLimits
from agentrft.tools.call import CallPath, OfferedTool
from agentrft.tools.guardrails.secrets import Redaction
from agentrft.tools.source import Hints
from agentrft.types import Item, Message, ToolCall, ToolResult, ToolSpec

ITEM = Item(id="i", messages=(Message(role="user", content="Refund order A-17 of ann."),), fields={})
ANY = {"type": "object", "properties": {}, "additionalProperties": True}


class FunctionTool:
    """A tool that is a function of (arguments, context)."""

    def __init__(self, name: str, function: Callable[[Mapping[str, Any]], Any], parameters: Mapping[str, Any]) -> None:
        self.spec = ToolSpec(name=name, description=name, parameters=parameters)
        self._function = function
        self.contexts: list[ToolContext] = []

    @property
    def turn(self) -> AbstractAsyncContextManager[object]:
        return nullcontext()

    async def call(self, arguments: Mapping[str, Any], context: ToolContext) -> str:
        self.contexts.append(context)
        value = self._function(arguments)
        return await value if hasattr(value, "__await__") else value


class Agent:
    """What the model would do: calls by name, results as text."""

    def __init__(self, path: CallPath, tools: Mapping[str, FunctionTool]) -> None:
        self.path = path
        self.tools = tools
        self._calls = 0

    async def results(self, *calls: tuple[str, Any]) -> list[ToolResult]:
        made = []
        for name, arguments in calls:
            text = arguments if isinstance(arguments, str) else json.dumps(arguments)
            made.append(ToolCall(id=f"call_{self._calls}", name=name, arguments=text))
            self._calls += 1
        return await self.path.run(made)

    async def says(self, name: str, arguments: Any = None) -> str:
        (result,) = await self.results((name, {} if arguments is None else arguments))
        return result.output

    def asked(self, name: str) -> int:
        return len(self.tools[name].contexts)


@pytest.fixture
def agent() -> Callable[..., Agent]:
    def make(
        guardrails: Mapping[str, Any] | None = None,
        functions: Mapping[str, Callable[[Mapping[str, Any]], Any]] | None = None,
        *,
        parameters: Mapping[str, Mapping[str, Any]] | None = None,
        hints: Mapping[str, Hints] | None = None,
        place: str = "sandbox",
        environ: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Agent:
        given = Guardrails.model_validate({"retries": {"backoff": [0.001, 0.002]}, **(guardrails or {})})
        functions = functions or {name: lambda arguments: "ok" for name in ("get_order", "refund", "search")}
        tools = {name: FunctionTool(name, f, (parameters or {}).get(name, ANY)) for name, f in functions.items()}
        offered = {
            name: OfferedTool(tool=tool, check=ArgumentCheck(tool.spec), hints=(hints or {}).get(name, Hints()))
            for name, tool in tools.items()
        }
        policy = Policy(guardrails=given, place=place, redaction=Redaction(given.secrets, environ), **more)
        limits = ToolLimits(count_tokens=len, output_tokens=2_000, timeout_s=5.0)
        path = CallPath(offered, ITEM, "trace_1", limits=limits, policy=policy, monotonic=lambda: 0.0)
        return Agent(path, tools)

    return make
