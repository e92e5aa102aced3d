"""What a confirmation says beside its gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from agentrft.optimise import Edit, Played, Tally
from agentrft.optimise.arena import Arena
from agentrft.optimise.confirm import confirm
from agentrft.types import Episode, Item, StopReason

EDIT = Edit(kind="tools", component="edit", sets=((("on",), True),), why="try")
ITEMS = [Item(id=f"row-{n}", messages=()) for n in range(20)]


def episode(item: Item) -> Episode:
    return Episode(
        id="ep_0",
        trace_id="trace_0",
        item_id=item.id,
        step=0,
        member=0,
        attempt=0,
        messages=(),
        turns=(),
        stop_reason=StopReason.ANSWERED,
    )


class Plays:
    """Episodes earn 1 with the edit, and cost what they are told to."""

    def __init__(self, before: Tally, after: Tally) -> None:
        self._before, self._after = before, after

    async def __call__(
        self, document: Mapping[str, Any], files: Mapping[str, str], slots: Sequence[tuple[Item, int]]
    ) -> list[Played]:
        return [
            Played(episode=episode(item), tally=self._after if document.get("on") else self._before)
            for item, _ in slots
        ]


@pytest.mark.parametrize(
    ("after", "dearer"),
    [
        (Tally(reward=1.0, tokens=100, calls=4), []),
        (Tally(reward=1.0, tokens=109, calls=4), []),
        (Tally(reward=1.0, tokens=150, calls=4), ["tokens"]),
        (Tally(reward=1.0, tokens=50, calls=6, interventions=1), ["calls", "interventions"]),
    ],
)
async def test_what_costs_more_than_a_tenth_more_is_named(after: Tally, dearer: list[str]) -> None:
    arena = Arena(Plays(Tally(reward=0.0, tokens=100, calls=4), after), {}, ITEMS, budget=80)
    found = await confirm(arena, [EDIT], samples=2)
    assert found.adopted  # dear or not: whether it is worth it is not ours to say
    assert list(found.dearer) == dearer
