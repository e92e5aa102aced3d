"""Checks of the grader as a whole: right answers, here and elsewhere, the same thing twice, order, padding, steps."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from agentrft.audit.grading import Grading
from agentrft.audit.hang import hostile_length
from agentrft.audit.honest import UNRELATED, Ground, Start
from agentrft.audit.plan import AuditPlan
from agentrft.audit.report import AuditLine, Verdict
from agentrft.audit.setup import answered, is_right
from agentrft.audit.words import evidence_of
from agentrft.stats import icc
from agentrft.types import Grade, Item, Sample

CHANCE_MARGIN = 0.25
"""Part of the way from chance to the right answers that shuffled answers may go: answers may resemble each other."""

GRADINGS = 3
"""Of one sample, to see whether they agree."""
ENOUGH_ICC = 0.8
"""Below it a grader's own noise is too large a part of what training would learn from (algorithms.md §5.2)."""
_TOLERANCE = 1e-9

Check = Callable[[Ground, Grading, AuditPlan], Awaitable[AuditLine]]
"""(ground, grading, plan) → its line."""


async def graded(ground: Ground, grading: Grading, plan: AuditPlan) -> AuditLine:
    """Whether honest samples have grades at all: a grader that grades nothing would look safe everywhere."""
    line = AuditLine(name="graded", tries="honest samples", verdict="safe")
    if ground.failures or any(start.plain is not None for start in ground.starts):
        return line
    first = ground.starts[0].setup
    grade = await grading.grade(answered(first.start, first.reference or UNRELATED), first.item)
    if grade.value is not None:
        return line
    return replace(
        line,
        verdict="failed",
        item=first.item.id,
        detail=evidence_of(f"no grade: {grade.reason}"),
        change="mend the grader: it grades no honest answer, so every probe looks safe",
    )


async def wrong_answer(ground: Ground, grading: Grading, plan: AuditPlan) -> AuditLine:
    """Whether honest wrong answers fail: where they count as a success, most probes on that trajectory do too."""
    line = AuditLine(name="wrong_answer", tries="an unrelated answer, honestly wrong", verdict="safe")
    cases = [(start, answered(start.setup.start, UNRELATED)) for start in ground.starts]
    grades = await grading.grade_all([(sample, start.setup.item) for start, sample in cases])
    worst = max(range(len(cases)), key=lambda n: _value(grades[n]))
    value = grades[worst].value
    if value is None:
        return replace(line, detail=evidence_of(f"no grade: {grades[worst].reason}"))
    start, sample = cases[worst]
    line = replace(line, worst=value, limit=plan.pass_threshold, item=start.setup.item.id, evidence=evidence_of(sample))
    if value < plan.pass_threshold:
        return line
    calls = start.setup.start.n_calls
    return replace(
        line,
        verdict="failed",
        detail=f"a wrong answer after {calls} tool calls counts as a success, so probes there do too",
        change="raise `pass_threshold` above what the work before the answer earns, or let that pay only with success",
    )


async def permutation(ground: Ground, grading: Grading, plan: AuditPlan) -> AuditLine:
    """Whether the right answers of other items fall to chance: what honest failures and wrong ends earn on average."""
    line = AuditLine(name="permutation", tries="right answers, shuffled between items", verdict="skipped")
    cases = shuffled_answers(ground.starts, plan.seed)
    if not cases:
        return replace(line, detail="needs two items with different right answers")
    grades = await grading.grade_all([(answered(start.setup.start, text), start.setup.item) for start, text in cases])
    shuffled = _mean([grade.value for grade in grades])
    right = _mean([start.plain for start, _ in cases])
    floor = _mean([start.floor for start, _ in cases])
    if shuffled is None or right is None:
        return replace(line, detail="no grade for any of them")
    chance = max(_mean(ground.failures) or 0.0, floor or 0.0)
    limit = chance + CHANCE_MARGIN * max(0.0, right - chance)
    worst = max(range(len(cases)), key=lambda n: _value(grades[n]))
    verdict: Verdict = "failed" if shuffled > limit + _TOLERANCE else "safe"
    means = f"means: shuffled {shuffled:.3f}, right {right:.3f}, chance {chance:.3f}"
    if verdict == "safe" and right <= chance + _TOLERANCE:
        means += "; right answers earn no more than chance on these trajectories, so it says little"
    return replace(
        line,
        verdict=verdict,
        worst=shuffled,
        limit=limit,
        item=cases[worst][0].setup.item.id,
        evidence=evidence_of(cases[worst][1]),
        detail=means,
        change="let the grade depend on this item's reference" if verdict == "failed" else "",
    )


def shuffled_answers(starts: Sequence[Start], seed: int) -> list[tuple[Start, str]]:
    """Every start with the right answer of another item that is wrong here; seeded. Starts without one are left out."""
    answers = sorted({start.setup.reference for start in starts if start.setup.reference is not None})
    rng = random.Random(seed)
    cases: list[tuple[Start, str]] = []
    for start in starts:
        right = start.setup.reference
        wrong = [text for text in answers if not is_right(text, right)]
        if right is not None and wrong:
            cases.append((start, rng.choice(wrong)))
    return cases


async def reference(ground: Ground, grading: Grading, plan: AuditPlan) -> AuditLine:
    """Whether right answers pass, each on its item's best trajectory. The positive control: where probes must fail."""
    line = AuditLine(name="reference", tries="the item's own right answer, which must pass", verdict="skipped")
    best: dict[str, Start] = {}
    for start in ground.starts:
        known = best.get(start.setup.item.id)
        if start.setup.reference is not None and (known is None or (start.plain or 0.0) > (known.plain or 0.0)):
            best[start.setup.item.id] = start
    if not best:
        return replace(line, detail="needs a right answer in the item, and no item has it")
    failed = [one for one in best.values() if one.plain is None or one.plain < plan.pass_threshold]
    worst = min(failed or best.values(), key=lambda one: one.plain or 0.0)
    line = replace(line, verdict="safe", worst=worst.plain, limit=plan.pass_threshold, item=worst.setup.item.id)
    if not failed:
        return replace(line, detail=f"{len(best)} right answers pass")
    unseen = "" if worst.setup.start.n_calls else ", the worst one without any tool call before it"
    return replace(
        line,
        verdict="failed",
        evidence=evidence_of(worst.setup.reference or ""),
        detail=f"{len(failed)} of {len(best)} right answers do not pass{unseen}",
        change="let the grader accept its own reference; where it asks for evidence, give `data.demonstrations` or a "
        "baseline that has it",
    )


async def determinism(ground: Ground, grading: Grading, plan: AuditPlan) -> AuditLine:
    """Whether the same sample gets the same grade three times in a row; of a judge, how far it agrees with itself."""
    line = AuditLine(name="determinism", tries="the same sample three times", verdict="safe")
    if plan.asks_model:
        return await _agreement(line, ground, grading)
    for sample, item in _honest_cases(ground):
        grades = await grading.grade_in_turn([(sample, item)] * GRADINGS)
        if len({grade.value for grade in grades}) > 1:
            return _unstable(line, sample, item, grades)
    return line


async def order(ground: Ground, grading: Grading, plan: AuditPlan) -> AuditLine:
    """Whether grades stay the same when samples are graded the other way round: nothing may carry over."""
    line = AuditLine(name="order", tries="the same samples in reverse order, and of one item together", verdict="safe")
    cases = _honest_cases(ground)
    forwards = await grading.grade_in_turn(cases)
    backwards = (await grading.grade_in_turn(cases[::-1]))[::-1]
    in_company = [await grading.grade_all(cases), (await grading.grade_all(cases[::-1]))[::-1]]
    for (sample, item), *grades in zip(cases, forwards, backwards, *in_company, strict=True):
        if len({grade.value for grade in grades}) > 1:
            return _unstable(line, sample, item, grades)
    return line


async def padding(ground: Ground, grading: Grading, plan: AuditPlan) -> AuditLine:
    """Whether spaces and line ends around an answer, right or not, leave its grade no higher."""
    line = AuditLine(name="padding", tries="spaces and line ends around the answer", verdict="safe")
    for sample, item in _honest_cases(ground):
        plain = await grading.grade(sample, item)
        start = replace(sample, messages=sample.messages[:-1])
        padded = [
            answered(start, form.format(sample.output_text)) for form in ("{}\n", "{}   ", "  {}", "{}" + "\n" * 50)
        ]
        for longer, grade in zip(padded, await grading.grade_all([(one, item) for one in padded]), strict=True):
            if plain.value is not None and grade.value is not None and grade.value > plain.value + _TOLERANCE:
                return replace(
                    line,
                    verdict="failed",
                    worst=grade.value,
                    limit=plain.value,
                    item=item.id,
                    evidence=evidence_of(longer),
                    change="strip the answer before anything is measured on it",
                )
    return line


async def granularity(ground: Ground, grading: Grading, plan: AuditPlan) -> AuditLine:
    """How many different grades the audit saw; two or fewer teach little. Runs last: it reads the count."""
    n = len(grading.values)
    line = AuditLine(name="granularity", tries="distinct grades in this audit", verdict="safe", detail=f"{n} distinct")
    if n > 2:
        return line
    change = (
        "effectively binary: groups of equal grades teach nothing. Give partial credit per field or step, behind a "
        "gate: R = gate × (0.9 q + 0.1 p q0), with q the quality, q0 = 1 where q > 0, p the share of valid calls"
    )
    return replace(line, verdict="warning", change=change)


CHECKS: tuple[Check, ...] = (
    hostile_length, graded, reference, wrong_answer, permutation, determinism, order, padding, granularity,
)  # fmt: skip
"""In the order of reports, after the probes."""


async def _agreement(line: AuditLine, ground: Ground, grading: Grading) -> AuditLine:
    """The intraclass correlation of repeated grades: the part of their variance that is not the judge's own noise."""
    cases = _honest_cases(ground)
    grades = await grading.grade_all([case for case in cases for _ in range(GRADINGS)])
    rows = [(case, grades[n * GRADINGS : (n + 1) * GRADINGS]) for n, case in enumerate(cases)]
    known = [(case, row, values) for case, row in rows if len(values := _known(row)) > 1]
    if len({value for _, _, values in known for value in values}) < 2 or len(known) < 2:
        return replace(line, detail=f"{len(known)} samples with grades, all alike: no ICC")
    agreement = icc([values for _, _, values in known])
    words = f"ICC {agreement:.2f} of {GRADINGS} gradings, {len(known)} samples"
    if agreement >= ENOUGH_ICC:
        return replace(line, detail=words)
    (sample, item), row, _ = max(known, key=lambda one: max(one[2]) - min(one[2]))
    return replace(
        _unstable(line, sample, item, row),
        verdict="warning",
        detail=f"{words}; {_seen(row)}",
        change=f"ICC = between / (between + within) is below {ENOUGH_ICC}: average three gradings or mend the rubric",
    )


def _known(grades: Sequence[Grade]) -> list[float]:
    return [grade.value for grade in grades if grade.value is not None]


def _honest_cases(ground: Ground) -> list[tuple[Sample, Item]]:
    """An unrelated answer on every start, and the right one where it is known."""
    return [
        (answered(start.setup.start, text), start.setup.item)
        for start in ground.starts
        for text in (UNRELATED, start.setup.reference)
        if text is not None
    ]


def _unstable(line: AuditLine, sample: Sample, item: Item, grades: Sequence[Grade]) -> AuditLine:
    return replace(
        line,
        verdict="failed",
        item=item.id,
        evidence=evidence_of(sample),
        detail=_seen(grades),
        change="take randomness, time and memory of earlier samples out of the grader",
    )


def _seen(grades: Sequence[Grade]) -> str:
    return "grades: " + ", ".join("no grade" if grade.value is None else f"{grade.value:g}" for grade in grades)


def _value(grade: Grade) -> float:
    return float("-inf") if grade.value is None else grade.value


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
