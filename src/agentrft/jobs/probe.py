"""Runs a job's own code once on the first row of each split: what cannot be known from reading it.

The grader grades an empty answer, and so asks its judge or endpoint; the tools are opened and closed; for a job from
the network somebody has to take a connection at the address of each HTTP tool. Ten seconds in all: what does not answer
in time is a warning, what cannot be reached an error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from agentrft.engines.openai_chat import open_judge
from agentrft.errors import BoundaryError, ToolFault, UserError
from agentrft.graders import build_grader
from agentrft.jobs.rows import split_param, split_path
from agentrft.jobs.spec import JobSpec
from agentrft.jobs.tools import open_tools
from agentrft.net.exchange import Lost
from agentrft.net.policy import Forbidden, NetworkPolicy
from agentrft.net.reach import reach
from agentrft.together import together
from agentrft.tools import ToolLimits
from agentrft.tools.http_binding import HttpBinding
from agentrft.types import Grade, Item, Sample

GRADER = "method.reinforcement.grader"
_PROBE_S = 10.0
_LEAST_S = 0.1
"""What the last part gets when the ones before it took all the time."""


def missing_grader() -> UserError:
    """The error of a job whose episodes are to be scored, but that names no grader."""
    return UserError(
        f"this job has no grader, so its episodes cannot be scored; expected `{GRADER}`",
        param=GRADER,
        code="grader_missing",
    )


def probe_grader(
    spec: JobSpec,
    base_dir: Path,
    first_items: Mapping[str, Item],
    network: NetworkPolicy | None = None,
    *,
    within_s: float | None = None,
) -> list[str]:
    """Warnings about answers without a number; raises UserError when the grader's own code raises, or what it asks (a
    judge, an endpoint) cannot be reached.

    A grader that raises on a row names what the row does not have.
    """
    assert spec.method.reinforcement is not None
    within_s = within_s or _PROBE_S
    warnings: list[str] = []
    for split, grade in asyncio.run(_grade_empty(spec, base_dir, first_items, network, within_s)).items():
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


def probe_tools(
    spec: JobSpec,
    base_dir: Path,
    first_items: Mapping[str, Item],
    network: NetworkPolicy | None = None,
    *,
    within_s: float | None = None,
) -> None:
    """Open and close the tools for each item; raises UserError when they cannot start on one."""
    within_s = within_s or _PROBE_S
    for split, item in first_items.items():
        try:
            asyncio.run(_open_and_close(spec, base_dir, item, network, within_s / len(first_items)))
        except ToolFault as fault:
            source = split_path(spec, base_dir, split)
            raise UserError(
                f"{source}, line {item.line} (keys: {', '.join(item.fields) or 'none'}): {fault}; expected tools that "
                "start on every row. Mend the tool, or add what it needs to the rows",
                param=split_param(split),
                code="invalid_tool",
            ) from fault


def probe_servers(spec: JobSpec, network: NetworkPolicy, *, within_s: float) -> None:
    """Raise UserError for the first HTTP tool at whose address nobody takes a connection; nothing is asked."""
    http = {k: binding for k, binding in enumerate(spec.agent.tools) if isinstance(binding, HttpBinding)}

    async def one(position: int, binding: HttpBinding) -> None:
        try:
            await reach(binding.server_url, network, within_s=within_s)
        except (Lost, Forbidden) as lost:
            raise UserError(
                f"tool {binding.name!r}: its server {lost}; expected a service that answers there. Start it, or mend "
                "`server_url`",
                param=f"agent.tools.{position}.server_url",
                code="tool_unreachable",
            ) from lost

    async def every() -> None:
        await together(one(position, binding) for position, binding in http.items())

    asyncio.run(every())


def probe_end() -> float:
    """When everything that begins to be probed now has to be done, as `time.monotonic` counts."""
    return time.monotonic() + _PROBE_S


def left_s(until: float) -> float:
    """Seconds until a time of `time.monotonic`, a little at least."""
    return max(until - time.monotonic(), _LEAST_S)


async def _grade_empty(
    spec: JobSpec,
    base_dir: Path,
    first_items: Mapping[str, Item],
    network: NetworkPolicy | None,
    within_s: float,
) -> dict[str, Grade]:
    assert spec.method.reinforcement is not None
    document = spec.method.reinforcement.grader
    grader = build_grader(document, base_dir, param=GRADER, open_judge=open_judge, network=network)
    grades: dict[str, Grade] = {}
    until = time.monotonic() + within_s
    try:
        for split, item in first_items.items():
            try:
                async with asyncio.timeout(left_s(until)):
                    grades[split] = await grader.grade(Sample(output_text=""), item, "trace_check")
            except TimeoutError:
                grades[split] = Grade(value=None, reason=f"the grader gave no answer within {within_s:g} s")
                break
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


async def _open_and_close(
    spec: JobSpec, base_dir: Path, item: Item, network: NetworkPolicy | None, within_s: float
) -> None:
    limit_s = min(within_s, spec.agent.limits.tool_timeout_s)
    toolset = await open_tools(spec, base_dir, ToolLimits(timeout_s=limit_s), network=network)
    try:
        session = await toolset.open(item, "trace_check")
        await session.close()
    finally:
        await toolset.close()
