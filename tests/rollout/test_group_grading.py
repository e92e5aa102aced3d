"""A grader that takes groups gets those that wait, and nobody waits for an episode that is still being played."""

import asyncio
from pathlib import Path

import pytest

from agentrft.graders import build_grader, grade_episodes
from agentrft.rollout import Agent, GeneratorActor, Limits, Rollout, Seat, run_groups
from agentrft.testing import CharFormat, ScriptedGenerator, ScriptedTools
from agentrft.types import Episode, Grade, Item, Message, Sample, StopReason

FORMAT = CharFormat()


class Batches:
    """Grades groups, remembering their sizes; holds the first call until it is told to go on."""

    def __init__(self, *, hold: bool = False, fails: type[Exception] | None = None) -> None:
        self.sizes: list[int] = []
        self.items: set[str] = set()
        self.go_on = asyncio.Event()
        self._fails = fails
        if not hold:
            self.go_on.set()

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        return (await self.grade_group([sample], item))[0]

    async def grade_group(self, samples_G, item):
        self.sizes.append(len(samples_G))
        self.items.add(item.id)
        await self.go_on.wait()
        if self._fails:
            raise self._fails("broken")
        return [Grade(value="abcd".index(sample.output_text) / 4) for sample in samples_G]

    async def close(self) -> None:
        """Nothing to close."""


def rollout(n: int, members: int) -> Rollout:
    items = [Item(id=f"row-{i}", messages=(Message(role="user", content=f"{i}"),)) for i in range(n)]
    seats = [Seat(index=index, item=item) for index, item in enumerate(items)]
    return Rollout(run="ftjob-t", step=0, members=members, seats=seats)


def agent(tools: ScriptedTools | None = None, max_delay_s: float = 0.0) -> Agent:
    generator = ScriptedGenerator(lambda tokens, rng: FORMAT.encode(rng.choice("abcd")), max_delay_s=max_delay_s)
    return Agent(
        actor=GeneratorActor(generator=generator, chat_format=FORMAT), tools=tools or ScriptedTools(), limits=Limits()
    )


@pytest.mark.parametrize("max_delay_s", [0.0, 0.02])
async def test_every_episode_gets_its_own_grade_whoever_ends_first(max_delay_s):
    grader = Batches()
    graded = []
    groups = await run_groups(rollout(4, 8), agent(max_delay_s=max_delay_s), grader, on_graded=graded.append)
    for group in groups:
        assert [grade.value for grade in group.grades] == ["abcd".index(e.answer or "") / 4 for e in group.episodes]
    assert sum(grader.sizes) == len(graded) == 32
    assert grader.items == {f"row-{i}" for i in range(4)}


async def test_those_that_end_while_one_is_graded_go_together():
    grader = Batches(hold=True)
    playing = asyncio.create_task(run_groups(rollout(1, 8), agent(max_delay_s=0.05), grader))
    await asyncio.sleep(0.3)
    grader.go_on.set()
    [group] = await playing
    assert sum(grader.sizes) == len(group.grades) == 8
    assert len(grader.sizes) == 2  # those of the first breath, then all others


async def test_nobody_waits_for_an_episode_that_is_still_played():
    last = asyncio.Event()

    class Gate(ScriptedTools):
        async def open(self, item, trace_id):
            self.opened = getattr(self, "opened", 0) + 1
            if self.opened == 4:
                await last.wait()
            return await super().open(item, trace_id)

    graded = []

    def on_graded(one):
        graded.append(one)
        if len(graded) == 3:
            last.set()  # would never come if the three waited for the fourth

    await asyncio.wait_for(run_groups(rollout(1, 4), agent(Gate()), Batches(), on_graded=on_graded), 10)
    assert len(graded) == 4


async def test_what_a_group_grader_raises_is_no_grade():
    [group] = await run_groups(rollout(1, 3), agent(), Batches(fails=KeyError))
    assert [grade.reason for grade in group.grades] == ["the grader raised KeyError: 'broken'"] * 3
    assert all(grade.traceback for grade in group.grades)


async def test_faults_never_reach_the_grader_and_keep_their_place():
    def episode(n: int, stop: StopReason, text: str) -> Episode:
        return Episode(
            id=f"ep_{n}", trace_id="t", item_id="row-0", step=0, member=n, attempt=0,
            messages=(Message(role="assistant", content=text),), turns=(), stop_reason=stop, fault="tool: down",
        )  # fmt: skip

    grader = Batches()
    ends = [StopReason.FAULT, StopReason.MAX_TURNS, StopReason.FAULT, StopReason.MAX_TURNS]
    item = Item(id="row-0", messages=())
    grader.go_on.set()
    grades = await grade_episodes(grader, [episode(n, stop, "a") for n, stop in enumerate(ends)], item)
    assert grader.sizes == [2]
    assert [grade.reason for grade in grades[::2]] == ["the episode is a fault: tool: down"] * 2
    assert await grade_episodes(grader, [episode(n, StopReason.FAULT, "a") for n in range(2)], item) != []
    assert grader.sizes == [2]


async def test_a_cancelled_rollout_leaves_nothing_behind():
    grader = Batches(hold=True)
    playing = asyncio.create_task(run_groups(rollout(2, 4), agent(), grader))
    await asyncio.sleep(0.05)
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_a_python_grader_grades_what_it_graded_alone():
    source = "def grade(sample, item):\n    return 'abcd'.index(sample['output_text']) / 4"
    grader = build_grader({"type": "python", "name": "r", "source": source}, Path())
    try:
        groups = await run_groups(rollout(3, 8), agent(), grader)
    finally:
        await grader.close()
    for group in groups:
        assert [grade.value for grade in group.grades] == ["abcd".index(e.answer or "") / 4 for e in group.episodes]
