"""The value of a decision in a world where it can be worked out by hand."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from agentrft.credit import PenaltiesSpec
from agentrft.diagnose import BaselinePlan, TurnValue, value_turn
from agentrft.report.turn_value import replay_text, turn_value_view, verdict_text
from agentrft.rollout import Agent, EpisodeKey, GeneratorActor, Limits, reach, run_episode
from agentrft.testing import CharFormat, ScriptedGenerator, ScriptedGrader, ScriptedTools
from agentrft.types import Episode, Grade, Item, Message, Sample, ToolCall

FORMAT = CharFormat()
ITEM = Item(id="row-1", messages=(Message(role="user", content="Left or right?"),))


def policy(context: Sequence[int], rng: random.Random) -> list[int]:
    """Goes left or right with equal odds, then answers with what is there, mostly."""
    seen = FORMAT.decode(context)
    if "<4>" not in seen:
        return FORMAT.encode(rng.choice(["!left", "!right"]))
    found = seen.rsplit("<4>", 1)[1].split("<0>")[0]
    return FORMAT.encode(found if rng.random() < 0.9 else "nothing")


def grade(sample: Sample, item: Item) -> float:
    """Gold is worth 1, silver half, nothing nothing."""
    return {"gold": 1.0, "silver": 0.5}.get(sample.output_text, 0.0)


def agent(**tools: Any) -> Agent:
    return Agent(
        actor=GeneratorActor(generator=ScriptedGenerator(policy), chat_format=FORMAT),
        tools=ScriptedTools({"left": lambda a, i: "gold", "right": lambda a, i: "silver"}, **tools),
        limits=Limits(),
    )


async def an_episode(first: str, player: Agent | None = None) -> Episode:
    """One whose first call is this."""
    for member in range(20):
        key = EpisodeKey(run="recorded", step=0, item=ITEM.id, member=member)
        episode = await run_episode(ITEM, key, player or agent())
        if episode.turns[0].reply.tool_calls[0].name == first:
            return episode
    raise AssertionError(first)


async def value(
    episode: Episode,
    turn: int,
    *,
    samples: int = 40,
    player: Agent | None = None,
    grader: Callable[[Sample, Item], float | Grade] = grade,
    penalties: PenaltiesSpec | None = None,
) -> TurnValue:
    player = player or agent()
    branch = await reach(episode, turn, ITEM, player, EpisodeKey(run="reach", step=0, item=ITEM.id, member=0))
    before, after = (
        BaselinePlan(
            job_id="ftjob-probe",
            stage=side,
            split="train",
            items=[ITEM],
            samples=samples,
            penalties=penalties or PenaltiesSpec(),
        )
        for side in ("before", "after")
    )
    return await value_turn(branch, (before, after), player, ScriptedGrader(grader))


async def test_a_good_decision_a_bad_one_and_one_that_changes_nothing() -> None:
    # Before the first turn: 0.9 · (1 + 0.5) / 2 = 0.675. After going left 0.9, after going right 0.45.
    good, bad = await value(await an_episode("left"), 0), await value(await an_episode("right"), 0)
    assert (good.verdict, bad.verdict) == ("raised", "lowered")
    for found, after in ((good, 0.9), (bad, 0.45)):
        document = found.to_json()
        assert document["before"]["reward"]["mean"] == pytest.approx(0.675, abs=0.12)
        assert document["after"]["reward"]["mean"] == pytest.approx(after, abs=0.08)
        assert document["difference"]["low"] <= after - 0.675 <= document["difference"]["high"]
        assert (document["difference"]["n_items"], document["difference"]["n_episodes"]) == (1, 80)
        assert document["replay"]["equal"]
        assert sum(choice["episodes"] for choice in document["choices"]) == 40
        assert {choice["calls"]: choice["is_recorded"] for choice in document["choices"]} == {
            "left {}": found is good,
            "right {}": found is bad,
        }
    # The same odds of answering well whether this answer is kept or not: an answer that was 0.9 likely adds 0.1.
    answered = await value(await an_episode("left"), 1, samples=8)
    assert answered.verdict == "unsure"
    assert answered.to_json()["after"]["reward"]["mean"] in (0.0, 1.0)  # nothing is left to play


async def test_the_same_episode_gives_the_same_value() -> None:
    episode = await an_episode("left")
    assert (await value(episode, 0)).to_json() == (await value(episode, 0)).to_json()


async def test_faults_and_missing_grades_are_counted_and_left_out() -> None:
    def odd(sample: Sample, item: Item) -> float | Grade:
        return Grade(value=None, reason="no") if sample.output_text == "nothing" else grade(sample, item)

    failing = agent(fails=lambda call, item: call.name == "right")
    found = await value(await an_episode("left"), 0, player=failing, grader=odd)
    document = found.to_json()
    before, after = document["before"], document["after"]
    assert after["faults"] == 0
    assert 10 < before["faults"] < 30
    assert before["reward"]["n_episodes"] + before["faults"] + before["ungraded"] == 40
    assert after["reward"]["mean"] == 1.0
    assert after["ungraded"] > 0


async def test_too_few_grades_say_nothing() -> None:
    def none(sample: Sample, item: Item) -> Grade:
        return Grade(value=None, reason="no")

    document = (await value(await an_episode("left"), 0, samples=4, grader=none)).to_json()
    assert document["verdict"] == "too_few"
    assert document["difference"] is None
    assert verdict_text(document) == ("Too few continuations have a grade to say anything: 0 before, 0 after.")


async def test_what_a_limit_cut_off_counts_as_in_training() -> None:
    episode = await an_episode("left")
    one_turn = Agent(actor=agent().actor, tools=agent().tools, limits=Limits(max_turns=1))
    for truncated in ("clamp", "leave_out"):
        found = await value(
            episode,
            0,
            samples=4,
            player=one_turn,
            grader=lambda s, i: 1.0,
            penalties=PenaltiesSpec(truncated=truncated),
        )
        assert found.before.rewards == [0.0] * 4


async def test_another_state_is_said_in_every_text() -> None:
    calls = 0

    def count(arguments: Any, item: Item) -> str:
        nonlocal calls
        calls += 1
        return f"{calls}"

    odd = Agent(actor=agent().actor, tools=ScriptedTools({"left": count, "right": count}), limits=Limits())
    episode = await an_episode("left", odd)
    document = (await value(episode, 1, samples=4, player=odd)).to_json()
    replay = document["replay"]
    assert (replay["equal"], replay["episodes_that_differ"], replay["calls"]) == (False, 8, 1)
    assert replay["differences"][0]["turn"] == 1
    assert replay["differences"][0]["what"] == "left {}"
    assert "OTHER results than recorded in 8 continuations" in replay_text(document)
    assert verdict_text(document).startswith("In a state that is not the recorded one, ")
    turn_value_view(document)


async def test_turns_before_are_replayed_and_the_decision_is_shown() -> None:
    episode = await an_episode("left")
    document = (await value(episode, 1, samples=4)).to_json()
    assert (document["turn"], document["turns"], document["decision"]) == (2, 2, "no call")
    assert replay_text(document) == "the 1 call before it was made again: same results as recorded"
    assert ToolCall(id="call_0_0", name="left", arguments="{}") in episode.turns[0].reply.tool_calls
