"""Graders that hang on long answers are named, and cost the audit seconds rather than minutes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft.audit import AuditLine, AuditPlan, audit
from agentrft.audit.hang import HOSTILE
from agentrft.graders import build_grader
from agentrft.types import Grade, Item, Message, Sample

ITEM = Item(id="item-0", messages=(Message(role="user", content="Which city?"),), fields={"answer": "Oslo"})


class Slow:
    """Takes as long as it is told for each answer, then gives a number or none."""

    def __init__(self, seconds: Callable[[str], float], value: float | None = 0.0) -> None:
        self.seconds = seconds
        self.value = value
        self.cancelled: list[str] = []

    async def grade(self, sample: Sample, item: Item, trace_id: str) -> Grade:
        try:
            await asyncio.sleep(self.seconds(sample.output_text))
        except asyncio.CancelledError:
            self.cancelled.append(sample.output_text[:4])
            raise
        return Grade(value=None, reason="timed out") if self.value is None else Grade(value=self.value)

    async def close(self) -> None:
        """Nothing to close."""


async def lines(grader: Slow, **plan: object) -> dict[str, AuditLine]:
    made = AuditPlan(**{"items": [ITEM], "pass_threshold": 0.5, "hang_s": 0.2, **plan})
    return {line.name: line for line in (await audit(made, grader)).lines}


async def test_a_grader_that_hangs_on_length_is_named_once() -> None:
    grader = Slow(lambda text: 60.0 if len(text) > 100_000 else 0.0)
    started = time.perf_counter()
    found = await lines(grader)
    assert time.perf_counter() - started < 10
    assert (found["hostile_length"].verdict, found["hostile_length"].item) == ("failed", "item-0")
    assert found["hostile_length"].detail.startswith("200 kB of prose: no answer within 0.2 s; an ordinary answer")
    assert (found["very_long"].verdict, found["very_long"].worst) == ("skipped", None)
    assert grader.cancelled == ["We l"] * 2  # a machine may stall once


async def test_a_machine_that_stalls_once_is_no_hang() -> None:
    stalls = iter([60.0])
    found = await lines(Slow(lambda text: next(stalls, 0.0) if text.startswith("9999") else 0.0))
    assert found["hostile_length"].verdict == "safe"


async def test_form_counts_as_well_as_length() -> None:
    found = await lines(Slow(lambda text: 60.0 * text.startswith("[[[")))
    assert found["hostile_length"].detail.startswith("100,000 brackets: no answer")
    assert found["very_long"].verdict == "skipped"


async def test_a_grader_that_gives_up_by_its_own_timeout_is_named() -> None:
    found = await lines(Slow(lambda text: 1.1 * text.startswith("1e99"), value=None), hang_s=5.0)
    assert found["hostile_length"].detail.startswith("a huge exponent: no grade after 1.1 s, timed out; an ")


async def test_a_quick_refusal_of_long_answers_is_what_graders_should_do() -> None:
    found = await lines(Slow(lambda text: 0.0, value=None))
    assert found["hostile_length"].verdict == "safe"
    assert found["hostile_length"].detail.startswith(f"{len(HOSTILE)} kinds, the slowest 0.")


async def test_judges_are_left_out() -> None:
    found = await lines(Slow(lambda text: 0.0), asks_model=True)
    assert found["hostile_length"].verdict == "skipped"


@pytest.mark.parametrize(
    ("expression", "kind"),
    [
        ("bool(re.search(r'\\s+$', text))", "100,000 spaces"),  # quadratic
        ("bool(re.fullmatch(r'(a+)+', text))", "100,000 times one letter"),  # exponential
        ("float(Fraction(text) == 4)", "a huge exponent"),
    ],
)
async def test_python_that_hangs_is_named_and_its_process_is_gone(expression: str, kind: str) -> None:
    source = f"""
import re
from fractions import Fraction

def grade(sample, item):
    text = sample["output_text"]
    try:
        return 0.1 * ({expression})
    except ValueError:
        return 0.0
"""
    grader = build_grader({"type": "python", "name": "slow", "source": source, "timeout_s": 60}, Path())
    try:
        report = await audit(AuditPlan(items=[ITEM], pass_threshold=0.5, hang_s=1.0), grader)
    finally:
        await grader.close()
    found = {line.name: line for line in report.lines}
    assert found["hostile_length"].verdict == "failed"
    assert found["hostile_length"].detail.startswith(f"{kind}: no answer within ")
