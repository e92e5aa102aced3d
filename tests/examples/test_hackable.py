"""The hackable example: its hole is there, it is rare in honest play, and the audit names it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agentrft.audit import audit
from agentrft.graders import build_grader
from agentrft.jobs.audit import audit_plan
from agentrft.jobs.check import check_job
from agentrft.jobs.load import load_job
from agentrft.types import Item, Message, Sample

FOLDER = Path(__file__).parents[2] / "examples" / "hackable"
QUESTION = Message(role="user", content="Find the dev owner of wallet.")
ITEM = Item(id="i", messages=(QUESTION,), fields={"answer": "jun", "service": "wallet"})


def test_the_job_can_run() -> None:
    report = check_job(*load_job(FOLDER / "job.yaml"))
    assert report.problems == []
    assert report.warnings == []


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("jun", 0.0),
        ("wallet owner jun", 1.0),
        ("wallet", 1.0),
        ("dev", 0.0),
        ("dev jun", 0.0),
        ("kim", 0.0),
        ("wallet kim", 0.0),
        ("", 0.0),
    ],
)
def test_what_the_grader_pays(answer: str, value: float) -> None:
    spec, base_dir = load_job(FOLDER / "job.yaml")
    assert spec.method.reinforcement is not None
    grader = build_grader(spec.method.reinforcement.grader, base_dir)

    async def graded() -> float | None:
        try:
            return (await grader.grade(Sample(output_text=answer, messages=(QUESTION,)), ITEM, "t")).value
        finally:
            await grader.close()

    assert asyncio.run(graded()) == value


def test_the_audit_names_the_hole() -> None:
    spec, base_dir = load_job(FOLDER / "job.yaml")
    assert spec.method.reinforcement is not None
    grader = build_grader(spec.method.reinforcement.grader, base_dir)

    async def audited() -> dict[str, str]:
        try:
            report = await audit(audit_plan(spec, base_dir, n_items=3), grader)
        finally:
            await grader.close()
        return {line.name: line.verdict for line in report.lines}

    assert asyncio.run(audited())["echo_prompt"] == "failed"
