"""Where no edit does anything, next to nothing is adopted; and what truly helps is found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from harness.effects import PLAN, World, chosen, menu_of, search_in

from agentrft.errors import StoreFault
from agentrft.optimise import Played
from agentrft.optimise.arena import Arena
from agentrft.optimise.edit import value_at
from agentrft.optimise.search import halve

N_EDITS = 14
SEARCHES = [(N_EDITS, 2400), (N_EDITS, 1200), (6, 1200)]
"""(edits, budget)"""


@pytest.mark.parametrize(("n_edits", "budget"), SEARCHES, ids=["evolution", "halving", "short menu"])
async def test_nothing_is_adopted_where_nothing_helps(tmp_path: Path, n_edits: int, budget: int) -> None:
    adopted = 0
    for seed in range(100):
        shares = {"e2": 0.6, "e5": 0.6} if seed % 2 else {}
        plan = replace(PLAN, budget=budget)
        outcome = await search_in(World(seed, {}), tmp_path / str(seed), n_edits, plan, shares)
        adopted += outcome.verdict == "adopted"
        assert outcome.spent <= budget
    assert adopted <= 10


@pytest.mark.parametrize(("n_edits", "budget"), SEARCHES, ids=["evolution", "halving", "short menu"])
async def test_what_helps_is_found(tmp_path: Path, n_edits: int, budget: int) -> None:
    """One edit of +25 points among others that do nothing, and one that harms."""
    found = 0
    for seed in range(20):
        world, plan = World(seed, {"e3": 0.25, "e1": -0.2}), replace(PLAN, budget=budget)
        outcome = await search_in(world, tmp_path / str(seed), n_edits, plan)
        found += outcome.verdict == "adopted" and "e3" in chosen(outcome) and "e1" not in chosen(outcome)
    assert found >= 16


async def test_evidence_is_worth_episodes(tmp_path: Path) -> None:
    """200 episodes single out the one of 16 edits that helps where failed episodes speak for it; where they speak for
    others, more episodes outweigh them."""

    async def found(budget: int, shares: Mapping[str, float]) -> int:
        plan = replace(PLAN, budget=budget)
        outcomes = [
            await search_in(World(seed, {"e9": 0.2}), tmp_path / f"{budget} {seed}", 16, plan, shares)
            for seed in range(20)
        ]
        return sum(outcome.verdict == "adopted" for outcome in outcomes)

    assert await found(800, {"e9": 0.6, "e2": 0.3, "e4": 0.3}) >= 15
    assert await found(1700, dict.fromkeys(("e1", "e2", "e3", "e4", "e5"), 0.6)) >= 15


@pytest.mark.parametrize("n_edits", [5, 10, 16, 24])
@pytest.mark.parametrize("budget", [60, 160, 300])
async def test_a_small_budget_plays_as_many_edits_as_it_reaches(n_edits: int, budget: int) -> None:
    world = World(0, {})
    arena = Arena(world, {}, world.split.search, budget)
    said: list[str] = []
    await halve(arena, menu_of(n_edits), budget, said.append)
    assert any(text.startswith("round 1 ") for text in said)
    assert budget / 2 < arena.spent <= budget


async def test_an_interrupted_run_goes_on_and_ends_alike(tmp_path: Path) -> None:
    world = World(3, {"e3": 0.25})
    whole = await search_in(world, tmp_path / "whole", N_EDITS)

    class Interrupted(World):
        """Stops after 300 episodes."""

        left = 300

        async def __call__(self, document: Any, files: Any, slots: Any) -> list[Played]:
            self.left -= len(slots)
            if self.left < 0:
                raise StoreFault("interrupted")
            return await super().__call__(document, files, slots)

    with pytest.raises(StoreFault, match="interrupted"):
        await search_in(Interrupted(3, {"e3": 0.25}), tmp_path / "cut", N_EDITS)
    with (tmp_path / "cut" / "search.jsonl").open("a") as file:
        file.write('["half a li')  # as a kill leaves it
    counted = Interrupted(3, {"e3": 0.25})
    counted.left = 10_000
    again = await search_in(counted, tmp_path / "cut", N_EDITS)
    assert again == whole
    assert 10_000 - counted.left < whole.spent  # what was played was not played again


def test_the_value_at_a_place() -> None:
    assert value_at({"a": {"b": 1}}, ("a", "b")) == 1
    assert value_at({"a": 3}, ("a", "b")) is None
