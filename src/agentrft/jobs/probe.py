"""Runs a job's own code once on the first row of each split: what cannot be known from reading it.

The grader grades an empty answer, and so asks its judge or endpoint; the tools are opened and closed. Each gets at most
ten seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from agentrft.engines.openai_chat import open_judge
from agentrft.errors import BoundaryError, ToolFault, UserError
from agentrft.graders import build_grader
from agentrft.jobs.rows import split_param, split_path
from agentrft.jobs.spec import JobSpec
from agentrft.jobs.tools import open_tools
from agentrft.tools import ToolLimits
from agentrft.types import Grade, Item, Sample

GRADER = "method.reinforcement.grader"
_PROBE_S = 10.0


def missing_grader() -> UserError:
    """The error of a job whose episodes are to be scored, but that names no grader."""
    return UserError(
        f"this job has no grader, so its episodes cannot be scored; expected `{GRADER}`",
        param=GRADER,
        code="grader_missing",
    )


def probe_grader(spec: JobSpec, base_dir: Path, first_items: Mapping[str, Item]) -> list[str]:
    """Warnings about answers without a number; raises UserError when the grader's own code raises, or what it asks (a
    judge, an endpoint) cannot be reached.

    A grader that raises on a row names what the row does not have.
    """
    assert spec.method.reinforcement is not None
    warnings: list[str] = []
    for split, grade in asyncio.run(_grade_empty(spec, base_dir, first_items)).items():
        item = first_items[split]
        if grade.traceback:
            last = grade.traceback.strip().splitlines()[-1]
            raise UserError(
                f"the grader raised on an empty answer to {split}, line {item.line} (keys: "
                f"{', '.join(item.fields) or 'none'}): {last}; expected a number for every answer. Mend "
                "the grader, or add the key to the rows",
                param=GRADER,
                code="grader_failing",
            )
        if grade.value is None:
            warnings.append(f"an empty answer to {split}, line {item.line} gets no grade: {grade.reason}")
    return warnings


def probe_tools(spec: JobSpec, base_dir: Path, first_items: Mapping[str, Item]) -> None:
    """Open and close the tools for each item; raises UserError when they cannot start on one."""
    for split, item in first_items.items():
        try:
            asyncio.run(_open_and_close(spec, base_dir, item))
        except ToolFault as fault:
            source = split_path(spec, base_dir, split)
            raise UserError(
                f"{source}, line {item.line} (keys: {', '.join(item.fields) or 'none'}): {fault}; expected tools that "
                "start on every row. Mend the tool, or add what it needs to the rows",
                param=split_param(split),
                code="invalid_tool",
            ) from fault


async def _grade_empty(spec: JobSpec, base_dir: Path, first_items: Mapping[str, Item]) -> dict[str, Grade]:
    assert spec.method.reinforcement is not None
    grader = build_grader(spec.method.reinforcement.grader, base_dir, param=GRADER, open_judge=open_judge)
    grades: dict[str, Grade] = {}
    try:
        for split, item in first_items.items():
            try:
                async with asyncio.timeout(_PROBE_S):
                    grades[split] = await grader.grade(Sample(output_text=""), item, "trace_check")
            except TimeoutError:
                grades[split] = Grade(value=None, reason=f"the grader gave no answer within {_PROBE_S:g} s")
            except BoundaryError as fault:
                raise UserError(
                    f"the grader could not grade an empty answer to {split}, line {item.line}: {fault}; expected an "
                    "answer from what it asks. Start it, or mend its address, model or key",
                    param=GRADER,
                    code="grader_unreachable",
                ) from fault
    finally:
        await grader.close()
    return grades


async def _open_and_close(spec: JobSpec, base_dir: Path, item: Item) -> None:
    limit_s = min(_PROBE_S, spec.agent.limits.tool_timeout_s)
    toolset = await open_tools(spec, base_dir, ToolLimits(timeout_s=limit_s))
    try:
        session = await toolset.open(item, "trace_check")
        await session.close()
    finally:
        await toolset.close()
