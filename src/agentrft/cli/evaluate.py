"""`agentrft eval JOB --model M`: how good a model is on a job's held-out items."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agentrft.cli.console import err, note, out, warn
from agentrft.cli.jobref import read_job
from agentrft.cli.progress import Display

if TYPE_CHECKING:
    from agentrft.jobs.service import StoredJob
    from agentrft.jobs.spec import JobSpec
    from agentrft.ladder.measure import Measured
    from agentrft.store import SqlStore

SCHEMA = 1
"""Of the JSON document."""


def evaluate(
    job: str = typer.Argument(help="A job file, or the id of a stored job.", metavar="JOB"),
    model: str | None = typer.Option(None, help="Model, trained model, job id or checkpoint; default: the job's own."),
    split: str = typer.Option("test", help="Which of the job's splits."),
    samples: int = typer.Option(2, min=1, max=64, help="Episodes per item."),
    items: int | None = typer.Option(None, min=1, help="Only this many items, from the beginning."),
    as_json: bool = typer.Option(False, "--json", help="Print the figures as JSON on stdout."),
) -> None:
    """Play every item of a split and print reward, success, calls and parse rate with 95 % intervals."""
    from agentrft.build import require_torch
    from agentrft.jobs.rows import split_path
    from agentrft.store import open_store

    require_torch()
    store = open_store()
    try:
        spec, base_dir = read_job(store, job)
        split_path(spec, base_dir, split)
        stored, measured = asyncio.run(_evaluate(store, spec, base_dir, model or spec.model, split, samples, items))
    finally:
        store.close()
    _print(stored, measured, model or spec.model, split, as_json)


async def _evaluate(
    store: SqlStore, spec: JobSpec, base_dir: Path, model: str, split: str, samples: int, items: int | None
) -> tuple[StoredJob, Measured]:
    from agentrft import build
    from agentrft.cli.live import open_with_progress
    from agentrft.cli.watch import Watch
    from agentrft.jobs.bundle import bundle_hash
    from agentrft.jobs.models import find_weights
    from agentrft.jobs.rows import items_of
    from agentrft.jobs.service import create_job
    from agentrft.ladder.measure import Measured
    from agentrft.train.evaluate import EvalPlan, evaluate
    from agentrft.train.log import RunLog

    chosen = items_of(spec, base_dir, split)[:items]
    async with AsyncExitStack() as stack:
        display = stack.enter_context(Display(err()))
        find = partial(find_weights, model, base_dir=base_dir)
        live = await open_with_progress(stack, display, spec, base_dir, find, training=False)
        grader = live.graded()
        if live.weights.bundle not in (None, bundle_hash(spec, base_dir)):
            warn(f"{model} was trained with another prompt, other tools or guardrails than this job has now")
        stored = create_job(store, spec, base_dir, kind="evaluation", start_from=model)
        plan = EvalPlan(
            run=stored.id,
            split=split,
            stage=Path(model).name,
            items=chosen,
            samples=samples,
            pass_threshold=build.pass_threshold_of(spec),
            penalties=spec.training.penalties,
        )
        store.set_job_status(stored.id, "running")
        try:
            with Watch(display, f"{split} episodes") as watch:
                evaluation = await evaluate(plan, live.agent, grader, RunLog(store, stored.id, watch=watch))
        except BaseException:
            store.set_job_status(stored.id, "failed")
            raise
        store.set_job_status(stored.id, "succeeded")
        return stored, Measured.of(evaluation, best_step=None)


def _print(stored: StoredJob, measured: Measured, model: str, split: str, as_json: bool) -> None:
    from agentrft.report.model import Stage
    from agentrft.report.terminal import stage_table
    from agentrft.report.wording import stop_words

    figures = measured.figures()
    if as_json:
        document: dict[str, Any] = {
            "schema": SCHEMA,
            "job": stored.id,
            "model": model,
            "split": split,
            **{name: getattr(figures, name).to_json() for name in ("reward", "success", "calls", "parse_rate")},
            "stop_reasons": dict(figures.stop_reasons),
        }
        typer.echo(json.dumps(document, indent=2))
        return
    out().print(stage_table([Stage(name=Path(model).name[-24:], label="", figures={split: figures})]))
    ends = ", ".join(f"{count} {stop_words(reason)}" for reason, count in figures.stop_reasons.items())
    out().print(f"{split}: {figures.reward.n_items} items, {figures.reward.n_episodes} graded episodes ({ends})")
    note(f"episodes: agentrft jobs show {stored.id}")
