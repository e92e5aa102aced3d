"""The needed value lies beyond the cut of an output."""

from __future__ import annotations

from collections.abc import Iterator

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key, clip
from agentrft.detectors.values import is_same_value, is_specific, plain, shows
from agentrft.detectors.view import Step, View, World
from agentrft.detectors.words import is_cut

_CUTS = frozenset({"truncate", "page"})


def find(world: World) -> Iterator[Finding]:
    """One finding per tool whose output is cut."""
    hits = [hit for view in world.views for hit in _hits(world, view)]
    for tool, evidence in by_key(hits).items():
        limit = max(one.seen.limits.tool_output_tokens for one in world.views)
        yield Finding(
            kind=Kind.TRUNCATED_EVIDENCE,
            title=f"{tool}: the needed value is cut off",
            owner=Owner.OUTPUT,
            description=f"Outputs of {tool} are cut before the value that the item asks for.",
            evidence=evidence,
            proposal=f"Raise `agent.limits.tool_output_tokens` (now {limit:,}), or for {tool} alone "
            "`agent.outputs.max_tokens`; or let it page, project, or narrow the call.",
            target={"tool": tool},
        )


def _hits(world: World, view: View) -> Iterator[tuple[str, Evidence]]:
    # Of one character nothing can be said; a longer one that is nowhere was not shown, however short.
    right = [one for one in world.answers(view.item_id) if len(plain(one)) > 1] if not view.is_fault else []
    cut = [step for step in view.steps if step.succeeded and _is_cut(step)]
    if not right or not cut or any(shows(text, one) for text in view.observations for one in right):
        return
    beyond = [
        step for step in cut if (raw := _raw(view, step)) and any(shows(raw, one) for one in right if is_specific(one))
    ]
    if beyond:
        yield from (
            (s.name, view.at(s, f"{s.shown}: {right[0]!r} lies beyond the cut", recovered=False)) for s in beyond[:1]
        )
    elif view.passed is False and not any(_raw(view, step) for step in cut) and _is_on_the_way(world, view, cut[-1]):
        note = f"{cut[-1].shown} → {clip(cut[-1].output[-40:])}; {clip(right[0], 30)!r} was never shown"
        yield cut[-1].name, view.at(cut[-1], note, recovered=False)


def _is_cut(step: Step) -> bool:
    assert step.result is not None
    shrunk = any(one.name in _CUTS and one.bytes_out < one.bytes_in for one in step.result.shaping)
    return shrunk or is_cut(step.output)


def _raw(view: View, step: Step) -> str | None:
    return view.seen.raw.get(step.result.call_id) if step.result else None


def _sources(world: World, item_id: str) -> set[str]:
    """The tools that show the item's answer in any of its episodes."""
    right = world.answers(item_id)
    steps = [step for view in world.by_item[item_id] for step in view.steps if step.succeeded]
    return {step.name for step in steps if any(shows(step.output, one) for one in right)}


def _is_on_the_way(world: World, view: View, step: Step) -> bool:
    """Whether the cut output is the one that should have shown it: asked for in the item's own words, last of its kind.

    Where another episode's longer output of the same call lacks the value too, it is not the cut's fault.
    """
    shown_by = _sources(world, view.item_id)
    if shown_by and step.name not in shown_by:
        return False
    words = [value for _, value in step.values() if is_specific(value)]
    asked = any(shows(view.question, word) for value in words for word in value.replace("/", " ").split())
    later = [other for other in view.steps if other.turn > step.turn and other.succeeded]
    whole = [
        other.output
        for one in world.by_item[view.item_id]
        for other in one.steps
        if other.key == step.key and other.succeeded and not _is_cut(other)
    ]
    if whole:
        return any(shows(text, one) for text in whole for one in world.answers(view.item_id))
    return (asked or not step.values()) and not later and not is_same_value(view.answer, "")
