import asyncio

import pytest

from agentrft.errors import GraderFault, UserError
from agentrft.rollout import Agent, GeneratorActor, Limits, Rollout, Seat, run_groups
from agentrft.testing import CharFormat, ScriptedGenerator, ScriptedGrader, ScriptedTools
from agentrft.types import Grade, Item, Message

FORMAT = CharFormat()


def items(n: int) -> list[Item]:
    return [Item(id=f"row-{i}", messages=(Message(role="user", content=f"{i}"),)) for i in range(n)]


def rollout(n: int, members: int) -> Rollout:
    seats = [Seat(index=index, item=item) for index, item in enumerate(items(n))]
    return Rollout(run="ftjob-t", step=0, members=members, seats=seats)


def agent(tools: ScriptedTools | None = None, max_delay_s: float = 0.0) -> Agent:
    # Draws one of four answers from the request's seed.
    generator = ScriptedGenerator(lambda tokens, rng: FORMAT.encode(rng.choice("abcd")), max_delay_s=max_delay_s)
    return Agent(
        actor=GeneratorActor(generator=generator, chat_format=FORMAT), tools=tools or ScriptedTools(), limits=Limits()
    )


GRADER = ScriptedGrader(lambda sample, item: "abcd".index(sample.output_text) / 4)


async def test_groups_come_in_the_order_of_seats_and_members_whatever_finishes_first():
    calm = await run_groups(rollout(5, 4), agent(), GRADER)
    jittery = await run_groups(rollout(5, 4), agent(max_delay_s=0.02), GRADER)
    assert [g.item.id for g in calm] == [f"row-{i}" for i in range(5)]
    assert [[e.member for e in g.episodes] for g in calm] == [[0, 1, 2, 3]] * 5
    assert [[e.answer for e in g.episodes] for g in calm] == [[e.answer for e in g.episodes] for g in jittery]
    values_I_G = [[[grade.value for grade in g.grades] for g in groups] for groups in (calm, jittery)]
    assert values_I_G[0] == values_I_G[1]
    assert len({e.answer for g in calm for e in g.episodes}) == 4  # members differ: the seed is theirs


async def test_requests_carry_their_place_in_the_step():
    built = agent()
    await run_groups(rollout(2, 2), built, GRADER)
    orders = {request.order for request, _, _ in built.actor.generator.outputs}
    assert orders == {(0, 0), (0, 1), (1, 0), (1, 1)}


async def test_all_episodes_are_in_flight_at_once_and_each_is_graded_as_it_ends():
    waiting = asyncio.Event()
    in_flight = 0

    class Gate(ScriptedTools):
        async def open(self, item, trace_id):
            nonlocal in_flight
            in_flight += 1
            if in_flight == 6:
                waiting.set()
            await waiting.wait()
            return await super().open(item, trace_id)

    graded = []
    groups = await run_groups(rollout(3, 2), agent(Gate()), GRADER, on_graded=graded.append)
    assert len(graded) == 6
    assert {g.episode.id for g in graded} == {e.id for group in groups for e in group.episodes}


async def test_a_fault_costs_one_member_and_never_reaches_the_grader():
    seen = []
    call_then_answer = ScriptedGenerator(lambda tokens, rng: FORMAT.encode("a" if 4 in tokens else "!look"))
    trouble = ScriptedTools({"look": lambda arguments, item: "seen"}, fails=lambda call, item: item.id == "row-1")
    faulty = Agent(actor=GeneratorActor(generator=call_then_answer, chat_format=FORMAT), tools=trouble, limits=Limits())
    grader = ScriptedGrader(lambda sample, item: seen.append(item.id) or 1.0)
    groups = await run_groups(rollout(3, 1), faulty, grader)
    assert [g.grades[0].value for g in groups] == [1.0, None, 1.0]
    assert groups[1].grades[0].reason == "the episode is a fault: tool: scripted fault in look"
    assert sorted(seen) == ["row-0", "row-2"]


async def test_finished_episodes_are_reused_as_they_are():
    first = []
    await run_groups(rollout(2, 2), agent(), GRADER, on_graded=first.append)
    kept = {graded.episode.id: graded for graded in first[:3]}
    again = []
    built = agent()
    groups = await run_groups(rollout(2, 2), built, GRADER, finished=kept, on_graded=again.append)
    assert len(built.actor.generator.outputs) == 1  # only the missing one was generated
    assert len(again) == 1
    reused = [*(graded.episode for graded in kept.values()), again[0].episode]
    assert all(any(episode is one for one in reused) for group in groups for episode in group.episodes)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (Grade(value=float("nan")), "the grader returned nan; expected a finite number"),
        (Grade(value=float("inf")), "the grader returned inf; expected a finite number"),
        (Grade(value=None, reason="judge unreadable"), "judge unreadable"),
    ],
)
async def test_what_is_no_number_is_a_reason(result, reason):
    [group] = await run_groups(rollout(1, 1), agent(), ScriptedGrader(lambda sample, item: result))
    assert (group.grades[0].value, group.grades[0].reason) == (None, reason)


async def test_a_grader_fault_is_a_reason():
    def down(sample, item):
        raise GraderFault("endpoint is down")

    [group] = await run_groups(rollout(1, 1), agent(), ScriptedGrader(down))
    assert group.grades[0].reason == "grader: endpoint is down"


async def test_a_users_mistake_comes_out_bare_not_in_an_exception_group():
    tight = agent()
    tight = Agent(actor=tight.actor, tools=tight.tools, limits=Limits(max_episode_tokens=3))
    with pytest.raises(UserError, match="prompt of item"):
        await run_groups(rollout(2, 2), tight, GRADER)
