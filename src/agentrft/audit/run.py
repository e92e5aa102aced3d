"""The audit of a grader: what it pays for outputs that deserve nothing, before training finds out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from agentrft.audit.checks import CHECKS, reference
from agentrft.audit.grading import Grading
from agentrft.audit.hang import hostile_length
from agentrft.audit.honest import Ground, Start, beats, lay_ground
from agentrft.audit.plan import MAX_ITEMS, AuditPlan
from agentrft.audit.probes import PROBES, Pair, Probe
from agentrft.audit.report import AuditLine, AuditReport
from agentrft.audit.setup import is_near, is_right
from agentrft.audit.words import evidence_of
from agentrft.protocols import Grader
from agentrft.types import Grade, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class _Played:
    """A probe's sample with its grade."""

    start: Start
    sample: Sample
    grade: Grade


async def audit(plan: AuditPlan, grader: Grader) -> AuditReport:
    """Play every probe and check on the plan's items; the caller closes the grader.

    Raises BoundaryError when what the grader asks is down, ValueError without items.
    """
    if not plan.items:
        raise ValueError("an audit needs at least one item, got none")
    items = plan.items[:MAX_ITEMS]
    grading = Grading(grader)
    ground = await lay_ground(
        items,
        plan.honest,
        grading,
        demonstrations=plan.demonstrations,
        reference=plan.reference,
        pass_threshold=plan.pass_threshold,
    )
    # First, because a grader that hangs would take minutes over every long probe.
    hangs = await hostile_length(ground, grading, plan)
    lines: list[AuditLine] = []
    for probe in PROBES:
        spared = probe.is_long and hangs.verdict == "failed"
        lines.append(_spared(probe) if spared else await _run_probe(probe, ground, grading, plan.pass_threshold))
    for check in CHECKS:
        if plan.positive_control or check is not reference:
            lines.append(hangs if check is hostile_length else await check(ground, grading, plan))
    if plan.asks_model:
        lines = [_excused(line) for line in lines]
    return AuditReport(
        lines=tuple(lines),
        n_items=len(items),
        n_grades=grading.n_grades,
        n_failures=len(ground.failures),
        failure_limit=ground.failure_limit,
        pass_threshold=plan.pass_threshold,
        baseline=ground.baseline,
        seed=plan.seed,
    )


def _spared(probe: Probe) -> AuditLine:
    detail = "long answers hang this grader: see `hostile_length`"
    return AuditLine(name=probe.name, tries=probe.tries, verdict="skipped", detail=detail)


async def _run_probe(probe: Probe, ground: Ground, grading: Grading, pass_threshold: float) -> AuditLine:
    # Where tools show nothing but the right answer, repeating them is right: what is right is no probe.
    cases = [
        (start, sample)
        for start in ground.starts
        for sample in probe.make(start.setup)
        if not is_right(sample.output_text, start.setup.reference)
    ]
    if not cases:
        detail = f"needs {probe.needs}, and no item has it" if probe.needs else "every sample was a right answer"
        return AuditLine(name=probe.name, tries=probe.tries, verdict="skipped", detail=detail)
    grades = await grading.grade_all([(sample, start.setup.item) for start, sample in cases])
    played = [_Played(start=start, sample=sample, grade=g) for (start, sample), g in zip(cases, grades, strict=True)]
    return _judge(probe, played, pass_threshold)


def _judge(probe: Probe, played: Sequence[_Played], pass_threshold: float) -> AuditLine:
    """The line of a probe: its worst failure, or else its highest grade."""
    failed = [one for one in played if _fails(probe, one, pass_threshold)]
    graded = [one for one in played if one.grade.value is not None]
    if not graded:
        reason = f"no grade: {played[0].grade.reason}"
        return AuditLine(name=probe.name, tries=probe.tries, verdict="safe", detail=evidence_of(reason))
    worst = max(failed or graded, key=lambda one: one.grade.value or 0.0)
    line = AuditLine(
        name=probe.name,
        tries=probe.tries,
        verdict="failed" if failed else "safe",
        worst=worst.grade.value,
        limit=_limit(probe, worst, pass_threshold),
        item=worst.start.setup.item.id,
        evidence=evidence_of(worst.sample),
        change=probe.change if failed else "",
    )
    no_grade = len(played) - len(graded)
    details = [f"{no_grade} of {len(played)} had no grade"] if no_grade else []
    if probe.pair and not any(one.start.tells for one in played):
        details.append("the plain right answer earned no more than honest failures, so it says little")
    return replace(line, detail="; ".join(details))


def _fails(probe: Probe, one: _Played, pass_threshold: float) -> bool:
    value, start = one.grade.value, one.start
    if probe.pair is None or not start.tells or start.plain is None or value is None:
        return beats(value, _earned(one, pass_threshold), pass_threshold)
    return value >= start.plain if probe.pair is Pair.BELOW else value > start.plain


def _limit(probe: Probe, one: _Played, pass_threshold: float) -> float:
    """What the grade was compared with."""
    start = one.start
    if probe.pair and start.tells and start.plain is not None:
        return start.plain
    return min(max(_earned(one, pass_threshold), 0.0), pass_threshold)


def _earned(one: _Played, pass_threshold: float) -> float:
    """What honest failures earn here too.

    Graders that pay by distance pay a number that is nearer to the right one than honest wrong ends are for that; it
    must only not pass.
    """
    is_close = is_near(one.sample.output_text, one.start.setup.reference)
    return pass_threshold if is_close else one.start.limit


def _excused(line: AuditLine) -> AuditLine:
    """A judge may change its mind: needing equal grades twice is a warning, and `determinism` says how far it does."""
    if line.verdict != "failed" or line.name != "order":
        return line
    return replace(line, verdict="warning", change="see `determinism`: it says whether the judge agrees with itself")
