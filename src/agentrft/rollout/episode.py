"""The agent loop: one episode, from the item's messages to a stop reason.

What the model gets wrong is told to it as a tool result; what an outside part gets wrong ends this episode as a fault
and leaves its siblings alone; running into a limit is a stop reason. Only a user's mistake and a bug raise.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from agentrft.clock import SYSTEM_CLOCK
from agentrft.errors import BoundaryError
from agentrft.protocols import Clock, Reply, ToolSession, ToolSet
from agentrft.rollout.actor import Actor, Dialogue
from agentrft.rollout.ids import EpisodeKey
from agentrft.rollout.limits import Limits
from agentrft.types import Episode, Item, Message, StopReason, ToolResult, Turn

_MAX_STATE_HASH = 64
"""Characters of what tools say of their state."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """What plays an episode: who replies, with which tools, how far."""

    actor: Actor
    tools: ToolSet
    limits: Limits
    clock: Clock = SYSTEM_CLOCK
    asks_state: bool = False
    """Ask the tools for their state before each reply; only credit that compares states needs it, and it costs time."""


async def run_episode(item: Item, key: EpisodeKey, agent: Agent, *, order: tuple[int, int] = (0, 0)) -> Episode:
    """Run the agent once on `item`.

    `order` is (item, member) within the step, for engines in exact mode. Returns an episode whatever the model, the
    tools or the engine do. Raises UserError when the prompt does not fit the limits.
    """
    started = agent.clock.monotonic()
    course = _Course(list(item.messages), [])
    timer = asyncio.timeout(agent.limits.max_time_s)
    fault = None
    try:
        async with _tools_of(agent, item, key) as session, timer:
            course.dialogue = agent.actor.open(item, session.specs, agent.limits, order)
            stop = await _converse(course, course.dialogue, session, agent, key)
    except BoundaryError as error:
        stop, fault = StopReason.FAULT, f"{error.boundary}: {error}"
    except TimeoutError:
        if not timer.expired():
            raise
        stop = StopReason.MAX_TIME
        if not course.turns:  # it waited for the engine: the policy did nothing that could be judged
            stop, fault = StopReason.FAULT, f"engine: no reply within max_time_s ({agent.limits.max_time_s:g} s)"
    return Episode(
        id=key.id,
        trace_id=key.trace_id,
        item_id=item.id,
        step=key.step,
        member=key.member,
        attempt=key.attempt,
        messages=tuple(course.messages),
        turns=tuple(course.turns),
        stop_reason=stop,
        tokens=course.dialogue.trace() if course.dialogue else None,
        fault=fault,
        wall_s=agent.clock.monotonic() - started,
    )


async def _converse(
    course: _Course, dialogue: Dialogue, session: ToolSession, agent: Agent, key: EpisodeKey
) -> StopReason:
    """Reply, run its calls, append the results; again, until something ends it."""
    limits = agent.limits
    turn = malformed_in_a_row = 0
    while True:
        state_hash = short_state(await session.state_hash()) if agent.asks_state else None
        start = dialogue.position
        reply = _with_call_ids(await dialogue.reply(key.seed(turn)), turn)
        course.add_reply(reply, start, dialogue.position, state_hash)
        if reply.truncated:
            return limits.cut_by(len(reply.tokens))
        if not reply.malformed and not reply.message.tool_calls:
            return StopReason.ANSWERED
        malformed_in_a_row = malformed_in_a_row + 1 if reply.malformed else 0
        if malformed_in_a_row > limits.max_malformed:
            return StopReason.MALFORMED
        if turn + 1 == limits.max_turns:
            return StopReason.MAX_TURNS
        results = await results_of(reply, session, turn)
        course.add_results(results)
        if any(result.ends_episode for result in results):
            return StopReason.GUARDRAIL
        if not dialogue.add_results(results):
            return StopReason.MAX_EPISODE_TOKENS
        turn += 1


async def results_of(reply: Reply, session: ToolSession, turn: int) -> list[ToolResult]:
    """Run the calls of one reply side by side, or say why it could not be read."""
    if reply.malformed:
        ids = [call.id for call in reply.message.tool_calls] or [_call_id(turn, 0)]
        return [ToolResult(call_id=id, output=f"error: {reply.malformed}", is_error=True) for id in ids]
    return await session.run(reply.message.tool_calls)


def _with_call_ids(reply: Reply, turn: int) -> Reply:
    """Ids that do not depend on what the model wrote, so that a repeated episode repeats them."""
    calls = tuple(replace(call, id=_call_id(turn, k)) for k, call in enumerate(reply.message.tool_calls))
    return replace(reply, message=replace(reply.message, tool_calls=calls))


def short_state(state_hash: str | None) -> str | None:
    """A long one as its digest: it is stored with every turn, and only whether two are equal counts."""
    if state_hash is None or len(state_hash) <= _MAX_STATE_HASH:
        return state_hash
    return hashlib.sha256(state_hash.encode("utf-8", "surrogatepass")).hexdigest()


def _call_id(turn: int, k: int) -> str:
    return f"call_{turn}_{k}"


@asynccontextmanager
async def _tools_of(agent: Agent, item: Item, key: EpisodeKey) -> AsyncIterator[ToolSession]:
    session = await agent.tools.open(item, key.trace_id)
    try:
        yield session
    finally:
        await session.close()


@dataclass(slots=True)
class _Course:
    """What has happened so far; kept when the episode ends early."""

    messages: list[Message]
    turns: list[Turn]
    dialogue: Dialogue | None = None

    def add_reply(self, reply: Reply, start: int, end: int, state_hash: str | None) -> None:
        self.messages.append(reply.message)
        self.turns.append(
            Turn(reply=reply.message, malformed=reply.malformed, start=start, end=end, state_hash=state_hash)
        )

    def add_results(self, results: Sequence[ToolResult]) -> None:
        self.messages += [Message(role="tool", content=r.output, tool_call_id=r.call_id) for r in results]
        self.turns[-1] = replace(self.turns[-1], results=tuple(results))
