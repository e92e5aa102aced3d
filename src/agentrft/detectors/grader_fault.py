"""The grader gave no number, two numbers for the same, or a pass for nothing."""

from __future__ import annotations

from collections.abc import Iterator

from agentrft.detectors.finding import Evidence, Finding, Kind, Owner, by_key, clip
from agentrft.detectors.values import canonical
from agentrft.detectors.view import View, World
from agentrft.types import GradeError

_OF_THE_SAMPLE = frozenset({GradeError.INVALID_VARIABLE, GradeError.SAMPLE_PARSE, GradeError.TRUNCATED_OBSERVATION})
"""No number because of what the sample is: an output that a template cannot read."""
_SAME = 1e-9

_WORDS = {
    "raised": ("gives no number", "Mend it before anything else: every figure depends on it."),
    "unsteady": ("grades the same episode differently", "Take randomness out of it, or grade several times and mean."),
    "free pass": ("passes an episode that did nothing", "Require an answer, and evidence for it, before any credit."),
}


def find(world: World) -> Iterator[Finding]:
    """One finding per way in which the grader fails."""
    hits = [*_without_number(world), *_unsteady(world), *_free_passes(world)]
    for way, evidence in by_key(hits).items():
        title, proposal = _WORDS[way]
        yield Finding(
            kind=Kind.GRADER_FAULT,
            title=f"grader: {title}",
            owner=Owner.GRADER,
            description=f"The grader {title}, in {len({e.episode_id for e in evidence})} episodes.",
            evidence=evidence,
            proposal=proposal,
            target={"grader": way},
        )


def _without_number(world: World) -> Iterator[tuple[str, Evidence]]:
    for view in world.views:
        grade = view.record.grade
        if view.is_fault or grade.error in _OF_THE_SAMPLE:
            continue
        reason = grade.reason if grade.value is None else grade.substituted
        if reason is not None:
            yield "raised", view.whole(f"no grade: {clip(reason)}", turn=view.last_turn)


def _unsteady(world: World) -> Iterator[tuple[str, Evidence]]:
    """Episodes of one item that are the same word for word, with different grades."""
    groups: dict[tuple[str, ...], list[View]] = {}
    for view in world.views:
        if view.record.grade.value is not None and view.record.grade.substituted is None and not view.is_fault:
            groups.setdefault(_transcript(view), []).append(view)
    for group in groups.values():
        values = [view.record.grade.value or 0.0 for view in group]
        if max(values) - min(values) > _SAME:
            note = f"the same transcript got {min(values):g} and {max(values):g}"
            yield from (("unsteady", view.whole(note, turn=view.last_turn)) for view in group)


def _transcript(view: View) -> tuple[str, ...]:
    said = []
    for turn in view.episode.turns:
        said += [
            turn.reply.content or "",
            *(text for call in turn.reply.tool_calls for text in (call.name, call.arguments)),
        ]
        said += [canonical(result.output) for result in turn.results]
    return (view.item_id, view.episode.stop_reason.value, *said)


def _free_passes(world: World) -> Iterator[tuple[str, Evidence]]:
    for view in world.views:
        if view.passed and not view.answer and not view.observations:
            yield (
                "free pass",
                view.whole("passed without an answer and without a call that succeeded", turn=view.last_turn),
            )
