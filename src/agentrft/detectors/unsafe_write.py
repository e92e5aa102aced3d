"""Changes that no successful episode of the item makes."""

from __future__ import annotations

from collections.abc import Iterator

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key
from agentrft.detectors.values import plain, text_of
from agentrft.detectors.view import Step, View, World

_MIN_PASSES = 2


def find(world: World) -> Iterator[Finding]:
    """One finding per tool."""
    hits = [hit for view in world.views for hit in _hits(world, view)]
    for tool, evidence in by_key(hits).items():
        yield Finding(
            kind=Kind.UNSAFE_WRITE,
            title=f"{tool}: changes what no successful episode changes",
            owner=Owner.AGENT,
            description=f"{tool} is called, and answers, where the item's successful episodes do not call it, or call "
            "it with other arguments.",
            evidence=evidence,
            proposal=f"Guardrail for {tool}: `approval`, `require_before`, or `args` that must have been seen; say in "
            "the prompt when it may be called.",
            target={"tool": tool},
        )


def _hits(world: World, view: View) -> Iterator[tuple[str, Evidence]]:
    writes = [step for step in view.steps if step.succeeded and view.writes(step)]
    passes = world.passes(view.item_id, but=view) if writes else []
    if len(passes) < _MIN_PASSES:
        return
    allowed = [step for one in passes for step in one.steps if step.succeeded and one.writes(step)]
    for step in writes:
        like = [other for other in allowed if other.name == step.name]
        if not like:
            yield step.name, view.at(step, f"{step.shown}: none of {len(passes)} successes writes so", recovered=False)
        elif odd := _deviation(step, like, len(passes)):
            yield step.name, view.at(step, f"{step.shown}: {odd}", recovered=False)


def _deviation(step: Step, like: list[Step], n_passes: int) -> str:
    """The argument that differs where all successes agree; empty when none does. Free texts never agree."""
    if step.arguments is None or len(like) < max(n_passes, _MIN_PASSES):
        return ""
    for name, value in step.arguments.items():
        theirs = {plain(text_of((other.arguments or {}).get(name))) for other in like}
        if len(theirs) == 1 and plain(text_of(value)) not in theirs:
            return f"`{name}` is {next(iter(theirs))!r} in all successes"
    return ""
