"""From a job's tool bindings to the tools of its episodes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from agentrft.errors import ToolFault, UserError
from agentrft.protocols import ToolContext
from agentrft.tools.call import OfferedTool, call_tool
from agentrft.tools.python_tool import PythonBinding, PythonSession, PythonSource, load_python_source
from agentrft.tools.schema import ArgumentCheck
from agentrft.tools.shape import ToolLimits
from agentrft.types import Item, ToolCall, ToolResult, ToolSpec

ToolBinding = PythonBinding
"""What a job file may write under `agent.tools`, tagged by `type`."""


def build_toolset(
    bindings: Sequence[ToolBinding],
    base_dir: Path,
    limits: ToolLimits | None = None,
    *,
    monotonic: Callable[[], float] = time.perf_counter,
) -> PythonToolSet:
    """The tools of a job; files are relative to `base_dir` and run once, now.

    `limits` defaults to `ToolLimits()`. Raises UserError (`param` is `agent.tools.<position>.target`) for a target that
    is missing or unusable, and for two tools of one name.
    """
    modules: dict[Path, ModuleType] = {}
    sources: list[PythonSource] = []
    owners: dict[str, str] = {}
    for position, binding in enumerate(bindings):
        param = f"agent.tools.{position}.target"
        source = load_python_source(binding, base_dir, modules, param=param)
        for spec in source.specs:
            if spec.name in owners:
                message = f"two tools are named {spec.name}: {owners[spec.name]} and {binding.target}; rename one"
                raise UserError(message, param=param, code="invalid_tool")
            owners[spec.name] = binding.target
        sources.append(source)
    return PythonToolSet(sources, limits or ToolLimits(), monotonic)


class PythonToolSet:
    """The tools of a job, `ToolSet` of protocols."""

    def __init__(self, sources: Sequence[PythonSource], limits: ToolLimits, monotonic: Callable[[], float]) -> None:
        self._sources = tuple(sources)
        self._limits = limits
        self._monotonic = monotonic
        self.specs: tuple[ToolSpec, ...] = tuple(spec for source in sources for spec in source.specs)
        """Every bound tool, in the order of the bindings."""
        self._checks = {spec.name: ArgumentCheck(spec, param="agent.tools") for spec in self.specs}

    async def open(self, item: Item, trace_id: str) -> PythonToolSession:
        """Fresh tools for one episode.

        An item that lists tools is offered those, described as it describes them. Raises UserError when it lists one
        that the job does not bind, ToolFault when a tool cannot start.
        """
        specs, checks = self._offered(item)
        sessions: list[PythonSession] = []
        try:
            for source in self._sources:
                sessions.append(await source.open(item, self._limits.timeout_s))
        except BaseException:
            for session in sessions:
                await session.close()
            raise
        tools = {tool.spec.name: tool for session in sessions for tool in session.tools}
        offered = {
            spec.name: OfferedTool(tool=tools[spec.name], check=checks[spec.name], turn=tools[spec.name].turn)
            for spec in specs
        }
        context = ToolContext(trace_id=trace_id, item=item, deadline_s=self._limits.timeout_s)
        return PythonToolSession(specs, offered, sessions, context, self._limits, self._monotonic)

    async def close(self) -> None:
        """Nothing to let go: Python tools live in their sessions."""

    def _offered(self, item: Item) -> tuple[tuple[ToolSpec, ...], Mapping[str, ArgumentCheck]]:
        if not item.tools:
            return self.specs, self._checks
        for spec in item.tools:
            if spec.name not in self._checks:
                bound = ", ".join(self._checks) or "none"
                message = f"item {item.id}: it lists the tool {spec.name}, which the job does not bind; bound: {bound}"
                raise UserError(message, param="agent.tools", code="tool_not_found")
        return item.tools, {spec.name: ArgumentCheck(spec, param="tools") for spec in item.tools}


class PythonToolSession:
    """All tools of one episode, `ToolSession` of protocols."""

    def __init__(
        self,
        specs: tuple[ToolSpec, ...],
        offered: Mapping[str, OfferedTool],
        sessions: Sequence[PythonSession],
        context: ToolContext,
        limits: ToolLimits,
        monotonic: Callable[[], float],
    ) -> None:
        self.specs: Sequence[ToolSpec] = specs
        self._offered = offered
        self._sessions = tuple(sessions)
        self._context = context
        self._limits = limits
        self._monotonic = monotonic
        self._is_closed = False

    async def call(self, call: ToolCall) -> ToolResult:
        """See `agentrft.tools.call.call_tool`. Raises ToolFault also when the session is closed."""
        if self._is_closed:
            raise ToolFault(f"tool {call.name} was called after its episode ended")
        return await call_tool(call, self._offered, self._context, self._limits, self._monotonic)

    async def close(self) -> None:
        """End the episode's tools; safe to call twice. Never raises for what a tool does."""
        if self._is_closed:
            return
        self._is_closed = True
        for session in self._sessions:
            await session.close()
