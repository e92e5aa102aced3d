from dataclasses import replace

import pytest

from agentrft.credit import view_of
from agentrft.errors import ToolFault
from agentrft.rollout import run_episode
from agentrft.testing import ScriptedTools
from agentrft.testing.tools import ScriptedSession
from agentrft.types import Grade, Group, StopReason


class Counting(ScriptedTools):
    """Tools whose state is how many calls they have had; asking a second time is counted."""

    asked = 0

    async def open(self, item, trace_id):
        tools, calls = self, []

        class Session(ScriptedSession):
            async def run(self, made):
                calls.extend(made)
                return await super().run(made)

            async def state_hash(self):
                tools.asked += 1
                return f"{len(calls)} calls"

        return Session(self, item, trace_id)


@pytest.fixture
def counting():
    return Counting({"look": lambda arguments, item: "seen"})


async def test_the_tools_are_asked_before_each_reply(agent, item, key, counting):
    asking = replace(agent("!look", "!look", "4", tools=counting), asks_state=True)
    episode = await run_episode(item, key, asking)
    assert [turn.state_hash for turn in episode.turns] == ["0 calls", "1 calls", "2 calls"]
    told = [[turn.state_hash for turn in episode.turns]]
    group = Group(item=item, episodes=(episode,), grades=(Grade(value=1.0),))
    keys = [step.state_key for step in view_of(group, [1.0], state_hashes_G_K=told).steps_G[0]]
    assert len(set(keys)) == 3


async def test_a_long_state_is_kept_as_its_digest(agent, item, key):
    def with_state(state):
        class Telling(ScriptedTools):
            async def open(self, item, trace_id):
                class Session(ScriptedSession):
                    async def state_hash(self):
                        return state

                return Session(self, item, trace_id)

        return replace(agent("4", tools=Telling({})), asks_state=True)

    states = ["x" * 64, "\ud83d" * 100_000, "\ud83d" * 100_000, "\ud83d" * 99_999]
    told = [(await run_episode(item, key, with_state(state))).turns[0].state_hash for state in states]
    assert told[0] == "x" * 64
    assert told[1] == told[2] != told[3]
    assert {len(one) for one in told} == {64}


async def test_nobody_asks_where_credit_does_not_need_it(agent, item, key, counting):
    episode = await run_episode(item, key, agent("!look", "4", tools=counting))
    assert ([turn.state_hash for turn in episode.turns], counting.asked) == ([None, None], 0)


async def test_tools_that_fail_to_tell_are_a_fault(agent, item, key):
    class Broken(ScriptedTools):
        async def open(self, item, trace_id):
            class Session(ScriptedSession):
                async def state_hash(self):
                    raise ToolFault("state lost")

            return Session(self, item, trace_id)

    episode = await run_episode(item, key, replace(agent("4", tools=Broken({})), asks_state=True))
    assert (episode.stop_reason, episode.fault, episode.turns) == (StopReason.FAULT, "tool: state lost", ())
