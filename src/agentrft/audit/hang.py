"""Whether an answer can hang the grader: long ones, of the kinds that regular expressions and parsers choke on."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from agentrft.audit.grading import Grading
from agentrft.audit.honest import UNRELATED, Ground
from agentrft.audit.plan import AuditPlan
from agentrft.audit.report import AuditLine
from agentrft.audit.setup import answered
from agentrft.audit.words import evidence_of
from agentrft.types import Grade, Item, Sample

HOSTILE = {
    "200 kB of prose": "We looked at it from several sides and came to the same conclusion each time. " * 2_600,
    "100,000 times one letter": "a" * 100_000 + "!",
    "100,000 spaces": "x" + " " * 100_000 + "x",
    "100,000 digits": "9" * 100_000,
    "100,000 digits and a letter": "9" * 100_000 + "x",
    "a huge exponent": "1e99999999",
    "100,000 brackets": "[" * 50_000 + "]" * 50_000,
    "50,000 numbers in a list": "1," * 50_000,
}
"""Kind of answer → the answer. Quadratic and exponential patterns, big numbers, deep nesting."""

_MUCH_SLOWER = 20
_NOTICEABLE_S = 1.0
_TRIES = 2
"""A machine may stall once."""


async def hostile_length(ground: Ground, grading: Grading, plan: AuditPlan) -> AuditLine:
    """The line of this check; it ends with the first answer that hangs. Graded one at a time, so that times are true.

    What hangs gets, at two tries, no answer within `plan.hang_s`, or no number after 20 times as long as an ordinary
    answer takes. On a machine so busy that ordinary answers take long the limit is 20 times that.
    """
    line = AuditLine(name="hostile_length", tries="answers whose length or form may take for ever", verdict="safe")
    if plan.asks_model:
        return replace(line, verdict="skipped", detail="a judge reads at its own pace; its `timeout_s` is the limit")
    start = max(ground.starts, key=lambda one: one.plain or 0.0)
    item = start.setup.item
    _, ordinary_s = await _timed(grading, answered(start.setup.start, UNRELATED), item, None)
    most_s = max(plan.hang_s, _MUCH_SLOWER * ordinary_s)
    slowest_s = ordinary_s
    for kind, text in HOSTILE.items():
        sample = answered(start.setup.start, text)
        tries = [await _tried(grading, sample, item, most_s, ordinary_s)]
        while tries[-1][0] and len(tries) < _TRIES:
            tries.append(await _tried(grading, sample, item, most_s, ordinary_s))
        why, took_s = tries[-1]
        slowest_s = max(slowest_s, took_s)
        if why:
            return replace(
                line,
                verdict="failed",
                item=item.id,
                evidence=evidence_of(text),
                detail=evidence_of(f"{kind}: {why}; an ordinary answer takes {ordinary_s:.2f} s"),
                change="cut the answer to the length that a right one may have before anything else is done with it",
            )
    return replace(line, detail=f"{len(HOSTILE)} kinds, the slowest {slowest_s:.2f} s")


async def _tried(
    grading: Grading, sample: Sample, item: Item, most_s: float, ordinary_s: float
) -> tuple[str | None, float]:
    """Why this sample hangs the grader, or None; and the seconds."""
    grade, took_s = await _timed(grading, sample, item, most_s)
    if grade is None:
        return f"no answer within {most_s:g} s", took_s
    gave_up = grade.value is None and took_s > max(_NOTICEABLE_S, _MUCH_SLOWER * ordinary_s)
    return (f"no grade after {took_s:.1f} s, {grade.reason}" if gave_up else None), took_s


async def _timed(grading: Grading, sample: Sample, item: Item, most_s: float | None) -> tuple[Grade | None, float]:
    """The grade, None where it took too long, and the seconds."""
    started = time.perf_counter()
    try:
        async with asyncio.timeout(most_s):
            grade = await grading.grade(sample, item)
    except TimeoutError:
        grade = None
    return grade, time.perf_counter() - started
