"""`agentrft grade GRADER SAMPLES`: what a grader makes of samples, and whether it would say so again."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table
from rich.text import Text

from agentrft.cli.console import err, out, safe, warn
from agentrft.cli.jobref import is_job_id, read_job
from agentrft.cli.progress import Display

if TYPE_CHECKING:
    from agentrft.data.samples import Gradable
    from agentrft.graders import AnySpec
    from agentrft.types import Grade

SCHEMA = 1
"""Of the JSON document."""

_AT_ONCE = 8
_LOW_ICC = 0.8
"""Below it a grader's own noise is too large a part of what training would learn from (algorithms.md §5.2)."""


def grade(
    grader: str = typer.Argument(
        help="A job file, a stored job's id, or a file with a grader alone.", metavar="GRADER"
    ),
    samples: Path | None = typer.Argument(None, help="JSONL of items with samples.", metavar="[SAMPLES]"),
    text: str | None = typer.Option(None, help="Grade this answer instead of a file."),
    item: str = typer.Option("{}", help="The item of --text, as JSON.", metavar="JSON"),
    repeat: int = typer.Option(1, min=1, max=20, help="Grade everything this often and show the agreement."),
    as_json: bool = typer.Option(False, "--json", help="Print grades as JSON on stdout."),
) -> None:
    """Grade samples; exit code 1 when one of them gets no grade. Loads no model."""
    rows = _samples(samples, text, item)
    spec, base_dir = _grader(grader)
    grades_I_K = asyncio.run(_grade(spec, base_dir, rows, repeat))
    graded = [Graded(row=row, grades_K=grades_K) for row, grades_K in zip(rows, grades_I_K, strict=True)]
    if as_json:
        typer.echo(json.dumps(_document(spec, graded, repeat), indent=2))
    else:
        _print(graded, repeat)
    if any(one.value is None for one in graded):
        raise typer.Exit(1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Graded:
    """A sample with every grade it got."""

    row: Gradable
    grades_K: Sequence[Grade]

    @property
    def values(self) -> list[float]:
        return [grade.value for grade in self.grades_K if grade.value is not None]

    @property
    def value(self) -> float | None:
        """The mean; None when one of the grades is no number."""
        return sum(self.values) / len(self.values) if len(self.values) == len(self.grades_K) else None

    @property
    def shown(self) -> Grade:
        """The first grade without a number, or else the first."""
        return next((grade for grade in self.grades_K if grade.value is None), self.grades_K[0])


def agreement(graded: Sequence[Graded]) -> float | None:
    """The ICC of repeated grades; None where it is undefined: fewer than two samples graded twice, or all alike."""
    from agentrft.stats import icc

    values_I_K = [one.values for one in graded if len(one.values) > 1]
    if len(values_I_K) < 2 or len({value for values_K in values_I_K for value in values_K}) < 2:
        return None
    return icc(values_I_K)


def _samples(path: Path | None, text: str | None, item: str) -> list[Gradable]:
    from agentrft.data.samples import gradable, read_samples
    from agentrft.errors import UserError

    if (path is None) == (text is None):
        got = "neither" if path is None else "both"
        raise UserError(
            f"got {got} a file of samples and --text; expected one of them. Next: agentrft grade GRADER samples.jsonl",
            param="samples",
        )
    if path is not None:
        return list(read_samples(path))
    try:
        fields = json.loads(item)
    except ValueError as error:
        raise UserError(
            f'--item is not JSON ({error}); expected an object. Next: --item \'{{"answer": "42"}}\'', param="item"
        ) from None
    return [gradable({"item": fields, "model_sample": text}, param="item")]


def _grader(grader: str) -> tuple[AnySpec, Path]:
    from agentrft.jobs.load import load_grader
    from agentrft.jobs.probe import missing_grader
    from agentrft.store import open_store

    if not is_job_id(grader):
        return load_grader(grader)
    store = open_store()
    try:
        spec, base_dir = read_job(store, grader)
    finally:
        store.close()
    if spec.method.reinforcement is None:
        raise missing_grader()
    return spec.method.reinforcement.grader, base_dir


async def _grade(spec: AnySpec, base_dir: Path, rows: Sequence[Gradable], repeat: int) -> list[list[Grade]]:
    """Grades [I][K] in the order of `rows`."""
    from agentrft.engines.openai_chat import open_judge
    from agentrft.graders import build_grader, grade_sample, warnings_of
    from agentrft.rollout import together

    grader = build_grader(spec, base_dir, open_judge=open_judge)
    for warning in warnings_of(spec, base_dir):
        warn(warning)
    slots = asyncio.Semaphore(_AT_ONCE)
    try:
        with Display(err()) as display, display.task("grading", len(rows) * repeat) as task:

            async def one(row: Gradable, time: int) -> Grade:
                async with slots:
                    grade = await grade_sample(grader, row.sample, row.item, f"trace_grade_{row.line}_{time}")
                task.advance()
                return grade

            grades = await together(one(row, time) for row in rows for time in range(repeat))
    finally:
        await grader.close()
    return [grades[start : start + repeat] for start in range(0, len(grades), repeat)]


def _document(spec: AnySpec, graded: Sequence[Graded], repeat: int) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "grader": {"name": spec.name, "type": spec.type},
        "repeat": repeat,
        "icc": agreement(graded) if repeat > 1 else None,
        "samples": [
            {"line": one.row.line, "grade": one.value, "grades": [_grade_json(grade) for grade in one.grades_K]}
            for one in graded
        ],
    }


def _grade_json(grade: Grade) -> dict[str, Any]:
    return {
        "value": grade.value,
        "reason": grade.reason,
        "error": grade.error,
        "sub_grades": dict(grade.sub_grades),
        "clipped": dict(grade.clipped),
        "substituted": grade.substituted,
        "traceback": grade.traceback,
        "wall_s": round(grade.wall_s, 6),
        "tokens": {model: usage.total_tokens for model, usage in grade.token_usage.items()},
    }


def _print(graded: Sequence[Graded], repeat: int) -> None:
    from agentrft.report.text import one_line

    table = Table(box=None, pad_edge=False, header_style="dim")
    for title in ("line", "grade", *(["lowest", "highest"] if repeat > 1 else []), "time"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("why, or of what", overflow="fold")
    for one in graded:
        grade = one.shown
        spread = [_number(bound(one.values)) if one.values else "–" for bound in (min, max)] if repeat > 1 else []
        why = safe(one_line(grade.reason or _details(grade), 300), "red" if grade.reason else "dim")
        value = "–" if one.value is None else _number(one.value)
        table.add_row(str(one.row.line or 1), value, *spread, f"{grade.wall_s:.3f} s", why)
    out().print(table)
    out().print()
    out().print(safe(_summary(graded)))
    if repeat > 1:
        out().print(_agreement_words(graded, repeat))


def _details(grade: Grade) -> str:
    parts = [f"{name} {_number(value)}" for name, value in grade.sub_grades.items()]
    parts += [f"{name} said {_number(value)}: clipped" for name, value in grade.clipped.items()]
    parts += [f"invalid_grade: {grade.substituted}"] if grade.substituted else []
    parts += [f"{usage.total_tokens} tokens of {model}" for model, usage in grade.token_usage.items()]
    return ", ".join(parts)


def _summary(graded: Sequence[Graded]) -> str:
    values = [one.value for one in graded if one.value is not None]
    counts = f"{len(values)} graded, {len(graded) - len(values)} without a grade"
    if not values:
        return counts
    return f"{counts}; mean {_number(sum(values) / len(values))}, {len(set(values))} distinct"


def _agreement_words(graded: Sequence[Graded], repeat: int) -> Text:
    value = agreement(graded)
    if value is None:
        return safe("agreement: undefined (it takes two samples with several grades, and grades that differ)", "dim")
    words = f"agreement of {repeat} gradings: ICC {value:.2f}"
    if value >= _LOW_ICC:
        return safe(words, "green")
    return safe(f"{words}, below {_LOW_ICC}: average three gradings, or make the grader's rules clearer", "yellow")


def _number(value: float) -> str:
    return f"{value:.4g}"
