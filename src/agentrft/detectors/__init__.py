"""Failure classes from recorded episodes, without a language model: one file a class, one table.

A detector is a function from the episodes of a run (`World`) to findings, each with the steps that show it. It goes by
structure and by comparing episodes of the same item; by words only where nothing else tells. What it cannot know it
does not claim: a wrong finding costs more than a missing one. To add a class: a member of `Kind`, a file, a line here.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from agentrft.detectors import (
    bad_args,
    context_overflow,
    early_stop,
    env_fault,
    grader_fault,
    hallucinated_ref,
    ignored_output,
    loop,
    missing_step,
    no_stop,
    parse_error,
    refusal_or_empty,
    task_defect,
    timeout,
    truncated_evidence,
    unknown_tool,
    unsafe_write,
    wrong_answer,
    wrong_tool,
)
from agentrft.detectors.finding import Evidence, Finding, Kind, Owner
from agentrft.detectors.rank import Contrast, Ranked, rank
from agentrft.detectors.seen import InForce, Seen
from agentrft.detectors.view import World

CLASSES: tuple[Kind, ...] = tuple(Kind)
"""All of them, in the order that breaks ties."""

DETECTORS: Mapping[Kind, Callable[[World], Iterator[Finding]]] = {
    Kind.ENV_FAULT: env_fault.find,
    Kind.GRADER_FAULT: grader_fault.find,
    Kind.TASK_DEFECT: task_defect.find,
    Kind.PARSE_ERROR: parse_error.find,
    Kind.UNKNOWN_TOOL: unknown_tool.find,
    Kind.BAD_ARGS: bad_args.find,
    Kind.HALLUCINATED_REF: hallucinated_ref.find,
    Kind.WRONG_TOOL: wrong_tool.find,
    Kind.MISSING_STEP: missing_step.find,
    Kind.UNSAFE_WRITE: unsafe_write.find,
    Kind.IGNORED_OUTPUT: ignored_output.find,
    Kind.TRUNCATED_EVIDENCE: truncated_evidence.find,
    Kind.LOOP: loop.find,
    Kind.EARLY_STOP: early_stop.find,
    Kind.NO_STOP: no_stop.find,
    Kind.CONTEXT_OVERFLOW: context_overflow.find,
    Kind.TIMEOUT: timeout.find,
    Kind.REFUSAL_OR_EMPTY: refusal_or_empty.find,
}
"""All but `wrong_answer`, which is what the others leave."""


def detect(seen: Sequence[Seen], *, pass_threshold: float = 0.5) -> list[Finding]:
    """Everything found in the episodes of one run, by class in the order of `CLASSES`.

    All episodes of an item belong into one call: most classes are known by comparing them. Give episodes of one model
    under one bundle. An episode succeeds from a grade of `pass_threshold` on.
    """
    world = World(seen, pass_threshold)
    findings = [finding for find in DETECTORS.values() for finding in find(world)]
    return [*findings, *wrong_answer.find(world, findings)]


__all__ = [
    "CLASSES",
    "DETECTORS",
    "Contrast",
    "Evidence",
    "Finding",
    "InForce",
    "Kind",
    "Owner",
    "Ranked",
    "Seen",
    "World",
    "detect",
    "rank",
]
