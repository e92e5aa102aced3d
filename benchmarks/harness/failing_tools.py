"""Tools that fail as told: the faults of the detectors' benchmark, put in where they would really arise.

A `FailingSource` stands between a job's tools and the product's own path of calls, so that retries, time limits,
shaping and guardrails treat an injected failure like any other. What was done to which call is noted at the cause.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from agentrft.protocols import Tool, ToolContext
from agentrft.tools.source import Hints, SourceSession, ToolSource
from agentrft.types import Item, ToolSpec

Ask = Callable[[], Awaitable[str]]


@dataclass(slots=True)
class Log:
    """What was done, by trace id."""

    touched: dict[str, set[str]] = field(default_factory=dict)
    raw: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """(tool, whole output) of every call, in order."""
    messages: dict[str, list[str]] = field(default_factory=dict)
    """What the tools' own code rejected, in its words."""

    def touch(self, trace_id: str, kind: str) -> None:
        self.touched.setdefault(trace_id, set()).add(kind)


@dataclass(frozen=True, slots=True)
class Call:
    """One call on its way to the tool."""

    name: str
    arguments: Mapping[str, Any]
    context: ToolContext
    rng: random.Random
    number: int
    """Of the episode's calls, from 0."""
    ask: Ask
    touch: Callable[[], None]
    """To be called when the fault shows."""


OnCall = Callable[[Call], Awaitable[str]]
OnSpec = Callable[[ToolSpec], ToolSpec]


class StaticTool:
    """A tool that always says the same."""

    def __init__(self, spec: ToolSpec, output: str) -> None:
        self.spec = spec
        self._output = output

    @property
    def turn(self) -> AbstractAsyncContextManager[object]:
        return nullcontext()

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> str:
        return self._output


class FailingSource:
    """A `ToolSource` over another one."""

    def __init__(
        self,
        inner: ToolSource,
        log: Log,
        *,
        kind: str = "",
        seed: int = 0,
        on_call: OnCall | None = None,
        on_spec: OnSpec = lambda spec: spec,
        twin: StaticTool | None = None,
    ) -> None:
        self.inner, self.log, self.kind, self.seed = inner, log, kind, seed
        self.on_call, self.on_spec, self.twin = on_call, on_spec, twin

    @property
    def specs(self) -> Sequence[ToolSpec]:
        return [*map(self.on_spec, self.inner.specs), *([self.twin.spec] if self.twin else [])]

    @property
    def names(self) -> Sequence[str]:
        return [spec.name for spec in self.specs]

    @property
    def can_snapshot(self) -> bool:
        return False

    def hints(self, name: str) -> Hints:
        return Hints()

    def timeout_s(self, name: str) -> float | None:
        return None

    async def open(self, item: Item, trace_id: str, timeout_s: float) -> FailingSession:
        return FailingSession(self, await self.inner.open(item, trace_id, timeout_s), trace_id)

    async def close(self) -> None:
        await self.inner.close()


class FailingSession:
    """The tools of one episode."""

    def __init__(self, source: FailingSource, inner: SourceSession, trace_id: str) -> None:
        self.source, self.inner, self.trace_id = source, inner, trace_id
        self.rng = random.Random(f"{source.seed}/{source.kind}/{trace_id}")
        self.calls = 0

    @property
    def tools(self) -> Sequence[Tool]:
        twin = [self.source.twin] if self.source.twin else []
        return [*(FailingTool(self, tool) for tool in self.inner.tools), *twin]

    async def state_hash(self) -> str | None:
        return await self.inner.state_hash()

    async def snapshot(self) -> object:
        return await self.inner.snapshot()

    async def restore(self, snapshot: object) -> None:
        await self.inner.restore(snapshot)

    async def close(self) -> None:
        await self.inner.close()


class FailingTool:
    """One tool with the fault in front of it."""

    def __init__(self, session: FailingSession, inner: Tool) -> None:
        self.session, self.inner = session, inner
        self.spec = session.source.on_spec(inner.spec)

    @property
    def turn(self) -> AbstractAsyncContextManager[object]:
        return self.inner.turn

    async def call(self, arguments: Mapping[str, object], context: ToolContext) -> str:
        session, log = self.session, self.session.source.log

        async def ask() -> str:
            try:
                said = await self.inner.call(arguments, context)
            except ValueError as error:
                log.messages.setdefault(session.trace_id, []).append(str(error))
                raise
            return said.decode("utf-8", "replace") if isinstance(said, bytes) else said

        number, session.calls = session.calls, session.calls + 1
        made = Call(
            name=self.inner.spec.name,
            arguments=arguments,
            context=context,
            rng=session.rng,
            number=number,
            ask=ask,
            touch=lambda: log.touch(session.trace_id, session.source.kind),
        )
        on_call = session.source.on_call
        said = await (on_call(made) if on_call else ask())
        log.raw.setdefault(session.trace_id, []).append((self.spec.name, said))
        return said
