"""Simulated episodes: items of different difficulty, and edits that add to the chance of success, or do nothing.

Rewards are 0 or 1. An item's own chance is drawn from Beta(0.7, 1.0): many hard ones, some easy, few between.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentrft.optimise import Edit, OptimisePlan, Outcome, Played, Split, Tally, optimise
from agentrft.types import Episode, Item, StopReason

PLAN = OptimisePlan(budget=1200, samples=4, kinds=("tools",))


class World:
    """Implements `optimise.Play`."""

    def __init__(self, seed: int, effects: Mapping[str, float]) -> None:
        """`effects` by edit, `e0`, `e1`, …: what it adds to every item's chance."""
        self.seed = seed
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
        """One episode for each slot."""
        on = sorted(document.get("edits", {}))
        return [self._play(item, sample, on) for item, sample in slots]

    def _play(self, item: Item, sample: int, on: Sequence[str]) -> Played:
        # A candidate's draws are its own: with other words a model samples other episodes.
        text = f"{self.seed}/{item.id}/{sample}/{on}"
        draw = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
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
        return Played(episode=episode, tally=Tally(reward=float(draw < self._chance(item, on))))

    def _chance(self, item: Item, on: Sequence[str]) -> float:
        return min(max(self._chances[item.id] + sum(self._effects.get(name, 0.0) for name in on), 0.0), 1.0)

    def gain(self, outcome: Outcome) -> float:
        """What an adopted winner truly gains on the items that confirm; 0 where none was adopted."""
        on = chosen(outcome) if outcome.verdict == "adopted" else []
        items = self.split.confirm
        return sum(self._chance(item, on) - self._chance(item, []) for item in items) / len(items)


def chosen(outcome: Outcome) -> list[str]:
    """The winner's edits, adopted or not."""
    return sorted(place[-1] for one in outcome.kept for place, _ in one.edit.sets)


def menu_of(count: int, shares: Mapping[str, float] | None = None) -> list[Edit]:
    """Edits `e0`, `e1`, …, those that more of the failed episodes speak for first, as `propose` puts them."""
    edits = [
        Edit(kind="tools", component=f"edit {n}", sets=((("edits", f"e{n}"), True),), why="try") for n in range(count)
    ]
    weighed = [replace(edit, share=(shares or {}).get(edit.sets[0][0][-1], 0.0)) for edit in edits]
    return sorted(weighed, key=lambda edit: -edit.share)


async def search_in(
    world: World, folder: Path, count: int, plan: OptimisePlan = PLAN, shares: Mapping[str, float] | None = None
) -> Outcome:
    """What an optimisation finds among `count` edits."""

    async def further(_evidence: Any) -> Sequence[Edit]:
        return menu_of(count, shares)

    return await optimise(replace(plan, seed=world.seed), world.split, world, {}, (), folder, further=further)
