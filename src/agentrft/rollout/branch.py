"""Episodes that go on from a turn of a recorded one: its first turns are repeated, the rest is played anew.

The agent loop is that of any episode. What differs is who replies at first: the recording, token for token. The calls
of repeated turns are really made again, in fresh tools; where these can be set back to a state (`snapshot`,
`restore`), once for all continuations.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentrft.errors import UserError
from agentrft.protocols import Reply, RestorableSession, ToolSession, ToolSet
from agentrft.rollout.actor import Actor, Dialogue
from agentrft.rollout.episode import Agent, results_of, run_episode, short_state
from agentrft.rollout.ids import EpisodeKey
from agentrft.rollout.limits import Limits
from agentrft.types import Episode, Item, StopReason, TokenTrace, ToolCall, ToolResult, ToolSpec

_PARAM = "episode"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where calls that were made again did not give what was recorded."""

    turn: int
    """From 0."""
    what: str
    """The call, or `state`: what the tools said of their state before the turn's reply."""
    recorded: str
    got: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A turn of a recorded episode that was reached again, for others to go on from there."""

    item: Item
    episode: Episode
    turn: int
    """From 0; the turns before it are repeated."""
    differences: tuple[Difference, ...]
    """Between what the calls before the turn gave now and then; with any, the state is another one."""
    results_K: tuple[tuple[ToolResult, ...], ...] = ()
    """Of the repeated turns that called tools."""
    snapshot: object | None = None
    """State of the tools before the turn; None where they cannot be set back, and every continuation makes the calls
    again."""


async def reach(episode: Episode, turn: int, item: Item, agent: Agent, key: EpisodeKey) -> Branch:
    """The branch before that turn: its calls are made again in fresh tools, which tell their state if they can.

    Raises UserError (`not_repeatable`) where the model would not read what it read then, or the turn is not reached
    any more; BoundaryError when tools fail.
    """
    if not 0 <= turn < len(episode.turns):
        raise UserError(f"there is no turn {turn + 1}; {_turns_of(episode)}", param="turn", code="not_found")
    session = await agent.tools.open(item, key.trace_id)
    try:
        dialogue = _opened(episode, item, session, agent)
        results_K, differences = [], []
        for number, past in enumerate(episode.turns[:turn]):
            reply = _recorded(episode, number)
            dialogue.take(reply)
            results = await results_of(reply, session, number)
            differences += _differences(number, past.results, results, reply.message.tool_calls)
            results_K += [] if reply.malformed else [tuple(results)]
            ends = any(result.ends_episode for result in results)
            if ends or not dialogue.add_results(results):
                why = "a guardrail ends the episode" if ends else "what the tools give no longer fits the token limits"
                raise _not_repeatable(episode, f"turn {turn + 1} is not reached again: after turn {number + 1} {why}")
        state = episode.turns[turn].state_hash
        if state is not None and (now := short_state(await session.state_hash())) != state:
            differences.append(Difference(turn=turn, what="state", recorded=state, got=str(now)))
        if not differences:
            _check_tokens(episode, dialogue.trace(), episode.turns[turn].start)
        snapshot = None
        if isinstance(session, RestorableSession) and session.can_snapshot:
            snapshot = await session.snapshot()
        return Branch(
            item=item,
            episode=episode,
            turn=turn,
            differences=tuple(differences),
            results_K=tuple(results_K),
            snapshot=snapshot,
        )
    finally:
        await session.close()


async def play_on(
    branch: Branch, key: EpisodeKey, agent: Agent, *, keeps: bool, order: tuple[int, int] = (0, 0)
) -> Episode:
    """One episode more from the branch; as `run_episode`, limits included.

    From before the turn, where the model decides anew; with `keeps` from after it: the turn's recorded reply is
    repeated as well, and its calls are made. Repeated tokens are trained ones with their recorded log-probs.
    """
    actor = _Repeating(agent.actor, branch.episode, branch.turn + keeps)
    tools = agent.tools if branch.snapshot is None else _RestoredTools(agent.tools, branch)
    # Only the credit of whole groups compares states, and a restored session cannot tell earlier ones.
    return await run_episode(branch.item, key, replace(agent, actor=actor, tools=tools, asks_state=False), order=order)


async def branch_off(
    trunk: Episode, turn: int, item: Item, key: EpisodeKey, agent: Agent, *, order: tuple[int, int] = (0, 0)
) -> Episode | None:
    """One episode more from before that turn of another one, whose calls it makes again.

    None where the other ended before that turn, or its calls do not give what they gave it: then nothing is shared.
    """
    if turn >= len(trunk.turns):
        return None
    branch = Branch(item=item, episode=trunk, turn=turn, differences=())
    episode = await play_on(branch, key, agent, keeps=False, order=order)
    is_fault = episode.stop_reason is StopReason.FAULT
    return None if not is_fault and differences_of(branch, episode, range(turn)) else episode


def differences_of(branch: Branch, played: Episode, turns: range) -> list[Difference]:
    """Where the results of a continuation's `turns` are not the recorded ones."""
    found: list[Difference] = []
    for number in turns:
        then = branch.episode.turns[number]
        now = played.turns[number].results if number < len(played.turns) else ()
        found += _differences(number, then.results, now, then.reply.tool_calls)
    return found


def _opened(episode: Episode, item: Item, session: ToolSession, agent: Agent) -> Dialogue:
    """The dialogue before its first reply; raises UserError where it does not begin as the recorded one."""
    if episode.messages[: len(item.messages)] != item.messages:
        raise _not_repeatable(
            episode, "the item's messages, or the job's system message or examples, have changed since"
        )
    dialogue = agent.actor.open(item, session.specs, agent.limits, (0, 0))
    trace = dialogue.trace()
    if trace is not None and episode.tokens is None:
        raise _not_repeatable(
            episode, "it has no tokens, because a model behind an API played it; let one go on (--endpoint)"
        )
    _check_tokens(episode, trace, episode.tokens.prompt_tokens if episode.tokens else 0)
    return dialogue


def _check_tokens(episode: Episode, trace: TokenTrace | None, end: int) -> None:
    """Raise UserError unless the stream is the recorded one up to `end`; text has no tokens to compare."""
    if trace is None or episode.tokens is None:
        return
    if list(trace.ids) != list(episode.tokens.ids[:end]):
        raise _not_repeatable(
            episode,
            f"the model would read other tokens before the turn (now {len(trace.ids)}, then {end}): the job's tools or "
            "their descriptions have changed since, or this model has another tokenizer or chat format",
        )


def _differences(
    turn: int, recorded: Sequence[ToolResult], got: Sequence[ToolResult], calls: Sequence[ToolCall]
) -> list[Difference]:
    """Call by call; what has no recorded result (the episode ended first) cannot differ."""
    names = {call.id: f"{call.name} {call.arguments}" for call in calls}
    now = {result.call_id: result for result in got}
    found: list[Difference] = []
    for then in recorded:
        result = now.get(then.call_id)
        if result is None or (result.output, result.is_error) != (then.output, then.is_error):
            said = "nothing" if result is None else result.output
            what = names.get(then.call_id, "unreadable")
            found.append(Difference(turn=turn, what=what, recorded=then.output, got=said))
    return found


def _recorded(episode: Episode, number: int) -> Reply:
    """The reply of that turn as its actor gave it."""
    turn, trace, is_last = episode.turns[number], episode.tokens, number + 1 == len(episode.turns)
    cut = episode.stop_reason is StopReason.MAX_REPLY_TOKENS or (
        # With results it was these that no longer fitted.
        episode.stop_reason is StopReason.MAX_EPISODE_TOKENS and not turn.results
    )
    return Reply(
        message=turn.reply,
        tokens=() if trace is None else trace.ids[turn.start : turn.end],
        log_probs=() if trace is None else trace.log_probs[turn.start : turn.end],
        truncated=is_last and cut,
        malformed=turn.malformed,
        policy_version=0 if trace is None else trace.policy_version,
    )


def _turns_of(episode: Episode) -> str:
    if not episode.turns:
        return "the episode has none; expected one with a reply. Next: another episode"
    said = (
        ", ".join(call.name for call in turn.reply.tool_calls) or ("unreadable" if turn.malformed else "text")
        for turn in episode.turns
    )
    listed = ", ".join(f"{number} ({what})" for number, what in enumerate(said, start=1))
    return f"expected one of: {listed}. Next: --turn with one of these"


def _not_repeatable(episode: Episode, why: str) -> UserError:
    return UserError(
        f"episode {episode.id} cannot be repeated: {why}. Expected the agent and the model that played it",
        param=_PARAM,
        code="not_repeatable",
    )


@dataclass(frozen=True, slots=True)
class _Repeating:
    """An actor whose first replies are those of a recorded episode."""

    actor: Actor
    episode: Episode
    turns: int

    def open(self, item: Item, tools: Sequence[ToolSpec], limits: Limits, order: tuple[int, int]) -> Dialogue:
        return _RepeatingDialogue(self.actor.open(item, tools, limits, order), self.episode, self.turns)


class _RepeatingDialogue:
    def __init__(self, dialogue: Dialogue, episode: Episode, turns: int) -> None:
        self._dialogue = dialogue
        self._left = [_recorded(episode, number) for number in range(turns)]
        self.take = dialogue.take
        self.add_results = dialogue.add_results
        self.trace = dialogue.trace

    @property
    def position(self) -> int:
        return self._dialogue.position

    async def reply(self, seed: int) -> Reply:
        if not self._left:
            return await self._dialogue.reply(seed)
        reply = self._left.pop(0)
        self._dialogue.take(reply)
        return reply


@dataclass(frozen=True, slots=True)
class _RestoredTools:
    """Tools that open where a branch begins."""

    tools: ToolSet
    branch: Branch

    async def open(self, item: Item, trace_id: str) -> ToolSession:
        session = await self.tools.open(item, trace_id)
        try:
            assert isinstance(session, RestorableSession), type(session)
            await session.restore(self.branch.snapshot)
        except BaseException:
            await session.close()
            raise
        return _RestoredSession(session, self.branch.results_K)

    async def close(self) -> None:
        """Nothing: whoever opened the tools closes them."""


class _RestoredSession:
    """Answers the repeated calls with what the branch got for them; their effects are in the restored state."""

    def __init__(self, session: ToolSession, results_K: Sequence[Sequence[ToolResult]]) -> None:
        self._session = session
        self._told = list(results_K)
        self.specs = session.specs
        self.state_hash = session.state_hash
        self.close = session.close

    async def run(self, calls: Sequence[ToolCall]) -> list[ToolResult]:
        return list(self._told.pop(0)) if self._told else await self._session.run(calls)
