"""Where no edit does anything, next to nothing is adopted; and what truly helps is found."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import StoreFault
from agentrft.optimise import Edit, OptimisePlan, Played, Split, Tally, optimise
from agentrft.optimise.edit import value_at
from agentrft.types import Episode, Item, StopReason

N_EDITS = 14
PLAN = OptimisePlan(budget=1200, samples=4)


class World:
    """Rewards are 0 or 1: each item has a chance of its own (Beta 0.7, 1.0), to which edits add their effects."""

    def __init__(self, seed: int, effects: Mapping[str, float]) -> None:
        self._seed = seed
        self._effects = effects
        draws = random.Random(f"items {seed}")
        self._chances: dict[str, float] = {}
        self.split = Split(search=self._items("s", 60, draws), confirm=self._items("c", 75, draws))

    def _items(self, name: str, count: int, draws: random.Random) -> list[Item]:
        items = [Item(id=f"{name}{n}", messages=()) for n in range(count)]
        self._chances |= {item.id: draws.betavariate(0.7, 1.0) for item in items}
        return items

    async def __call__(
        self, document: Mapping[str, Any], files: Mapping[str, str], slots: Sequence[tuple[Item, int]]
    ) -> list[Played]:
        on = sorted(name for name in document.get("edits", {}))
        effect = sum(self._effects.get(name, 0.0) for name in on)
        return [self._play(item, sample, on, effect) for item, sample in slots]

    def _play(self, item: Item, sample: int, on: Sequence[str], effect: float) -> Played:
        # A candidate's draws are its own: with other words a model samples other episodes.
        text = f"{self._seed}/{item.id}/{sample}/{on}"
        draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
        reward = float(draw < min(max(self._chances[item.id] + effect, 0.0), 1.0))
        episode = Episode(
            id="ep_0",
            trace_id="trace_0",
            item_id=item.id,
            step=sample,
            member=0,
            attempt=0,
            messages=(),
            turns=(),
            stop_reason=StopReason.ANSWERED,
        )
        return Played(episode=episode, tally=Tally(reward=reward))


def edits(count: int) -> list[Edit]:
    return [
        Edit(kind="tools", component=f"edit {n}", sets=((("edits", f"e{n}"), True),), why="try") for n in range(count)
    ]


async def run(world: World, folder: Path, count: int, plan: OptimisePlan = PLAN) -> Any:
    async def further(_evidence: Any) -> list[Edit]:
        return edits(count)

    plan = OptimisePlan(budget=plan.budget, samples=plan.samples, kinds=("tools",), seed=world._seed)
    return await optimise(plan, world.split, world, {}, (), folder, further=further)


@pytest.mark.parametrize("n_edits", [N_EDITS, 6], ids=["evolution", "halving"])
async def test_nothing_is_adopted_where_nothing_helps(tmp_path: Path, n_edits: int) -> None:
    adopted = 0
    for seed in range(100):
        outcome = await run(World(seed, {}), tmp_path / str(seed), n_edits)
        adopted += outcome.verdict == "adopted"
        assert outcome.spent <= PLAN.budget
    assert adopted <= 10


@pytest.mark.parametrize("n_edits", [N_EDITS, 6], ids=["evolution", "halving"])
async def test_what_helps_is_found(tmp_path: Path, n_edits: int) -> None:
    """One edit of +25 points among others that do nothing, and one that harms."""
    found = 0
    for seed in range(20):
        outcome = await run(World(seed, {"e3": 0.25, "e1": -0.2}), tmp_path / str(seed), n_edits)
        chosen = {place[-1] for one in outcome.kept for place, _ in one.edit.sets}
        found += outcome.verdict == "adopted" and "e3" in chosen and "e1" not in chosen
    assert found >= 16


async def test_an_interrupted_run_goes_on_and_ends_alike(tmp_path: Path) -> None:
    world = World(3, {"e3": 0.25})
    whole = await run(world, tmp_path / "whole", N_EDITS)

    class Interrupted(World):
        """Stops after 300 episodes."""

        left = 300

        async def __call__(self, document: Any, files: Any, slots: Any) -> list[Played]:
            self.left -= len(slots)
            if self.left < 0:
                raise StoreFault("interrupted")
            return await super().__call__(document, files, slots)

    with pytest.raises(StoreFault, match="interrupted"):
        await run(Interrupted(3, {"e3": 0.25}), tmp_path / "cut", N_EDITS)
    with (tmp_path / "cut" / "search.jsonl").open("a") as file:
        file.write('["half a li')  # as a kill leaves it
    counted = Interrupted(3, {"e3": 0.25})
    counted.left = 10_000
    again = await run(counted, tmp_path / "cut", N_EDITS)
    assert again == whole
    assert 10_000 - counted.left < whole.spent  # what was played was not played again


def test_the_value_at_a_place() -> None:
    assert value_at({"a": {"b": 1}}, ("a", "b")) == 1
    assert value_at({"a": 3}, ("a", "b")) is None
