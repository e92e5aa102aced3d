"""Who plays a diagnosis: the job's agent over a model of ours, or over one behind an OpenAI-compatible API."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from agentrft import build
from agentrft.engines.openai_chat import OpenAIChat, open_judge
from agentrft.errors import EngineFault
from agentrft.jobs.models import Weights
from agentrft.jobs.probe import missing_grader
from agentrft.jobs.spec import JobSpec
from agentrft.jobs.tools import open_tools
from agentrft.protocols import ChatEndpoint, Grader, ToolSession, ToolSet
from agentrft.rollout import Agent, Limits
from agentrft.rollout.actor import TextDialogue
from agentrft.tools import JobTools, ToolLimits
from agentrft.types import Item, Message, TokenUsage, ToolCall, ToolResult, ToolSpec

_RAW_CHARS = 65_536
"""Of a whole tool output that is kept beside what the model saw of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Player:
    """An agent that is ready, and what watches it."""

    agent: Agent
    tools: JobTools
    grader: Grader
    second: Grader | None
    """The job's `audit.grader`."""
    engine: str
    """For people: dtype and device, or the address."""
    usage: Mapping[tuple[int, int], TokenUsage]
    """What the provider counted, by (item's place, member); empty for our own engine."""
    raw: dict[str, dict[str, str]]
    """Trace id → call id → the whole output, of those that were cut."""


@asynccontextmanager
async def open_player(
    spec: JobSpec,
    base_dir: Path,
    model: Weights | ChatEndpoint,
    *,
    load: build.LoadEngine | None = None,
) -> AsyncIterator[Player]:
    """The job's agent over this model; closed in reverse order whatever happens inside.

    Raises UserError without a grader, or for a part of the job that cannot be used.
    """
    async with AsyncExitStack() as opened:
        if isinstance(model, ChatEndpoint):
            parts = await _over_endpoint(opened, spec, base_dir, model)
        else:
            live = await opened.enter_async_context(build.open_job(spec, base_dir, model, training=False, load=load))
            engine = f"{live.engine.dtype} on {live.engine.device}, {live.chat_format.name} format"
            parts = _Parts(agent=live.agent, tools=live.tools, grader=live.graded(), engine=engine)
        second = build.audit_grader_of(spec, base_dir)
        if second is not None:
            opened.push_async_callback(second.close)
        raw: dict[str, dict[str, str]] = {}
        yield Player(
            agent=replace(parts.agent, tools=KeepingTools(parts.tools, raw)),
            tools=parts.tools,
            grader=parts.grader,
            second=second,
            engine=parts.engine,
            usage=parts.usage,
            raw=raw,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    agent: Agent
    tools: JobTools
    grader: Grader
    engine: str
    usage: Mapping[tuple[int, int], TokenUsage] = field(default_factory=dict)


async def _over_endpoint(opened: AsyncExitStack, spec: JobSpec, base_dir: Path, endpoint: ChatEndpoint) -> _Parts:
    chat = open_judge(endpoint, "endpoint")
    opened.push_async_callback(chat.close)
    grader = build.grader_of(spec, base_dir)
    if grader is None:
        raise missing_grader()
    opened.push_async_callback(grader.close)
    own = spec.agent.limits
    limits = ToolLimits(timeout_s=own.tool_timeout_s, output_tokens=own.tool_output_tokens)
    tools = await open_tools(spec, base_dir, limits)
    opened.push_async_callback(tools.close)
    usage: defaultdict[tuple[int, int], TokenUsage] = defaultdict(TokenUsage)
    actor = EndpointActor(chat=chat, usage=usage)
    agent = Agent(actor=actor, tools=tools, limits=build.limits_of(spec))
    where = endpoint.base_url or "the provider of OPENAI_BASE_URL"
    return _Parts(agent=agent, tools=tools, grader=grader, engine=where, usage=usage)


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointActor:
    """Plays through an API and counts each episode's tokens."""

    chat: OpenAIChat
    usage: defaultdict[tuple[int, int], TokenUsage]

    def open(self, item: Item, tools: Sequence[ToolSpec], limits: Limits, order: tuple[int, int]) -> TextDialogue:
        """A dialogue of text; `order` names the episode."""

        def count(used: TokenUsage) -> None:
            self.usage[order] += used

        return TextDialogue(_Counted(self.chat, count), item.messages, tools)


class _Counted:
    """A `ChatModel` that tells what each reply used."""

    def __init__(self, chat: OpenAIChat, count: Callable[[TokenUsage], None]) -> None:
        self._chat = chat
        self._count = count

    async def reply(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> Message:
        """As `OpenAIChat.reply`."""
        completion = await self._chat.complete(messages, tools=tools)
        if completion.usage is not None:
            self._count(completion.usage)
        if completion.finish_reason == "length":
            raise EngineFault("the provider cut a reply off; raise the server's limit of output tokens")
        if completion.refusal and completion.message.content is None:
            return Message(role="assistant", content=completion.refusal)
        return completion.message


@runtime_checkable
class KeepsRaw(Protocol):
    """A session that still has the whole outputs."""

    @property
    def raw_outputs(self) -> Sequence[str]:
        """Of every call so far, in order."""
        ...


class KeepingTools:
    """A tool set that keeps whole outputs of which the model saw a part: detectors look for what was cut off."""

    def __init__(self, tools: ToolSet, raw: dict[str, dict[str, str]]) -> None:
        self._tools = tools
        self._raw = raw

    async def open(self, item: Item, trace_id: str) -> ToolSession:
        """As the tools' own."""
        return _KeepingSession(await self._tools.open(item, trace_id), self._raw.setdefault(trace_id, {}))

    async def close(self) -> None:
        """Nothing: whoever opened the tools closes them."""


class _KeepingSession:
    def __init__(self, session: ToolSession, raw: dict[str, str]) -> None:
        self._session = session
        self._raw = raw

    @property
    def specs(self) -> Sequence[ToolSpec]:
        return self._session.specs

    async def run(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        """As the session's own."""
        results = await self._session.run(calls)
        if isinstance(self._session, KeepsRaw):
            for result, raw in zip(results, self._session.raw_outputs[-len(results) :], strict=True):
                if len(raw) > len(result.output):
                    self._raw[result.call_id] = raw[:_RAW_CHARS]
        return results

    async def state_hash(self) -> str | None:
        return await self._session.state_hash()

    async def close(self) -> None:
        await self._session.close()
