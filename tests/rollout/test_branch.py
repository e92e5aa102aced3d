"""Episodes that go on from a turn of a recorded one, over real Python tools that write down every call."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from agentrft.errors import ToolFault, UserError
from agentrft.rollout import (
    Agent,
    ChatActor,
    EpisodeKey,
    GeneratorActor,
    Limits,
    checked_tokens,
    differences_of,
    play_on,
    reach,
    run_episode,
)
from agentrft.testing import CharFormat, ScriptedChatModel, ScriptedGenerator
from agentrft.tools import JobTools, PythonBinding
from agentrft.tools.python_files import PythonFiles
from agentrft.tools.python_tool import load_python_source
from agentrft.types import Episode, Item, Message, StopReason, ToolCall

FORMAT = CharFormat()
TOOLS = '''
from pathlib import Path


class Safe:
    """Keeps the keys that were pressed."""

    def __init__(self, item: dict) -> None:
        self.log, self.pin = Path(item["log"]), ""

    def press(self, key: str) -> str:
        """Press KEY."""
        with self.log.open("a") as log:
            log.write(key)
        self.pin += key
        return self.pin


class SavedSafe(Safe):
    def snapshot(self) -> str:
        return self.pin

    def restore(self, snapshot: str) -> None:
        self.pin = snapshot


class Forgetful(Safe):
    """Says how often it was ever called: another state each time."""

    def press(self, key: str) -> str:
        """Press KEY."""
        super().press(key)
        return f"{len(self.log.read_text())} calls"


class Broken(SavedSafe):
    def restore(self, snapshot: str) -> None:
        raise KeyError("lost")
'''


@pytest.fixture
def world(tmp_path: Path) -> Callable[..., tuple[Agent, Item, Path]]:
    """world("Safe"): an agent that presses a or b twice and then answers, its item, and the log of all calls."""
    (tmp_path / "tools.py").write_text(TOOLS)
    item = Item(id="row-1", messages=(Message(role="user", content="Open it"),), fields={"log": str(tmp_path / "log")})

    def make(name: str, says: Callable[[int, random.Random], str] | None = None, **limits: int):
        def press(turn: int, rng: random.Random) -> str:
            return "done" if turn == 2 else f'!press {{"key": "{rng.choice("ab")}"}}'

        def policy(context: Sequence[int], rng: random.Random) -> list[int]:
            return FORMAT.encode((says or press)(list(context).count(4), rng))

        binding = PythonBinding(type="python", target=f"tools.py:{name}", isolation="inline")
        tools = JobTools({"agent.tools[0]": load_python_source(binding, PythonFiles(tmp_path), param="agent.tools[0]")})
        actor = GeneratorActor(generator=ScriptedGenerator(policy), chat_format=FORMAT)
        return Agent(actor=actor, tools=tools, limits=Limits(**limits)), item, tmp_path / "log"

    return make


def a_key(member: int, run: str = "go on") -> EpisodeKey:
    return EpisodeKey(run=run, step=0, item="row-1", member=member)


def pressed(episode: Episode) -> str:
    return "".join(call.arguments[9] for turn in episode.turns for call in turn.reply.tool_calls)


@pytest.mark.parametrize("name", ["Safe", "SavedSafe"])
async def test_repeated_turns_are_the_recorded_tokens_and_the_rest_is_anew(world, name: str) -> None:
    agent, item, _ = world(name)
    recorded = await run_episode(item, a_key(0, "first"), agent)
    branch = await reach(recorded, 1, item, agent, a_key(0))
    assert branch.differences == ()
    kept = [await play_on(branch, a_key(n), agent, keeps=True) for n in range(6)]
    anew = [await play_on(branch, a_key(n), agent, keeps=False) for n in range(6)]
    then = checked_tokens(recorded)
    for episodes, turns in ((kept, 2), (anew, 1)):
        for episode in episodes:
            now, end = checked_tokens(episode), recorded.turns[turns].start
            assert list(now.ids)[:end] == list(then.ids)[:end]
            assert list(now.log_probs)[:end] == list(then.log_probs)[:end]
            assert [replace(turn, results=()) for turn in episode.turns[:turns]] == [
                replace(turn, results=()) for turn in recorded.turns[:turns]
            ]
            assert episode.stop_reason is StopReason.ANSWERED
            # The tools went on from the recorded state, whichever way they came to it.
            assert episode.turns[1].results[0].output == pressed(episode)
            assert differences_of(branch, episode, range(1)) == []
    assert {pressed(episode) for episode in kept} == {pressed(recorded)}
    assert {pressed(episode)[0] for episode in anew} == {pressed(recorded)[0]}
    assert {pressed(episode)[1] for episode in anew} == {"a", "b"}


@pytest.mark.parametrize(("name", "again"), [("Safe", 4), ("SavedSafe", 1)])
async def test_calls_are_made_again_once_where_tools_can_be_set_back(world, name: str, again: int) -> None:
    agent, item, log = world(name)
    recorded = await run_episode(item, a_key(0, "first"), agent)
    log.unlink()
    branch = await reach(recorded, 1, item, agent, a_key(0))
    assert (branch.snapshot is not None) == (name == "SavedSafe")
    for member in range(3):
        await play_on(branch, a_key(member), agent, keeps=False)
    # The first call: once to reach the turn, then in each of three episodes or in none; three second calls are new.
    assert len(log.read_text()) == again + 3


async def test_other_results_than_recorded_are_told(world) -> None:
    agent, item, _ = world("Forgetful")
    recorded = await run_episode(item, a_key(0, "first"), agent)
    branch = await reach(recorded, 1, item, agent, a_key(0))
    (difference,) = branch.differences
    assert (difference.turn, difference.recorded, difference.got) == (0, "1 calls", "3 calls")
    assert difference.what.startswith("press {")
    episode = await play_on(branch, a_key(0), agent, keeps=False)
    # What the model reads is what the tools say now, not what they said then.
    assert differences_of(branch, episode, range(1))[0].got == "4 calls"
    assert "4 calls" in FORMAT.decode(checked_tokens(episode).ids)


async def test_unreadable_and_cut_replies_are_repeated_as_they_were(world) -> None:
    agent, item, _ = world("Safe", lambda turn, rng: ["!press {", '!press {"key": "a"}', "x" * 50][turn])
    agent = replace(agent, limits=Limits(max_reply_tokens=30))
    recorded = await run_episode(item, a_key(0, "first"), agent)
    assert recorded.stop_reason is StopReason.MAX_REPLY_TOKENS
    branch = await reach(recorded, 2, item, agent, a_key(0))
    episode = await play_on(branch, a_key(1), agent, keeps=True)
    assert episode.stop_reason is StopReason.MAX_REPLY_TOKENS
    assert list(checked_tokens(episode).ids) == list(checked_tokens(recorded).ids)
    assert [turn.malformed for turn in episode.turns] == [turn.malformed for turn in recorded.turns]


async def test_a_text_episode_goes_on_with_its_messages() -> None:
    from agentrft.testing import ScriptedTools

    call = ToolCall(id="own", name="look", arguments="{}")
    item = Item(id="row-1", messages=(Message(role="user", content="Q"),))

    def says(messages: Sequence[Message]) -> Message:
        seen = any(message.role == "tool" for message in messages)
        return Message(role="assistant", content="4") if seen else Message(role="assistant", tool_calls=(call,))

    model = ScriptedChatModel(says)
    agent = Agent(
        actor=ChatActor(model=model), tools=ScriptedTools({"look": lambda arguments, item: "seen"}), limits=Limits()
    )
    recorded = await run_episode(item, a_key(0, "first"), agent)
    branch = await reach(recorded, 1, item, agent, a_key(0))
    model.seen.clear()
    episode = await play_on(branch, a_key(1), agent, keeps=False)
    assert episode.messages == recorded.messages
    assert len(model.seen) == 1
    assert model.seen[0] == list(recorded.messages[:3])


async def test_tools_that_cannot_go_back_after_all_are_a_fault(world) -> None:
    agent, item, _ = world("Broken")
    recorded = await run_episode(item, a_key(0, "first"), agent)
    branch = await reach(recorded, 1, item, agent, a_key(0))
    episode = await play_on(branch, a_key(0), agent, keeps=False)
    assert episode.stop_reason is StopReason.FAULT
    assert "KeyError" in (episode.fault or "")


async def test_a_tool_that_fails_on_the_way_is_raised(world, tmp_path: Path) -> None:
    agent, item, _ = world("Safe")
    recorded = await run_episode(item, a_key(0, "first"), agent)
    moved = replace(item, fields={"log": str(tmp_path / "nowhere" / "log")})
    with pytest.raises(ToolFault):
        await reach(recorded, 1, moved, agent, a_key(0))


async def refused(reached: Awaitable[object]) -> str:
    with pytest.raises(UserError) as caught:
        await reached
    return caught.value.message


async def test_what_cannot_be_repeated_is_refused_with_the_reason(world) -> None:
    agent, item, _ = world("Safe")
    recorded = await run_episode(item, a_key(0, "first"), agent)
    said = await refused(reach(recorded, 3, item, agent, a_key(0)))
    assert said == "there is no turn 4; expected one of: 1 (press), 2 (press), 3 (text). Next: --turn with one of these"

    asked = replace(item, messages=(Message(role="user", content="Close it"),))
    assert "the item's messages" in await refused(reach(recorded, 1, asked, agent, a_key(0)))

    class Shouting(CharFormat):
        def prompt(self, messages: Sequence[Message], tools: Sequence[object]) -> list[int]:
            return [*super().prompt(messages, ()), 3]

    other = replace(agent, actor=replace(agent.actor, chat_format=Shouting()))
    assert "would read other tokens before the turn" in await refused(reach(recorded, 1, item, other, a_key(0)))

    text = replace(recorded, tokens=None)
    assert "a model behind an API played it" in await refused(reach(text, 1, item, agent, a_key(0)))

    short = replace(agent, limits=Limits(max_episode_tokens=30))
    assert "turn 2 is not reached again: after turn 1" in await refused(reach(recorded, 1, item, short, a_key(0)))
