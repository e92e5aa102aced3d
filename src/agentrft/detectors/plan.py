"""What successful episodes of an item have in common: the calls that belong to solving it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from agentrft.detectors.view import View, World

MIN_PASSES = 3
"""Successful episodes of an item before what they share counts as its plan."""
CORE_SHARE = 0.8


@dataclass(frozen=True, slots=True)
class Plan:
    """The tools of an item's successful episodes."""

    core: tuple[str, ...]
    """Tools that at least 80 % of them called with success, in the order in which they were first called."""
    used: frozenset[str]
    """Every tool that any of them called."""
    spare: frozenset[str]
    """Tools that at most a third of them called, and never in place of a core tool."""
    pass_id: str
    """One of them, the shortest, for contrast."""


def plan_for(world: World, view: View) -> Plan | None:
    """The plan by the item's *other* successful episodes; None where there are fewer than three.

    An episode is never compared with itself, so that what is found does not depend on whether it succeeded.
    """
    passes = world.passes(view.item_id, but=view)
    if len(passes) < MIN_PASSES:
        return None
    called = [_called(one) for one in passes]
    counts = Counter(name for names in called for name in names)
    core = [name for name, count in counts.items() if count >= CORE_SHARE * len(passes)]
    used = frozenset(step.name for one in passes for step in one.steps)
    shortest = min(passes, key=lambda one: (len(one.steps), one.id))
    spare = [
        name
        for name in used - {*core}
        if sum(name in names for names in called) * 3 <= len(passes)
        and all({*core} <= {*names} for names in called if name in names)
    ]
    place = {name: sum(names.index(name) for names in called if name in names) for name in core}
    return Plan(
        core=tuple(sorted(core, key=lambda name: (place[name], name))),
        used=used,
        spare=frozenset(spare),
        pass_id=shortest.id,
    )


def done(view: View) -> frozenset[str]:
    """Tools that the episode called with success."""
    return frozenset(_called(view))


def _called(view: View) -> Sequence[str]:
    return list(dict.fromkeys(step.name for step in view.steps if step.succeeded))
