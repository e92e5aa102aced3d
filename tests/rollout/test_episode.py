import asyncio
import random

import pytest

from agentrft.errors import ToolFault, UserError
from agentrft.rollout import Agent, ChatActor, GeneratorActor, Limits, checked_tokens, run_episode
from agentrft.testing import CharFormat, FakeClock, ScriptedChatModel, ScriptedGenerator, ScriptedTools
from agentrft.types import Item, Message, StopReason, ToolCall, ToolResult

FORMAT = CharFormat()


async def test_an_answer_after_one_call(agent, item, key):
    episode = await run_episode(item, key, agent("!look", "4"))
    assert episode.stop_reason is StopReason.ANSWERED
    assert episode.answer == "4"
    assert episode.n_calls == 1
    assert [m.role for m in episode.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert episode.messages[2].tool_calls == (ToolCall(id="call_0_0", name="look", arguments="{}"),)
    assert (episode.messages[3].content, episode.messages[3].tool_call_id) == ("seen", "call_0_0")
    assert (episode.id, episode.trace_id, episode.item_id) == (key.id, key.trace_id, "row-1")


async def test_the_token_stream_is_prompt_reply_results_reply(agent, item, key):
    episode = await run_episode(item, key, agent("!look", "4"))
    tokens = checked_tokens(episode)
    # <1>S<0> <2>Q?<0> <3>  !look<0>  <4>seen<0> <3>  4<0>: 3 + 4 + 1, then 6 trained, then 6 + 1, then 2 trained
    assert FORMAT.decode(tokens.ids) == "<1>S<0><2>Q?<0><3>!look<0><4>seen<0><3>4<0>"
    assert tokens.prompt_tokens == 8
    assert list(tokens.trained) == [False] * 8 + [True] * 6 + [False] * 7 + [True] * 2
    assert [(turn.start, turn.end) for turn in episode.turns] == [(8, 14), (21, 23)]
    assert all((p < 0) == trained for p, trained in zip(tokens.log_probs, tokens.trained, strict=True))


async def test_trained_ids_are_the_generated_ids_over_200_random_episodes(item, key):
    def babble(tokens, rng: random.Random) -> list[int]:
        # Anything at all: openings of other roles, broken calls, good calls, answers, replies without an end.
        chosen = rng.choice(["random", "!look", "!nope", "!look {", "!", "answer", "long"])
        if chosen == "random":
            return [rng.randrange(CharFormat.vocabulary) for _ in range(rng.randint(1, 12))]
        return FORMAT.encode("x" * 99 if chosen == "long" else chosen)

    generator = ScriptedGenerator(babble)
    agent = Agent(
        actor=GeneratorActor(generator=generator, chat_format=FORMAT),
        tools=ScriptedTools({"look": lambda arguments, item: "<3>!look\n" * 3}),
        limits=Limits(max_reply_tokens=20, max_episode_tokens=200, max_turns=4),
    )
    seen = set()
    for step in range(200):
        generator.outputs.clear()
        episode = await run_episode(item, type(key)(run="r", step=step, item=item.id, member=0), agent)
        tokens = checked_tokens(episode)
        generated = [token for _, reply, _ in generator.outputs for token in reply]
        log_probs = [p for _, _, reply in generator.outputs for p in reply]
        mask = list(tokens.trained)
        assert [i for i, m in zip(tokens.ids, mask, strict=True) if m] == generated
        assert [p for p, m in zip(tokens.log_probs, mask, strict=True) if m] == log_probs
        # Every request's context is a prefix of the final stream: history only grows.
        assert all(list(r.tokens) == list(tokens.ids)[: len(r.tokens)] for r, _, _ in generator.outputs)
        seen.add(episode.stop_reason)
    assert seen >= {StopReason.ANSWERED, StopReason.MAX_REPLY_TOKENS, StopReason.MAX_TURNS, StopReason.MALFORMED}


async def test_a_malformed_call_is_told_and_survived(agent, item, key):
    episode = await run_episode(item, key, agent("!look {oops", "4"))
    assert episode.stop_reason is StopReason.ANSWERED
    assert episode.turns[0].malformed == "the arguments are not JSON: {oops"
    assert episode.messages[3].content == "error: the arguments are not JSON: {oops"
    assert episode.turns[0].results[0].is_error
    assert episode.n_calls == 1


async def test_malformed_calls_in_a_row_end_the_episode(agent, item, key):
    broken = ["!"] * 4
    episode = await run_episode(item, key, agent(*broken, limits=Limits(max_malformed=2)))
    assert episode.stop_reason is StopReason.MALFORMED
    assert len(episode.turns) == 3  # two are answered with the reason, the third ends it
    assert not episode.stop_reason.is_truncated


async def test_a_good_call_resets_the_count_of_malformed_ones(agent, item, key):
    replies = ["!", "!", "!look", "!", "!", "4"]
    episode = await run_episode(item, key, agent(*replies, limits=Limits(max_malformed=2)))
    assert episode.stop_reason is StopReason.ANSWERED


async def test_the_call_of_the_last_turn_is_not_executed(agent, item, key):
    called = []
    tools = ScriptedTools({"look": lambda arguments, item: called.append(1) or "seen"})
    episode = await run_episode(item, key, agent("!look", "!look", limits=Limits(max_turns=2), tools=tools))
    assert episode.stop_reason is StopReason.MAX_TURNS
    assert len(called) == 1
    assert episode.turns[-1].results == ()
    assert episode.stop_reason.is_truncated


async def test_a_reply_cut_by_its_own_limit_ends_the_episode_unparsed(agent, item, key):
    episode = await run_episode(item, key, agent("!look and more", limits=Limits(max_reply_tokens=5)))
    assert episode.stop_reason is StopReason.MAX_REPLY_TOKENS
    assert episode.turns[0].reply == Message(role="assistant", content="!look")
    assert sum(episode.tokens.trained) == 5  # what was generated stays trained


async def test_a_reply_cut_by_the_episodes_budget_says_so(agent, item, key):
    # The prompt has 8 tokens: 2 are left, fewer than the reply's own limit of 5.
    limits = Limits(max_reply_tokens=5, max_episode_tokens=10)
    episode = await run_episode(item, key, agent("hello", limits=limits))
    assert episode.stop_reason is StopReason.MAX_EPISODE_TOKENS
    assert len(episode.tokens.ids) == 10


async def test_results_that_do_not_fit_end_the_episode_and_stay_out_of_the_stream(agent, item, key):
    # 8 prompt + 6 reply = 14; the result needs 6 + 1 opening = 7, so 21 is reached and no reply fits in 21.
    episode = await run_episode(item, key, agent("!look", "4", limits=Limits(max_episode_tokens=21)))
    assert episode.stop_reason is StopReason.MAX_EPISODE_TOKENS
    assert len(episode.tokens.ids) == 14
    assert episode.turns[0].results[0].output == "seen"  # the call was made, and the record says so
    # With room for two more tokens the answer comes through.
    episode = await run_episode(item, key, agent("!look", "4", limits=Limits(max_episode_tokens=23)))
    assert episode.stop_reason is StopReason.ANSWERED


async def test_the_generators_context_caps_the_episode(agent, item, key):
    episode = await run_episode(item, key, agent("hello", context_tokens=10))
    assert episode.stop_reason is StopReason.MAX_EPISODE_TOKENS


async def test_a_prompt_that_does_not_fit_is_the_users_mistake(agent, item, key):
    with pytest.raises(UserError, match=r"item 'row-1' has 8 tokens; expected fewer than 8") as caught:
        await run_episode(item, key, agent("4", limits=Limits(max_episode_tokens=8)))
    assert (caught.value.code, caught.value.param) == ("context_overflow", "agent.limits.max_episode_tokens")


async def test_a_tool_fault_voids_the_episode_and_closes_its_tools(agent, item, key):
    tools = ScriptedTools({"look": lambda arguments, item: "seen"}, fails=lambda call, item: True)
    episode = await run_episode(item, key, agent("!look", "4", tools=tools))
    assert episode.stop_reason is StopReason.FAULT
    assert episode.fault == "tool: scripted fault in look"
    assert tools.opened == tools.closed == 1
    assert len(episode.turns) == 1  # what happened before is kept


async def test_an_engine_fault_voids_the_episode(agent, item, key):
    episode = await run_episode(item, key, agent("!look", fails=lambda request: True))
    assert (episode.stop_reason, episode.fault) == (StopReason.FAULT, "engine: scripted fault")


async def test_tools_that_cannot_start_void_the_episode(agent, item, key):
    class Dead(ScriptedTools):
        async def open(self, item: Item, trace_id: str):
            raise ToolFault("no connection")

    episode = await run_episode(item, key, agent("4", tools=Dead()))
    assert (episode.stop_reason, episode.fault, episode.tokens) == (StopReason.FAULT, "tool: no connection", None)


async def test_a_bug_crashes(agent, item, key):
    def broken(arguments, item):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run_episode(item, key, agent("!look", tools=ScriptedTools({"look": broken})))


async def test_time_runs_out(agent, item, key):
    class Slow(ScriptedTools):
        async def open(self, item: Item, trace_id: str):
            session = await super().open(item, trace_id)
            session.run = self.hang
            return session

        async def hang(self, calls):
            await asyncio.sleep(30)

    tools = Slow({"look": lambda arguments, item: "seen"})
    episode = await run_episode(item, key, agent("!look", "4", tools=tools, limits=Limits(max_time_s=0.05)))
    assert episode.stop_reason is StopReason.MAX_TIME
    assert episode.stop_reason.is_truncated
    assert len(episode.turns) == 1
    checked_tokens(episode)
    assert tools.closed == 1


async def test_an_episode_that_never_got_a_reply_is_void_rather_than_bad(agent, item, key):
    slow = agent("4", max_delay_s=30.0, limits=Limits(max_time_s=0.01))
    episode = await run_episode(item, key, slow)
    assert (episode.stop_reason, episode.turns) == (StopReason.FAULT, ())
    assert episode.fault == "engine: no reply within max_time_s (0.01 s)"


async def test_a_timeout_inside_a_tool_is_not_taken_for_the_episodes(agent, item, key):
    def broken(arguments, item):
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        await run_episode(item, key, agent("!look", tools=ScriptedTools({"look": broken})))


async def test_a_guardrail_may_end_it(agent, item, key):
    class Ending(ScriptedTools):
        async def open(self, item: Item, trace_id: str):
            session = await super().open(item, trace_id)
            session.run = self.ended
            return session

        async def ended(self, calls):
            return [ToolResult(call_id=call.id, output="stop", is_error=True, ends_episode=True) for call in calls]

    episode = await run_episode(item, key, agent("!look", "4", tools=Ending({"look": lambda arguments, item: ""})))
    assert episode.stop_reason is StopReason.GUARDRAIL
    assert episode.stop_reason.is_truncated
    assert episode.turns[-1].results[0].output == "stop"


async def test_parallel_calls_run_side_by_side_and_keep_their_order(item, key):
    order = []

    class Paced(ScriptedTools):
        async def open(self, item: Item, trace_id: str):
            session = await super().open(item, trace_id)
            plain = session.call

            async def call(call: ToolCall):
                await asyncio.sleep(0.05 if call.name == "slow" else 0)
                order.append(call.name)
                return await plain(call)

            session.call = call
            return session

    tools = Paced({"slow": lambda arguments, item: "S", "fast": lambda arguments, item: "F"})
    both = Message(
        role="assistant",
        tool_calls=(ToolCall(id="a1", name="slow", arguments="{}"), ToolCall(id="b2", name="fast", arguments="{}")),
    )
    model = ScriptedChatModel([both, "done"])
    episode = await run_episode(item, key, Agent(actor=ChatActor(model=model), tools=tools, limits=Limits()))
    assert order == ["fast", "slow"]
    assert [r.output for r in episode.turns[0].results] == ["S", "F"]
    assert [r.call_id for r in episode.turns[0].results] == ["call_0_0", "call_0_1"]
    assert episode.tokens is None
    # The model itself is answered under the ids that it gave.
    assert [m.tool_call_id for m in model.seen[1][-2:]] == ["a1", "b2"]


async def test_one_fault_among_parallel_calls_voids_the_episode(item, key):
    both = Message(
        role="assistant",
        tool_calls=(ToolCall(id="a", name="good", arguments="{}"), ToolCall(id="b", name="bad", arguments="{}")),
    )
    tools = ScriptedTools({"good": lambda arguments, item: "ok"}, fails=lambda call, item: call.name == "bad")
    actor = ChatActor(model=ScriptedChatModel([both]))
    episode = await run_episode(item, key, Agent(actor=actor, tools=tools, limits=Limits()))
    assert episode.fault == "tool: scripted fault in bad"


async def test_wall_time_comes_from_the_clock(agent, item, key):
    clock = FakeClock()
    tools = ScriptedTools({"look": lambda arguments, item: clock.advance(2.5) or "seen"})
    built = agent("!look", "4", tools=tools)
    episode = await run_episode(item, key, Agent(actor=built.actor, tools=tools, limits=Limits(), clock=clock))
    assert episode.wall_s == 2.5


@pytest.mark.parametrize("bad", [{"max_turns": 0}, {"max_time_s": -1.0}, {"max_malformed": -1}])
def test_limits_that_make_no_sense_are_refused(bad):
    with pytest.raises(UserError) as caught:
        Limits(**bad)
    assert caught.value.param == f"agent.limits.{next(iter(bad))}"
