"""The same again and again: a call with one result, a call with one error, two calls in turn.

Thresholds as the guardrail's (3, 3, 6). A result that changes in the end was worth the waiting: no loop.
"""

from __future__ import annotations

from collections.abc import Iterator

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key, clip
from agentrft.detectors.view import Step, View, World

SAME_CALL = 3
ALTERNATING = 6


def find(world: World) -> Iterator[Finding]:
    """One finding per tool and kind of loop."""
    hits = [hit for view in world.views for hit in _hits(view)]
    for (tool, way), evidence in by_key(hits).items():
        yield Finding(
            kind=Kind.LOOP,
            title=f"{tool}: {way}",
            owner=Owner.HARNESS,
            description=f"{tool} is called over and over without anything new.",
            evidence=evidence,
            proposal="Enforce `guardrails.loops` (it tells the model that nothing changes), and let the error say what "
            "to do instead; if waiting is meant, declare `polling: true`.",
            target={"tool": tool, "way": way},
        )


def _hits(view: View) -> Iterator[tuple[tuple[str, str], Evidence]]:
    found = _alternating(view) or _repeated(view)
    if found is not None:
        step, way, note = found
        yield (step.name, way), view.at(step, note, recovered=view.passed is True)


def _repeated(view: View) -> tuple[Step, str, str] | None:
    """The third of equal calls with equal results, without a write by another call between."""
    runs: dict[tuple[str, str], list[Step]] = {}
    for step in view.steps:
        if step.result is None or step.name in view.seen.polling:
            continue
        if step.succeeded and view.writes(step):
            runs = {}  # and three of the same in the basket are no loop
            continue
        run = runs.setdefault(step.key, [])
        if run and (run[-1].output != step.output and not _guard_said(step)):
            run.clear()
        run.append(step)
        if len(run) >= SAME_CALL and len({one.turn for one in run}) >= SAME_CALL and not _changes_later(view, step):
            way = "the same call, the same error" if step.failed else "the same call, the same result"
            return step, way, f"{step.shown}, {len(run)} times → {clip(run[0].output, 40)}"
    return None


def _guard_said(step: Step) -> bool:
    """A loop guard answered in the tool's place: its words differ, the call does not."""
    return step.result is not None and any(
        one.rule.startswith("loops.") and one.enforced for one in step.result.interventions
    )


def _changes_later(view: View, step: Step) -> bool:
    return any(
        other.key == step.key and other.turn > step.turn and other.output != step.output and not _guard_said(other)
        for other in view.steps
    )


def _alternating(view: View) -> tuple[Step, str, str] | None:
    steps = [step for step in view.steps if step.result is not None and step.name not in view.seen.polling]
    for end in range(ALTERNATING, len(steps) + 1):
        last = [(step.key, step.output) for step in steps[end - ALTERNATING : end]]
        even, odd = set(last[0::2]), set(last[1::2])
        if len(even) == 1 and len(odd) == 1 and even != odd:
            step = steps[end - 1]
            return step, "two calls in turn", f"{steps[end - 2].shown} and {step.shown} in turn, {ALTERNATING} calls"
    return None
