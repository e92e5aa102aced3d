"""The tools of a job, and of one episode: whatever kinds they are, one set of names and one path for calls."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from agentrft.errors import ToolFault, UserError
from agentrft.tools.call import CallPath, OfferedTool, PastCalls
from agentrft.tools.docs import ToolDoc, check_docs, documented
from agentrft.tools.guardrails import Policy
from agentrft.tools.guardrails.spec import ToolRules
from agentrft.tools.limits import ToolLimits
from agentrft.tools.output import READ_OUTPUT, KeptOutputs, ReadOutput
from agentrft.tools.present import Shaping
from agentrft.tools.schema import ArgumentCheck
from agentrft.tools.source import Hints, SourceSession, ToolSource
from agentrft.types import Item, ToolCall, ToolResult, ToolSpec


class JobTools:
    """All tools of a job, `ToolSet` of protocols."""

    def __init__(
        self,
        sources: Mapping[str, ToolSource],
        limits: ToolLimits | None = None,
        policy: Policy | None = None,
        shaping: Shaping | None = None,
        *,
        docs: Mapping[str, ToolDoc] | None = None,
        monotonic: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`sources` by the field of the job that each stands in; `docs` are other words for tools than their own.

        Raises UserError for two tools of one name, for words about what is not there, and for guardrails that deny the
        tool that `offload` needs.
        """
        self.limits = limits or ToolLimits()
        self.shaping = shaping or Shaping()
        self._keeps = any(spec.offload for spec in self.shaping.outputs.values())
        self.policy = _with_built_in(policy or Policy()) if self._keeps else policy or Policy()
        self._sources = tuple(sources.values())
        self._docs = docs or {}
        self._monotonic = monotonic
        self._owners: dict[str, ToolSource] = {}
        for param, source in sources.items():
            for name in source.names:
                if name == READ_OUTPUT.name and self._keeps:
                    message = f"{name} is the built-in tool that `offload` brings; rename yours"
                    raise UserError(message, param=param, code="invalid_tool")
                if name in self._owners:
                    message = f"two tools are named {name}; rename one, or leave one out"
                    raise UserError(message, param=param, code="invalid_tool")
                self._owners[name] = source
        self.names: tuple[str, ...] = tuple(self._owners)
        """Every bound tool, in the order of the bindings."""
        check_docs(self._docs, self.names)
        own = [spec for source in self._sources for spec in source.specs]
        self.described: tuple[ToolSpec, ...] = documented(own, self._docs)
        """The tools that describe themselves, those that are hidden or that guardrails deny among them."""
        self.specs: tuple[ToolSpec, ...] = self._shown(self.described)
        """Of these the ones that the model sees; what rows without `tools` are offered."""
        self._checks = {spec.name: ArgumentCheck(spec, param="agent.tools") for spec in self.specs}

    async def open(self, item: Item, trace_id: str) -> EpisodeTools:
        """Fresh tools for one episode.

        An item that lists tools is offered those, described as it describes them. Raises UserError when it lists one
        that the job does not bind, ToolFault when a tool cannot start.
        """
        specs, checks = self._offered(item)
        sources = [source for source in self._sources if any(name in checks for name in source.names)]
        sessions: list[SourceSession] = []
        try:
            for source in sources:
                sessions.append(await source.open(item, trace_id, self.limits.timeout_s))
        except BaseException:
            await _close_all(sessions)
            raise
        tools = {tool.spec.name: tool for session in sessions for tool in session.tools}
        offered = {
            name: OfferedTool(
                tool=tools[name],
                check=check,
                hints=self.hints(name),
                timeout_s=self._owners[name].timeout_s(name),
            )
            for name, check in checks.items()
            if name in self._owners
        }
        kept = KeptOutputs() if self._keeps else None
        if kept is not None:
            reader = ReadOutput(kept, self.limits)
            offered[READ_OUTPUT.name] = OfferedTool(tool=reader, check=checks[READ_OUTPUT.name])
        path = CallPath(
            offered,
            item,
            trace_id,
            limits=self.limits,
            policy=self.policy,
            shaping=self.shaping,
            kept=kept,
            monotonic=self._monotonic,
        )
        can_snapshot = all(source.can_snapshot for source in sources)
        return EpisodeTools(specs, path, sessions, can_snapshot=can_snapshot)

    def presented(self, specs: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
        """Tools that a row describes, as the model is told about them; raises UserError as at construction."""
        return self._shown(documented(specs, self._docs))

    def hints(self, name: str) -> Hints:
        """What the tool says about itself."""
        return self._owners[name].hints(name)

    async def close(self) -> None:
        """Let go of servers, connections and processes; safe to call twice."""
        await _close_all(self._sources)

    def _offered(self, item: Item) -> tuple[tuple[ToolSpec, ...], Mapping[str, ArgumentCheck]]:
        if not item.tools:
            return self.specs, self._checks
        for spec in item.tools:
            if spec.name not in self._owners:
                bound = ", ".join(self.names) or "none"
                message = f"item {item.id}: it lists the tool {spec.name}, which the job does not bind; bound: {bound}"
                raise UserError(message, param="agent.tools", code="tool_not_found")
        shown = self.presented(item.tools)
        return shown, {spec.name: ArgumentCheck(spec, param="tools") for spec in shown}

    def _shown(self, specs: Sequence[ToolSpec]) -> tuple[ToolSpec, ...]:
        """Those that the job and its guardrails let the model see, and the tool that reads on in long outputs."""
        hidden = {name for name, doc in self._docs.items() if doc.hidden}
        built_in = (READ_OUTPUT,) if self._keeps else ()
        return (*(spec for spec in specs if spec.name not in hidden and self.policy.offers(spec.name)), *built_in)


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeState:
    """Where the tools of an episode stand."""

    bindings: Sequence[object]
    """Snapshot of each that is open."""
    calls: PastCalls


class EpisodeTools:
    """All tools of one episode, `RestorableSession` of protocols."""

    def __init__(
        self, specs: tuple[ToolSpec, ...], path: CallPath, sessions: Sequence[SourceSession], *, can_snapshot: bool
    ) -> None:
        self.specs: Sequence[ToolSpec] = specs
        self.can_snapshot = can_snapshot
        """Whether every binding that is open can tell its state and go back to it."""
        self._path = path
        self._sessions = tuple(sessions)
        self._is_closed = False

    async def run(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        """See `CallPath.run`. Raises ToolFault also when the session is closed."""
        if self._is_closed:
            raise ToolFault(f"tool {calls[0].name} was called after its episode ended")
        return await self._path.run(calls)

    @property
    def raw_outputs(self) -> Sequence[str]:
        """Of every call so far, in order: what the tool gave, without secrets, before it was shaped."""
        return [past.raw for past in self._path.history.past]

    async def call(self, call: ToolCall) -> ToolResult:
        """`run` for a single call."""
        (result,) = await self.run([call])
        return result

    async def state_hash(self) -> str | None:
        """The state of the tools; a JSON list where several bindings are open. None when none can tell."""
        hashes = [await session.state_hash() for session in self._sessions]
        if len(hashes) > 1 and any(one is not None for one in hashes):
            return json.dumps(hashes)
        return hashes[0] if len(hashes) == 1 else None

    async def snapshot(self) -> EpisodeState:
        """The state of every binding, and of the calls so far; raises ToolFault when one cannot tell."""
        return EpisodeState(bindings=[await session.snapshot() for session in self._sessions], calls=self._path.past())

    async def restore(self, snapshot: object) -> None:
        """Go on from a snapshot of an episode of the same item; raises ToolFault when a binding fails to."""
        assert isinstance(snapshot, EpisodeState), type(snapshot)
        for session, state in zip(self._sessions, snapshot.bindings, strict=True):
            await session.restore(state)
        self._path.go_on_from(snapshot.calls)

    async def close(self) -> None:
        """End the episode's tools; safe to call twice. Never raises for what a tool does."""
        if self._is_closed:
            return
        self._is_closed = True
        await _close_all(self._sessions)


def _with_built_in(policy: Policy) -> Policy:
    """`read_output` needs no entry under `guardrails.tools`; raises UserError where it is denied."""
    guardrails = policy.guardrails
    if guardrails.tools:
        tools = {READ_OUTPUT.name: ToolRules(), **guardrails.tools}
        policy = replace(policy, guardrails=guardrails.model_copy(update={"tools": tools}))
    if not policy.offers(READ_OUTPUT.name):
        message = f"{READ_OUTPUT.name}, which `offload` needs, is denied; let it through, or leave `offload` out"
        raise UserError(message, param="guardrails.deny", code="invalid_guardrails")
    return policy


async def _close_all(parts: Sequence[SourceSession | ToolSource]) -> None:
    """Close them in their order; who is cancelled meanwhile still closes the rest."""
    async with AsyncExitStack() as stack:
        for part in reversed(parts):
            stack.push_async_callback(part.close)
