from dataclasses import replace

import pytest

from agentrft.data.rows import Demonstration
from agentrft.errors import UserError
from agentrft.rollout import Agent, EpisodeKey, GeneratorActor, Limits, run_episode
from agentrft.testing import CharFormat, ScriptedGenerator, ScriptedTools
from agentrft.train.demos import demonstration_row, normalised
from agentrft.types import Item, Message, ToolCall

FORMAT = CharFormat()
QUESTION = Message(role="user", content="?")
CALL = Message(role="assistant", tool_calls=(ToolCall(id="c", name="p", arguments="{}"),))
RESULT = Message(role="tool", content="7", tool_call_id="c")
ANSWER = Message(role="assistant", content="7")


def demo(*messages: Message) -> Demonstration:
    return Demonstration(id="row-3", messages=messages)


def row(*messages: Message, max_tokens: int = 99):
    return demonstration_row(demo(*messages), [], FORMAT, max_tokens=max_tokens)


def test_replies_with_their_stops_are_trained_and_nothing_else():
    made = row(QUESTION, CALL, RESULT, ANSWER)
    assert FORMAT.decode(made.ids) == "<2>?<0><3>!p<0><4>7<0><3>7<0>"
    # 4 prompt, 3 reply, 4 result and opening, 2 answer
    assert list(made.trained) == [False] * 4 + [True] * 3 + [False] * 4 + [True] * 2
    assert list(made.credit) == [float(trained) for trained in made.trained]
    assert set(made.log_probs) == {0.0}


def test_the_last_thing_taught_may_be_a_call():
    made = row(QUESTION, CALL)
    assert FORMAT.decode(made.ids) == "<2>?<0><3>!p<0>"
    assert list(made.trained) == [False] * 4 + [True] * 3


def test_a_reply_of_weight_0_is_context_where_it_stands():
    first = Demonstration(id="x", messages=(QUESTION, CALL, RESULT, ANSWER), learnt=(False, True))
    made = demonstration_row(first, [], FORMAT, max_tokens=99)
    assert FORMAT.decode(made.ids) == "<2>?<0><3>!p<0><4>7<0><3>7<0>"
    assert list(made.trained) == [False] * 11 + [True] * 2
    assert sum(made.credit) == 2
    last = replace(first, learnt=(True, False))
    assert list(demonstration_row(last, [], FORMAT, max_tokens=99).trained) == [False] * 4 + [True] * 3 + [False] * 6


def test_earlier_questions_may_stand_before_the_one_that_is_learnt():
    talk = Demonstration(
        id="x", messages=(QUESTION, ANSWER, QUESTION, CALL, RESULT, ANSWER), learnt=(False, True, True)
    )
    made = demonstration_row(talk, [], FORMAT, max_tokens=99)
    assert FORMAT.decode(made.ids) == "<2>?<0><3>7<0><2>?<0><3>!p<0><4>7<0><3>7<0>"
    assert FORMAT.decode([i for i, trained in zip(made.ids, made.trained, strict=True) if trained]) == "!p<0>7<0>"
    with pytest.raises(UserError, match="or give the replies before the last one `weight: 0`"):
        demonstration_row(replace(talk, learnt=(True, False, True)), [], FORMAT, max_tokens=99)


async def test_a_demonstration_has_the_tokens_of_the_episode_it_demonstrates():
    generator = ScriptedGenerator(lambda tokens, rng: FORMAT.encode("7" if 4 in tokens else "!p"))
    agent = Agent(
        actor=GeneratorActor(generator=generator, chat_format=FORMAT),
        tools=ScriptedTools({"p": lambda arguments, item: "7"}),
        limits=Limits(),
    )
    key = EpisodeKey(run="r", step=0, item="row-3", member=0)
    episode = await run_episode(Item(id="row-3", messages=(QUESTION,)), key, agent)
    made = row(QUESTION, CALL, RESULT, ANSWER)
    assert (list(made.ids), list(made.trained)) == (list(episode.tokens.ids), list(episode.tokens.trained))


def test_a_batch_is_normalised_by_its_trained_tokens():
    rows = normalised([row(QUESTION, ANSWER), row(QUESTION, CALL, RESULT, ANSWER)])
    # 2 + 5 trained tokens
    assert [sum(made.credit) for made in rows] == pytest.approx([2 / 7, 5 / 7])


@pytest.mark.parametrize(
    ("messages", "got"),
    [
        ((ANSWER,), "it begins with 'assistant'"),
        ((QUESTION, ANSWER, QUESTION, ANSWER), "message 2 is from 'assistant'"),
        ((QUESTION, CALL, RESULT, QUESTION, ANSWER), "message 4 is from 'user'"),
        ((QUESTION, ANSWER, ANSWER), "message 2 is from 'assistant'"),
        ((QUESTION,), "it begins with 'user'"),
    ],
)
def test_what_no_episode_can_be_is_refused(messages, got):
    with pytest.raises(UserError, match=rf"Demonstration 'row-3' is no single episode: {got}") as caught:
        row(*messages)
    assert (caught.value.code, caught.value.param) == ("bad_demonstration", "data.demonstrations")


def test_a_demonstration_longer_than_an_episode_is_refused():
    with pytest.raises(UserError, match="has 6 tokens; expected at most 5"):
        row(QUESTION, ANSWER, max_tokens=5)


def test_several_results_of_one_reply_come_in_one_suffix():
    both = replace(CALL, tool_calls=(*CALL.tool_calls, ToolCall(id="d", name="p", arguments="{}")))
    second = Message(role="tool", content="8", tool_call_id="d")
    for results in ((RESULT, second), (second, RESULT)):  # in the order of the calls, whatever the file's
        made = row(QUESTION, both, *results, ANSWER)
        assert FORMAT.decode(made.ids) == "<2>?<0><3>!p<0><4>7<0><4>8<0><3>7<0>"
