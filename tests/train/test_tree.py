"""Reinforcement whose groups branch: `training.credit: tree`."""

from __future__ import annotations

import pytest

from agentrft.credit.spec import Tree
from agentrft.train import rft
from agentrft.train.played import Crediting


async def test_shared_turns_are_credited_once_and_siblings_are_compared(peek, rft_plan, log, store) -> None:
    learner = peek.warm(peek.learner())
    credit = Crediting.of(Tree(trees=3), rft_plan().folder)
    plan = rft_plan(steps=3, group_size=9, batch_size=4, validation=(), credit=credit)
    await rft.train(plan, learner, peek.agent(learner), peek.grader, log)
    records = store.list_episodes("ftjob-t", limit=1000)
    groups: dict[tuple[int, str, int], dict[int, object]] = {}
    for record in records:
        episode = record.episode
        groups.setdefault((episode.step, episode.item_id, episode.attempt), {})[episode.member] = record
    compared = 0
    for members in groups.values():
        assert credit.forks is not None
        for trunk in range(3):
            assert trunk in members
            branches = [m for m, turn in credit.forks.branches(trunk, 9) if m in members]
            ends_before_the_fork = len(members[trunk].episode.turns) < 2  # type: ignore[attr-defined]  # a record
            assert len(branches) == (0 if ends_before_the_fork else 2)
            sharing = [members[m] for m in (trunk, *branches)]
            trained = [r for r in sharing if r.advantage is not None]  # type: ignore[attr-defined]  # a record
            turns = [r.extra["credit"]["turns"] for r in trained]  # type: ignore[attr-defined]  # a record
            # The first turn is the same one in all of them, so each has the same share of its credit.
            assert len({entries[0]["advantage"] for entries in turns}) <= 1
            compared += any(entries[1]["parts"]["step"] for entries in turns if len(entries) > 1)
    assert compared > 3


async def test_trees_learn_the_task(peek, rft_plan, log) -> None:
    learner = peek.warm(peek.learner())
    credit = Crediting.of(Tree(trees=4), rft_plan().folder)
    plan = rft_plan(
        steps=10, group_size=8, batch_size=4, learning_rate=20.0, eval_interval=10, eval_samples=8, credit=credit
    )
    result = await rft.train(plan, learner, peek.agent(learner), peek.grader, log)
    (_, before), (_, after) = result.validations[0], result.validations[-1]
    assert after > before + 0.3


@pytest.mark.parametrize("settings", [{"trees": 1}, {"at": [1]}, {"at": []}])
def test_trees_that_cannot_be_compared_or_do_not_branch_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"greater than or equal to 2|at least 1 item"):
        Tree.model_validate(settings)
