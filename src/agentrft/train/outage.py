"""Whether failures are bad luck, which costs episodes, or a part that is down, which stops the job.

Nothing is trained on, and no checkpoint chosen by, what is left when a part is down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agentrft.errors import BoundaryError, EngineFault, GraderFault, SandboxFault, ToolFault, UserError
from agentrft.types import Episode, Grade, Group, StopReason

MAX_EXCEPTION_FRAC = 0.2
"""Of a step's grades: above it the grader is broken rather than surprised, and the job fails."""
MAX_STEP_FAULT_FRAC = 0.5
"""Of a step's episodes: above it the job pauses. What is left needed no tool, and training would prefer that."""
MAX_VALIDATION_FAULT_FRAC = 0.2
"""Of a validation's episodes: above it the rest says little about the checkpoint, and the job pauses."""
_TRACEBACKS_SHOWN = 5
_KINDS: tuple[type[BoundaryError], ...] = (ToolFault, GraderFault, EngineFault, SandboxFault)


def check_grader(groups: Iterable[Group]) -> None:
    """Raise UserError when more than a fifth of the grades are exceptions, or when there is not one number.

    Faults are left out: the grader never saw those episodes, or its judge or endpoint was down. Where that is why there
    is no number, `check_faults` says so.
    """
    pairs = list(_pairs(groups))
    grades = [grade for episode, grade in pairs if _fault_of(episode, grade) is None]
    tracebacks = [grade.traceback for grade in grades if grade.traceback]
    if len(tracebacks) > MAX_EXCEPTION_FRAC * len(grades):
        distinct: Sequence[str] = list(dict.fromkeys(tracebacks))
        shown = "\n\n".join(traceback.strip() for traceback in distinct[:_TRACEBACKS_SHOWN])
        more = f"\n\n({len(distinct) - _TRACEBACKS_SHOWN} further kinds)" if len(distinct) > _TRACEBACKS_SHOWN else ""
        raise UserError(
            f"The grader raised on {len(tracebacks)} of {len(grades)} episodes; expected at most "
            f"{MAX_EXCEPTION_FRAC:.0%}. Mend it and run the job again; training has used none of these episodes.\n\n"
            f"{shown}{more}",
            param="method.reinforcement.grader",
            code="grader_failing",
        )
    if grades and all(grade.value is None for grade in grades) and not _left_nothing(pairs):
        raise nothing_graded("training", grades)


def nothing_graded(split: str, grades: Iterable[Grade]) -> UserError:
    """The error for episodes of which not one has a number, with up to five of the reasons."""
    reasons = sorted({grade.reason for grade in grades if grade.reason})
    return UserError(
        f"None of the {split} episodes could be graded: {'; '.join(reasons[:5])}. "
        "Mend the grader or the tools and run again.",
        code="nothing_graded",
    )


def check_faults(groups: Iterable[Group], *, most: float = 1.0) -> None:
    """Raise BoundaryError, of the kind of the first fault, when engine, tools, judge or endpoint are down.

    They are when all episodes are faults (played or graded by a part that failed), or more than the fraction `most`, or
    when an outage of the grader has left no number at all.
    """
    pairs = list(_pairs(groups))
    faults = [fault for episode, grade in pairs if (fault := _fault_of(episode, grade)) is not None]
    if faults and (len(faults) == len(pairs) or len(faults) > most * len(pairs) or _left_nothing(pairs)):
        kind = next((kind for kind in _KINDS if faults[0].startswith(f"{kind.boundary}: ")), BoundaryError)
        raise kind(
            f"{len(faults)} of {len(pairs)} episodes failed, the first with: {faults[0]}. Nothing was learnt from "
            "them; mend what failed, then resume the job"
        )


def _fault_of(episode: Episode, grade: Grade) -> str | None:
    """What failed in playing or grading the episode; None when nothing did."""
    if episode.stop_reason is StopReason.FAULT:
        return str(episode.fault)
    return grade.reason if grade.is_fault else None


def _left_nothing(pairs: Sequence[tuple[Episode, Grade]]) -> bool:
    """An outage of the grader, and no number beside it: what else went without one is no sign of a bad grader."""
    return any(grade.is_fault for _, grade in pairs) and all(grade.value is None for _, grade in pairs)


def _pairs(groups: Iterable[Group]) -> Iterable[tuple[Episode, Grade]]:
    return (pair for group in groups for pair in zip(group.episodes, group.grades, strict=True))
