"""`agentrft quickstart` and `climb --only-train`: supervised, then reinforcement, with honest figures of each."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from agentrft.cli.console import err, out
from agentrft.cli.interrupt import INTERRUPTED, Interrupt, interruptible
from agentrft.cli.progress import Display

if TYPE_CHECKING:
    from agentrft.ladder import LadderPlan, LadderResult
    from agentrft.report.model import Report
    from agentrft.runtime.training import Watcher
    from agentrft.store import SqlStore

TASK = "filenav"


def quickstart(
    json_file: Path | None = typer.Option(None, "--json", help="Write the figures to this file.", metavar="FILE"),
    seed: int = typer.Option(0, min=0, max=2_147_483_647, help="Of everything random."),
    minutes: float | None = typer.Option(None, min=0.1, help="Stop after a whole step in time to measure the result."),
    home: Path | None = typer.Option(None, help="Keep everything here instead of AGENTRFT_HOME.", metavar="FOLDER"),
    again: bool = typer.Option(False, "--again", help="Climb anew although this seed's climb is complete."),
) -> None:
    """Train SmolLM2-135M to use tools: base model, supervised warm-up, reinforcement, each measured (minutes)."""
    from agentrft.build import require_torch
    from agentrft.ladder import find_example

    if home is not None:
        os.environ["AGENTRFT_HOME"] = str(home.expanduser().resolve())
    require_torch()
    plan = replace(
        _plan(find_example(TASK), seed, task=TASK, splits=("test", "new_names")),
        command=f"agentrft quickstart --seed {seed}",
    )
    if not climb_and_tell(plan, json_file=json_file, minutes=minutes, again=again):
        raise typer.Exit(INTERRUPTED)


def climb_only_training(
    job: Path,
    *,
    seed: int | None,
    splits: Sequence[str],
    json_file: Path | None,
    minutes: float | None,
    again: bool,
) -> None:
    """`agentrft climb --only-train`: base model, supervised warm-up, reinforcement, each measured."""
    from agentrft.jobs.rows import split_path

    plan = _plan(job, seed, task=job.resolve().parent.name, splits=splits)
    for name in splits:
        split_path(plan.spec, plan.base_dir, name)
    if not climb_and_tell(plan, json_file=json_file, minutes=minutes, again=again):
        raise typer.Exit(INTERRUPTED)


def climb_and_tell(plan: LadderPlan, *, json_file: Path | None, minutes: float | None, again: bool = False) -> bool:
    """Climb, print the table, write the JSON file and the report; False when the user interrupted it."""
    from agentrft.report.html import write_page
    from agentrft.store import open_store

    store = open_store()
    try:
        with interruptible() as interrupt:
            result = asyncio.run(_climb(plan, store, minutes, interrupt, again))
        if json_file:
            json_file.parent.mkdir(parents=True, exist_ok=True)
            json_file.write_text(json.dumps(result.to_json(), indent=2) + "\n", encoding="utf-8")
        report = result.report(store)
        print_figures(report)
        page = write_page(report, result.folder / "report.html")
        print_pointers(report, page, result.trained_model)
    finally:
        store.close()
    return not interrupt.requested


def _plan(job: Path, seed: int | None, *, task: str, splits: Sequence[str]) -> LadderPlan:
    from agentrft.jobs.check import check_job
    from agentrft.jobs.load import load_job
    from agentrft.ladder import LadderPlan

    spec, base_dir = load_job(job)
    if seed is not None:
        spec = spec.model_copy(update={"seed": seed})
    with err().status("checking the task …"):
        check_job(spec, base_dir).raise_problems()
    return LadderPlan(task=task, spec=spec, base_dir=base_dir, file_name=job.name, splits=tuple(splits))


async def _climb(
    plan: LadderPlan, store: SqlStore, minutes: float | None, interrupt: Interrupt, again: bool
) -> LadderResult:
    from agentrft.cli.watch import Watch
    from agentrft.jobs.models import find_weights
    from agentrft.ladder import climb

    deadline_s = None if minutes is None else time.monotonic() + 60 * minutes
    with Display(err()) as display:
        display.line(Text(f"Climbing the ladder on {plan.task} with {plan.spec.model}, seed {plan.seed}", "bold"))

        @contextmanager
        def open_watch(title: str, steps: int | None) -> Iterator[Watcher]:
            with Watch(display, title, steps=steps) as watch:
                yield watch

        with display.task("loading the model"):
            await asyncio.to_thread(find_weights, plan.spec.model, base_dir=plan.base_dir)
        return await climb(
            plan,
            store,
            open_watch=open_watch,
            should_stop=lambda: "interrupted by the user" if interrupt.requested else None,
            deadline_s=deadline_s,
            again=again,
        )


def print_figures(report: Report) -> None:
    """The table of each split, the paired gains, and one item before and after."""
    from agentrft.report.terminal import gain_lines, stage_table, transcript_view

    console = out()
    console.print()
    console.print(Text(report.headline, style="bold"), soft_wrap=True)
    for split in dict.fromkeys(name for stage in report.stages for name in stage.figures):
        one = next(stage.figures[split].reward for stage in report.stages if split in stage.figures)
        console.print(Text(f"\n{split.replace('_', ' ')}: {one.n_items} items, {one.n_episodes} episodes", "dim"))
        console.print(stage_table(report.stages, split=split))
    if report.gains:
        console.print()
        console.print(gain_lines(report.gains))
    for comparison in report.comparisons[:1]:
        console.print(Text("\nThe item whose reward changed by the median, before and after:", style="bold"))
        for index, shown in enumerate(comparison.episodes):
            console.print(transcript_view(shown, prompt="none" if index else "question"))


def print_pointers(report: Report, page: Path, model: str | None) -> None:
    """Where things are, and what to type next."""
    from agentrft.report.terminal import next_step_lines

    console = out()
    for line in report.notes:
        console.print(Text(f"\n{line}", style="yellow"), soft_wrap=True)
    console.print(Text.assemble(("\nreport  ", "dim"), str(page)), soft_wrap=True)
    if model:
        console.print(Text.assemble(("model   ", "dim"), model), soft_wrap=True)
    console.print(Text("\nWhat to type next", style="bold"))
    console.print(next_step_lines(report.next_steps), soft_wrap=True)
