"""Static checks of a job's demonstrations: readable, sayable with the job's tools, not too long, held out for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agentrft.data.rows import Demonstration
from agentrft.data.splits import content_hash
from agentrft.errors import UserError
from agentrft.jobs.check_tools import BoundTools, check_calls
from agentrft.jobs.rows import demonstrations_of
from agentrft.jobs.spec import JobSpec
from agentrft.protocols import ChatFormat
from agentrft.train.demos import demonstration_row
from agentrft.types import Item, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class DemonstrationFile:
    """The demonstrations of one file of the job."""

    param: str
    path: Path
    rows: Sequence[Demonstration]


def check_demonstrations(spec: JobSpec, base_dir: Path, tools: BoundTools | None) -> list[DemonstrationFile]:
    """The job's files, read; raises UserError for the first thing that cannot be trained on."""
    files = [
        DemonstrationFile(
            param=param, path=base_dir / (name or ""), rows=demonstrations_of(spec, base_dir, held_out=held_out)
        )
        for held_out, param, name in (
            (False, "data.demonstrations", spec.data.demonstrations),
            (True, "data.demonstrations_validation", spec.data.demonstrations_validation),
        )
        if name is not None or not held_out
    ]
    for file in files:
        if tools is not None:
            check_calls(file.rows, tools, file.path, param=file.param)
    return files


def describe_demonstrations(files: Sequence[DemonstrationFile]) -> str:
    """`120, 20 held out`."""
    return f"{len(files[0].rows)}" + (f", {len(files[1].rows)} held out" if len(files) > 1 else "")


def warnings_about_demonstrations(files: Sequence[DemonstrationFile]) -> list[str]:
    """What may be trained on and probably should not be."""
    if len(files) < 2:
        return []
    trained, held_out = files
    lines = {_content(row): row.line for row in trained.rows}
    shared = [row for row in held_out.rows if _content(row) in lines]
    if not shared:
        return []
    first = shared[0]
    return [
        f"{held_out.path}: {len(shared)} of {len(held_out.rows)} demonstrations stand in {trained.path} as well (line "
        f"{first.line} is line {lines[_content(first)]} there); the loss on trained ones says little about others"
    ]


def longest_demonstration(
    file: DemonstrationFile, tools: Sequence[ToolSpec], chat_format: ChatFormat, *, max_tokens: int
) -> int:
    """Tokens of the longest row; raises UserError, with the line, for one that cannot be written or is too long."""
    longest = 0
    for demonstration in file.rows:
        try:
            described = demonstration.tools or tools
            row = demonstration_row(demonstration, described, chat_format, max_tokens=max_tokens)
        except UserError as error:
            message = f"{file.path}, line {demonstration.line}: {error.message}"
            raise UserError(message, param=file.param, code=error.code) from error
        longest = max(longest, len(row.ids))
    return longest


def _content(demonstration: Demonstration) -> str:
    return content_hash(Item(id="", messages=demonstration.messages))
