"""Groups whose members branch off from each other."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agentrft.credit import METHODS, view_of
from agentrft.rollout import (
    Agent,
    Forks,
    GeneratorActor,
    GradedEpisode,
    Limits,
    Rollout,
    Seat,
    checked_tokens,
    run_groups,
)
from agentrft.testing import CharFormat, ScriptedGenerator, ScriptedGrader, ScriptedTools
from agentrft.types import Group, Item, Message, StopReason

FORMAT = CharFormat()
FORKS = Forks(trees=2, at=(1, 2))
GRADER = ScriptedGrader(lambda sample, item: float(len(sample.output_text)))


def policy(context: Sequence[int], rng: random.Random) -> list[int]:
    """Calls a or b at random three times, unless it has seen enough, then answers."""
    if list(context).count(4) == 3 or rng.random() < 0.2:
        return FORMAT.encode("x" * rng.randrange(1, 5))
    return FORMAT.encode(rng.choice(["!a", "!b"]))


def agent(tools: ScriptedTools | None = None) -> Agent:
    tools = tools or ScriptedTools({name: lambda arguments, item: "seen" for name in "ab"})
    return Agent(
        actor=GeneratorActor(generator=ScriptedGenerator(policy), chat_format=FORMAT), tools=tools, limits=Limits()
    )


def rollout(n_items: int = 12, forks: Forks = FORKS) -> Rollout:
    items = [Item(id=f"row-{n}", messages=(Message(role="user", content="Q"),)) for n in range(n_items)]
    seats = [Seat(index=n, item=item) for n, item in enumerate(items)]
    return Rollout(run="ftjob-t", step=1, members=7, seats=seats, forks=forks)


def test_members_branch_off_by_their_number_alone() -> None:
    # Two trunks; each is branched off from before turn 1, then before turn 2, then before turn 1 again.
    assert [FORKS.origin(member) for member in range(7)] == [(0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2), (0, 1)]
    assert FORKS.branches(0, 7) == [(2, 1), (4, 2), (6, 1)]
    assert FORKS.branches(1, 7) == [(3, 1), (5, 2)]


async def test_branches_share_the_tokens_before_their_turn_and_their_nodes_say_so() -> None:
    lengths, parted = set(), 0
    for group in await run_groups(rollout(), agent(), GRADER):
        members = {episode.member: episode for episode in group.episodes}
        assert [*members] == sorted(members)
        nodes = dict(zip(members, FORKS.nodes(group), strict=True))
        for member in range(2, 7):
            trunk, turn = FORKS.origin(member)
            # A member is there exactly when its trunk reached the turn that it branches off before.
            assert (member in members) == (len(members[trunk].turns) > turn)
            if member in members:
                ids, end = checked_tokens(members[member]).ids, members[trunk].turns[turn].start
                assert list(ids)[:end] == list(checked_tokens(members[trunk]).ids)[:end]
                assert nodes[member][:turn] == nodes[trunk][:turn]
                assert not set(nodes[member][turn:]) & {n for m, named in nodes.items() if m != member for n in named}
                parted += list(ids) != list(checked_tokens(members[trunk]).ids)
        lengths.add(len(members))
        credited = METHODS["tree"]([view_of(group, [1.0] * len(members), nodes_G_K=FORKS.nodes(group))])
        assert all(credit == 0 for turns in credited.credit_I_G_K[0] for credit in turns)  # all earned the same
    assert len(lengths) > 1
    assert parted > 10


async def test_the_same_run_grows_the_same_trees_and_goes_on_with_what_is_there() -> None:
    played: list[GradedEpisode] = []
    whole = await run_groups(rollout(4), agent(), GRADER, on_graded=played.append)
    kept = {one.episode.id: one for one in played if one.episode.member in (0, 2)}
    again: list[GradedEpisode] = []
    resumed = await run_groups(rollout(4), agent(), GRADER, finished=kept, on_graded=again.append)
    assert not {one.episode.id for one in again} & set(kept)

    def said(groups: Sequence[Group]) -> list[Any]:
        return [[(episode.id, episode.messages, episode.tokens) for episode in group.episodes] for group in groups]

    assert said(resumed) == said(whole)


async def test_a_branch_of_another_trunk_than_the_one_that_is_there_shares_nothing() -> None:
    groups = await run_groups(rollout(12), agent(), GRADER)
    group = next(group for group in groups if any(episode.member == 2 for episode in group.episodes))
    other = next(one for one in groups if one.episodes[0].turns[0].reply != group.episodes[0].turns[0].reply)
    mixed = replace(group, episodes=(other.episodes[0], *group.episodes[1:]))
    position = [episode.member for episode in group.episodes].index(2)
    assert FORKS.nodes(group)[position][0] == "0/0"
    assert FORKS.nodes(mixed)[position][0] == "2/0"


async def test_nothing_branches_where_tools_never_say_the_same_twice() -> None:
    draws = random.Random(0)
    odd = ScriptedTools({name: lambda arguments, item: str(draws.random()) for name in "ab"})
    for group in await run_groups(rollout(3), agent(odd), GRADER):
        assert [episode.member for episode in group.episodes] == [0, 1]


async def test_tools_that_fail_on_the_way_are_the_branchs_fault() -> None:
    class Tired(ScriptedTools):
        def __init__(self) -> None:
            super().__init__(
                {name: lambda arguments, item: "seen" for name in "ab"}, fails=lambda call, item: self.opened > 2
            )

    (group,) = await run_groups(rollout(1), replace(agent(), tools=Tired()), GRADER)
    found = {episode.member: episode.stop_reason for episode in group.episodes}
    assert found[0] is not StopReason.FAULT
    assert any(member >= 2 and reason is StopReason.FAULT for member, reason in found.items())
    assert all(
        grade.value is None for episode, grade in zip(group.episodes, group.grades, strict=True) if episode.fault
    )
