"""`agentrft climb JOB`: diagnose, optimise, decide, train and measure, as far as it is worth it; one report."""

from __future__ import annotations

import asyncio
import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from agentrft.cli.console import err, out
from agentrft.cli.interrupt import INTERRUPTED, Interrupt, interruptible
from agentrft.cli.option_group import takes
from agentrft.cli.progress import Display
from agentrft.cli.quickstart import climb_only_training, print_figures, print_pointers

if TYPE_CHECKING:
    from agentrft.ladder.whole_plan import Watching, WholePlan
    from agentrft.ladder.whole_result import WholeResult
    from agentrft.store import SqlStore

_EPISODES = 3000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """Options of this run of the command; each field is one."""

    json_file: str | None = typer.Option(None, "--json", help="Write the figures to this file.", metavar="FILE")
    seed: int | None = typer.Option(None, min=0, max=2_147_483_647, help="Instead of the job's.")
    minutes: float | None = typer.Option(None, min=0.1, help="Stop in time to measure what was trained.")
    again: bool = typer.Option(False, "--again", help="Climb anew although this climb is complete.")


@takes("sitting", Sitting)
def climb(
    job: Path = typer.Argument(help="The job file (YAML); it is read, never written.", metavar="JOB"),
    split: list[str] = typer.Option(["test"], help="Held-out split to measure on; may be given several times."),
    episodes: int | None = typer.Option(
        None, min=40, help=f"Budget of all diagnoses and the search for edits together; default {_EPISODES}."
    ),
    methods: str | None = typer.Option(
        None,
        help="Train by this method when training is due; several: all from the same episodes, and compared "
        "(supervised,rejection,dpo,reinforcement).",
    ),
    only_train: bool = typer.Option(
        False, "--only-train", help="Supervised, then reinforcement, whatever a diagnosis would say."
    ),
    *,
    sitting: Sitting,
) -> None:
    """Climb the ladder with a job of yours, each rung measured on held-out items; after Ctrl-C type it again."""
    from agentrft.build import require_torch
    from agentrft.errors import UserError

    require_torch()
    figures = None if sitting.json_file is None else Path(sitting.json_file)
    how: dict[str, Any] = {"json_file": figures, "minutes": sitting.minutes, "again": sitting.again}
    if not only_train:
        plan = _plan(job, sitting.seed, split, episodes, methods)
        raise typer.Exit(_climb_and_tell(plan, **how))
    if episodes is not None or methods is not None:
        given = "--episodes" if episodes is not None else "--methods"
        raise UserError(
            f"{given} is for the whole ladder, and --only-train climbs without diagnosis and search; leave out one "
            "of them",
            param=given,
        )
    climb_only_training(job, seed=sitting.seed, splits=split, **how)


def _plan(job: Path, seed: int | None, splits: Sequence[str], episodes: int | None, methods: str | None) -> WholePlan:
    from agentrft.jobs.check import check_job
    from agentrft.jobs.load import load_job
    from agentrft.jobs.probe import missing_grader
    from agentrft.jobs.rows import split_path
    from agentrft.ladder.optimise import Task
    from agentrft.ladder.rungs import read_methods
    from agentrft.ladder.whole_plan import WholePlan

    chosen = read_methods(name.strip() for name in (methods or "").split(",") if name.strip())
    spec, base_dir = load_job(job)
    if spec.method.reinforcement is None:
        raise missing_grader()
    task = Task.read(job, spec)
    if seed is not None:
        spec = spec.model_copy(update={"seed": seed})
    for name in ("train", *splits):
        split_path(spec, base_dir, name)
    with err().status("checking the task …"):
        check_job(spec, base_dir).raise_problems()
    typed = shlex.quote(str(job))
    options = [f"--split {name}" for name in splits if list(splits) != ["test"]]
    options += [f"--seed {seed}"] if seed is not None else []
    options += [f"--methods {','.join(chosen)}"] if chosen else []
    budget = [f"--episodes {episodes}"] if episodes is not None else []
    return WholePlan(
        task=task,
        spec=spec,
        typed=typed,
        command=" ".join(["agentrft climb", typed, *options, *budget]),
        splits=tuple(splits),
        episodes=_EPISODES if episodes is None else episodes,
        methods=chosen,
    )


def _climb_and_tell(plan: WholePlan, *, json_file: Path | None, minutes: float | None, again: bool) -> int:
    """Climb, print and write what was found; the exit code."""
    from agentrft.report.html import write_page
    from agentrft.report.terminal import rung_lines
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
        if report.rungs:
            out().print(Text("\nEach rung: what it cost, and what was decided on it", style="bold"))
            out().print(rung_lines(report.rungs), soft_wrap=True)
        out().print(Text(f"\nRecommendation: {result.recommendation()}", style="bold"), soft_wrap=True)
        page = write_page(report, result.folder / "report.html")
        best = result.recommended
        print_pointers(report, page, best.model if best else None)
    finally:
        store.close()
    return INTERRUPTED if interrupt.requested else result.exit_code


async def _climb(
    plan: WholePlan, store: SqlStore, minutes: float | None, interrupt: Interrupt, again: bool
) -> WholeResult:
    from agentrft.jobs.models import find_weights
    from agentrft.ladder.whole import climb_whole

    deadline_s = None if minutes is None else time.monotonic() + 60 * minutes
    with Display(err()) as display:
        head = f"Climbing the ladder on {plan.name} with {plan.spec.model}, seed {plan.spec.seed}"
        display.line(Text(head, "bold"))
        with display.task("loading the model"):
            await asyncio.to_thread(find_weights, plan.spec.model, base_dir=plan.base_dir)
        return await climb_whole(
            plan,
            store,
            watching=_watching(display),
            should_stop=lambda: "interrupted by the user" if interrupt.requested else None,
            deadline_s=deadline_s,
            again=again,
        )


def _watching(display: Display) -> Watching:
    from agentrft.cli.watch import Watch
    from agentrft.ladder.whole_plan import Watching
    from agentrft.runtime.training import Watcher

    @contextmanager
    def training(title: str, steps: int | None) -> Iterator[Watcher]:
        with Watch(display, title, steps=steps) as watch:
            yield watch

    @contextmanager
    def episodes(title: str, total: int | None) -> Iterator[Callable[[int], None]]:
        with display.task(title, total) as task:
            yield task.move_to

    return Watching(training=training, episodes=episodes, tell=lambda text: display.line(Text(text, style="dim")))
