"""Static checks of a job's preferences: readable, sayable with the job's tools, not too long, held out for good."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from agentrft.data.preferences import Preference, Rated
from agentrft.data.rows import Demonstration
from agentrft.data.splits import content_hash
from agentrft.errors import UserError
from agentrft.jobs.check_tools import BoundTools, check_calls
from agentrft.jobs.rows import preferences_of
from agentrft.jobs.spec import JobSpec
from agentrft.losses import KtoLoss
from agentrft.protocols import ChatFormat
from agentrft.train.preference_rows import preference_units
from agentrft.types import Item, Message, ToolSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceFile:
    """The preferences of one file of the job."""

    param: str
    path: Path
    rows: Sequence[Preference] | Sequence[Rated]


def check_preferences(spec: JobSpec, base_dir: Path, tools: BoundTools | None) -> list[PreferenceFile]:
    """The job's files, read; raises UserError for the first thing that cannot be trained on.

    A rejected output may call what is not there, or with arguments that do not fit: that is what it is rejected for.
    """
    files = [
        PreferenceFile(param=param, path=base_dir / name, rows=preferences_of(spec, base_dir, held_out=held_out))
        for held_out, param, name in (
            (False, "data.preferences", spec.data.preferences or ""),
            (True, "data.preferences_validation", spec.data.preferences_validation),
        )
        if name is not None
    ]
    for file in files:
        wanted = [one for row in file.rows if (one := _wanted(row)) is not None]
        if tools is not None:
            check_calls(wanted, tools, file.path, param=file.param, what="the preferred output")
    if len(files) > 1:
        _check_apart(*files)
    return files


def describe(files: Sequence[PreferenceFile]) -> str:
    """`120 pairs, 20 held out`."""
    kind = "rated conversations" if any(isinstance(row, Rated) for row in files[0].rows) else "pairs"
    held_out = f", {len(files[1].rows)} held out" if len(files) > 1 else ""
    return f"{len(files[0].rows)} {kind}{held_out}"


def warnings_about(files: Sequence[PreferenceFile], loss: object) -> list[str]:
    """What may be trained on and probably should not be."""
    warnings = [] if len(files) > 1 else ["no `data.preferences_validation`: the last checkpoint is the result"]
    if not isinstance(loss, KtoLoss):
        return warnings
    good = sum(isinstance(row, Rated) and row.desirable for row in files[0].rows)
    bad = len(files[0].rows) - good
    weights = (loss.desirable_weight * good, loss.undesirable_weight * bad)
    if not 0.5 <= weights[0] / max(weights[1], 1e-9) <= 2:
        warnings.append(
            f"{files[0].path}: {good} desirable and {bad} undesirable conversations; KTO wants desirable_weight × "
            "desirable to be 1 to 4/3 of undesirable_weight × undesirable (arXiv:2402.01306): set these weights"
        )
    return warnings


def longest_row(file: PreferenceFile, tools: Sequence[ToolSpec], chat_format: ChatFormat, *, max_tokens: int) -> int:
    """Tokens of the longest row; raises UserError, with the line, for one that cannot be written or is too long."""
    longest = 0
    for row in file.rows:
        with _in_line(file, _line(row)):
            (unit,) = preference_units([row], tools, chat_format, max_tokens=max_tokens)
        longest = max(longest, *(len(one.ids) for one in unit.rows))
    return longest


@contextmanager
def _in_line(file: PreferenceFile, line: int) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{file.path}, line {line}: {error.message}", param=file.param, code=error.code) from error


def _wanted(row: Preference | Rated) -> Demonstration | None:
    """What the row teaches to do, as a demonstration; None where it only teaches what not to do."""
    if isinstance(row, Preference):
        return Demonstration(id=row.id, messages=row.preferred, tools=row.tools, line=row.line)
    return row.demonstration if row.desirable else None


def _check_apart(trained: PreferenceFile, held_out: PreferenceFile) -> None:
    lines = {_question(row): _line(row) for row in trained.rows}
    shared = [row for row in held_out.rows if _question(row) in lines]
    if shared:
        first = shared[0]
        raise UserError(
            f"{held_out.path}: {len(shared)} row(s) ask what {trained.path} asks (line {_line(first)} is line "
            f"{lines[_question(first)]} there); expected none, because figures on trained questions say nothing. "
            "Remove them from one of the two files",
            param=held_out.param,
            code="overlapping_splits",
        )


def _question(row: Preference | Rated) -> str:
    messages = row.prompt if isinstance(row, Preference) else row.demonstration.messages
    asked: tuple[Message, ...] = tuple(message for message in messages if message.role in ("system", "user"))
    return content_hash(Item(id="", messages=asked))


def _line(row: Preference | Rated) -> int:
    return row.line if isinstance(row, Preference) else row.demonstration.line
