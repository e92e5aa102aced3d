"""Another tool than the one that does it: where others succeed with B, this one used A."""

from __future__ import annotations

from collections.abc import Iterator

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key, clip
from agentrft.detectors.plan import Plan, done, plan_for
from agentrft.detectors.values import text_of
from agentrft.detectors.view import Step, View, World

_MIN_PASSES = 6
"""Successes of an item without a tool, before a tool that other successes use counts as wrong for it."""


def find(world: World) -> Iterator[Finding]:
    """One finding per pair (tool used, tool that does it)."""
    hits = dict.fromkeys([*_instead(world), *_after_an_error(world)])
    for (used, right), evidence in by_key(hits).items():
        yield Finding(
            kind=Kind.WRONG_TOOL,
            title=f"{used}: used where {right} does it",
            owner=Owner.INTERFACE,
            description=f"Episodes call {used} for what successful ones do with {right}.",
            evidence=evidence,
            proposal=f"Say in the descriptions of {used} and {right} when to use which, merge them, or drop {used}.",
            target={"tool": used, "instead": right},
        )


def _instead(world: World) -> Iterator[tuple[tuple[str, str], Evidence]]:
    """A tool that none of the item's other successes called, in an episode that lacks one they all called.

    A tool that serves well elsewhere is a way that these successes happened not to take, unless there are many of them.
    """
    serves = {step.name for view in world.views if view.passed for step in view.steps if step.succeeded}
    for view in world.views:
        plan = plan_for(world, view)
        if plan is None or view.is_fault:
            continue
        missing = [name for name in plan.core if name not in done(view) and name in view.specs]
        strange = [s for s in view.steps if s.name in view.specs and s.was_asked and _is_strange(s.name, plan)]
        for step in strange[:1] if missing else ():
            tried = any(other.name == missing[0] for other in view.steps)
            enough = len(world.passes(view.item_id, but=view)) >= _MIN_PASSES or step.name not in serves
            if enough and not tried and not step.is_outage:
                note = f"{step.shown}; the item's successful episodes call {missing[0]}, and never {step.name} instead"
                yield (step.name, missing[0]), view.at(step, note, recovered=False)


def _is_strange(name: str, plan: Plan) -> bool:
    return name not in plan.used or name in plan.spare


def _after_an_error(world: World) -> Iterator[tuple[tuple[str, str], Evidence]]:
    """A refuses, and the next call asks B for the same and is answered."""
    for view in world.views:
        for step, following in zip(view.steps, view.steps[1:], strict=False):
            if _is_swap(view, step, following):
                note = f"{step.shown} → {clip(step.output, 40)}; then {following.shown} was answered"
                yield (step.name, following.name), view.at(step, note, recovered=True)


def _is_swap(view: View, step: Step, following: Step) -> bool:
    if not (step.failed and step.was_asked and following.succeeded and following.turn == step.turn + 1):
        return False
    if step.name == following.name or step.is_outage or view.writes(step) != view.writes(following):
        return False
    asked = {text_of(value) for value in (step.arguments or {}).values()}
    then = {text_of(value) for value in (following.arguments or {}).values()}
    # A search for what a look-up did not find is a good next step, not a wrong first one: all of it must be the same.
    return bool(asked) and asked == then
