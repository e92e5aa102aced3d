"""A call that belongs to solving the item never happens, or not before the call that needs it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key, clip
from agentrft.detectors.plan import plan_for
from agentrft.detectors.view import Step, World
from agentrft.detectors.words import is_not_found

_MIN_EACH = 3


def find(world: World) -> Iterator[Finding]:
    """One finding per missing tool, and the call before which it was missing where that is known."""
    hits = dict.fromkeys([*_before(world), *_never(world)])
    for (missing, before), evidence in by_key(hits).items():
        rule = f"Guardrail `{before}: {{require_before: [{missing}]}}`, or s" if before else "S"
        yield Finding(
            kind=Kind.MISSING_STEP,
            title=f"{before or 'answer'}: without {missing}",
            owner=Owner.AGENT,
            description=f"{missing} is not called{f' before {before}' if before else ''}, as successful episodes do.",
            evidence=evidence,
            proposal=f"{rule}ay in the prompt that {missing} comes {f'before {before}' if before else 'first'}.",
            target={"tool": missing, "before": before},
        )


def _never(world: World) -> Iterator[tuple[tuple[str, str], Evidence]]:
    """An answer without a tool that at least 80 % of the item's other successes called."""
    for view in world.views:
        plan = plan_for(world, view) if view.answered and view.steps else None
        if plan is None:
            continue
        strange = {step.name for step in view.steps} - plan.used
        for name in plan.core:
            # With a stranger in its place it is the wrong tool; tried without success it is not missing.
            if name not in {step.name for step in view.steps} and name in view.specs and not strange:
                note = f"answered without {name}, which the item's successful episodes call"
                yield (name, ""), view.whole(note, turn=view.last_turn)


def _before(world: World) -> Iterator[tuple[tuple[str, str], Evidence]]:
    """A refused call that names a tool not called yet, or that is only answered after it."""
    learnt = _prerequisites(world)
    for view in world.views:
        for step in view.steps:
            if not step.failed or step.is_outage or step.result is None or step.name not in view.specs:
                continue
            before = {one.name for one in view.steps if one.turn < step.turn and one.succeeded}
            named = [name for name in view.tools_named(step) if name not in before]
            needed = named[:1] if len(named) == 1 else _unmet(step, learnt, before)
            for name in needed:
                yield (name, step.name), view.at(step, f"{step.shown} → {clip(step.output)}")


def _unmet(step: Step, learnt: Mapping[str, Sequence[str]], before: Collection[str]) -> list[str]:
    return [] if _is_about_a_thing(step) else [name for name in learnt.get(step.name, ()) if name not in before][:1]


def _is_about_a_thing(step: Step) -> bool:
    """Whether the error is about what the call names, which may not exist, rather than about its time."""
    told = step.output.casefold()
    return is_not_found(step.output) or any(len(value) >= 3 and value.casefold() in told for _, value in step.values())


def _prerequisites(world: World) -> dict[str, list[str]]:
    """Tool → tools without which it always failed and with which it nearly always was answered."""
    with_it: Counter[tuple[str, str]] = Counter()
    without: Counter[tuple[str, str]] = Counter()
    good: dict[tuple[str, str], int] = {}
    bad: dict[tuple[str, str], int] = {}
    for view in world.views:
        for step in view.steps:
            if step.result is None or not step.was_asked or step.is_outage or (step.failed and _is_about_a_thing(step)):
                continue
            before = {one.name for one in view.steps if one.turn < step.turn and one.succeeded}
            for name in view.specs:
                if name == step.name:
                    continue
                pair = (step.name, name)
                (with_it if name in before else without)[pair] += 1
                if name in before and step.succeeded:
                    good[pair] = good.get(pair, 0) + 1
                if name not in before and step.failed:
                    bad[pair] = bad.get(pair, 0) + 1
    found: dict[str, list[str]] = {}
    for pair, count in without.items():
        has_both = count >= _MIN_EACH and with_it[pair] >= _MIN_EACH
        if has_both and bad.get(pair, 0) == count and good.get(pair, 0) >= 0.8 * with_it[pair]:
            found.setdefault(pair[0], []).append(pair[1])
    return found
