"""Playing the baseline: what is kept, what is repeated, when it gives up."""

from __future__ import annotations

import asyncio

import pytest

from agentrft.credit import PenaltiesSpec
from agentrft.diagnose import is_finished, play
from agentrft.errors import BoundaryError
from agentrft.rollout import GradedEpisode
from agentrft.types import Grade, Item, Message, StopReason


async def test_every_item_is_played_in_the_order_of_the_plan(peek) -> None:
    plan = peek.plan(peek.items(6), samples=3)
    told: list[GradedEpisode] = []
    baseline = await play(plan, peek.agent(), peek.grader, on_graded=told.append)
    assert baseline is not None
    assert [group.item.id for group in baseline.groups] == [f"row-{i}" for i in range(6)]
    assert [[e.member for e in group.episodes] for group in baseline.groups] == [[0, 1, 2]] * 6
    assert len({one.episode.id for one in told}) == len(told) == 18
    assert plan.n_episodes == 18


async def test_what_was_finished_is_not_played_again_and_the_rest_comes_out_the_same(peek) -> None:
    plan = peek.plan(peek.items(8))
    whole = await play(plan, peek.agent(), peek.grader)
    assert whole is not None
    finished: dict[str, GradedEpisode] = {}

    def keep(graded: GradedEpisode) -> None:
        finished[graded.episode.id] = graded

    stopped = await play(plan, peek.agent(max_delay_s=0.6), peek.grader, on_graded=keep, should_stop=lambda: True)
    assert stopped is None
    assert len(finished) < 32
    before, again = set(finished), []
    resumed = await play(plan, peek.agent(), peek.grader, finished=finished, on_graded=again.append)
    assert resumed is not None
    assert {one.episode.id for one in again}.isdisjoint(before)
    assert len(again) + len(before) == 32

    def said(baseline) -> list:
        return [[(e.id, e.messages) for e in group.episodes] for group in baseline.groups]

    assert said(resumed) == said(whole)


async def test_stopping_leaves_no_session_open(peek) -> None:
    agent = peek.agent(max_delay_s=0.5)
    assert await play(peek.plan(peek.items(4)), agent, peek.grader, should_stop=lambda: True) is None
    assert agent.tools.opened == agent.tools.closed > 0


async def test_a_cancelled_baseline_cancels_its_episodes(peek) -> None:
    agent = peek.agent(max_delay_s=5.0)
    task = asyncio.create_task(play(peek.plan(peek.items(4)), agent, peek.grader))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert agent.tools.opened == agent.tools.closed > 0


async def test_it_gives_up_when_the_first_episodes_are_all_faults(peek) -> None:
    told: list[GradedEpisode] = []
    agent = peek.agent(fails=lambda call, item: True)
    plan = peek.plan([Item(id=f"x{i}", messages=(Message(role="user", content="0?"),)) for i in range(40)])
    always_peeks = peek.plan(plan.items, samples=4)
    with pytest.raises(BoundaryError, match=r"the first 16 episodes all failed, .*scripted fault in p"):
        await play(always_peeks, _only_calls(agent), peek.grader, on_graded=told.append)
    assert 16 <= len(told) < 160  # those already under way end before they are cancelled


def _only_calls(agent):
    """The same agent, with a policy that always calls."""
    from dataclasses import replace

    from agentrft.rollout import GeneratorActor
    from agentrft.testing import CharFormat, ScriptedGenerator

    chars = CharFormat()
    generator = ScriptedGenerator(lambda context, rng: chars.encode("!p"))
    return replace(agent, actor=GeneratorActor(generator=generator, chat_format=chars))


async def test_items_of_one_id_are_told_apart(peek) -> None:
    twice = [peek.items(1)[0]] * 2
    baseline = await play(peek.plan(twice, samples=2), peek.agent(), peek.grader)
    assert baseline is not None
    ids = [episode.id for group in baseline.groups for episode in group.episodes]
    assert len(set(ids)) == 4
    assert peek.plan(twice).places() == {("row-0", 0): 0, ("row-0", 1): 1}


async def test_a_cut_off_episode_counts_as_a_failure_even_where_training_leaves_it_out(peek) -> None:
    item = peek.items(1)[0]
    episode = peek.episode(item, stop=StopReason.MAX_TURNS)
    plan = peek.plan([item], penalties=PenaltiesSpec(truncated="leave_out"))
    assert plan.reward(episode, Grade(value=0.8)).value == 0.0
    assert plan.record(GradedEpisode(episode=episode, grade=Grade(value=0.8))).reward == 0.0


@pytest.mark.parametrize(
    ("fault", "grade", "stands"),
    [
        (None, Grade(value=0.5), True),
        (None, Grade(value=None, reason="no number"), True),
        ("tool: tool p raised KeyError", Grade(value=None, reason="the episode is a fault"), True),
        ("engine: connection refused", Grade(value=None, reason="the episode is a fault"), False),
        (None, Grade(value=None, reason="grader: down", is_fault=True), False),
    ],
)
def test_what_an_outage_left_behind_is_played_again(peek, fault: str | None, grade: Grade, stands: bool) -> None:
    stop = StopReason.FAULT if fault else StopReason.ANSWERED
    episode = peek.episode(peek.items(1)[0], fault=fault, stop=stop)
    assert is_finished(GradedEpisode(episode=episode, grade=grade)) is stands
