"""`agentrft run JOB`: train what a job file describes, or go on with a stored job."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from agentrft.cli.console import err, note, out, warn
from agentrft.cli.interrupt import INTERRUPTED, interruptible
from agentrft.cli.jobref import is_job_id
from agentrft.cli.progress import Display

if TYPE_CHECKING:
    from agentrft.jobs.service import StoredJob
    from agentrft.runtime.training import Outcome
    from agentrft.store import SqlStore
    from agentrft.train.stop import ShouldStop


class Method(StrEnum):
    """The loops a job file can ask for."""

    SUPERVISED = "supervised"
    DPO = "dpo"
    REINFORCEMENT = "reinforcement"


def run(
    job: str = typer.Argument(help="A job file, or the id of a stored job to go on with.", metavar="JOB"),
    start_from: str | None = typer.Option(
        None, "--from", help="Start from this model or checkpoint instead of the job's `model`.", metavar="MODEL"
    ),
    method: Method | None = typer.Option(None, help="Run this method instead of the file's `method.type`."),
    server: str | None = typer.Option(None, help="Run it at this server instead of here.", metavar="URL"),
    download: Path | None = typer.Option(
        None, help="With --server: a new folder for the result's weights.", metavar="FOLDER"
    ),
) -> None:
    """Train a model; Ctrl-C stops after the current step, and `agentrft run ftjob-…` goes on."""
    if is_job_id(job):
        _refuse_for_stored(start_from, method)
    if server:
        from agentrft.cli.run_at_server import run_at_server

        return run_at_server(server, job, start_from, method.value if method else None, download)
    if download:
        raise typer.BadParameter("it is for --server; here the result is under `models/`", param_hint="--download")
    return _run_here(job, start_from, method)


def _refuse_for_stored(start_from: str | None, method: Method | None) -> None:
    from agentrft.errors import UserError

    if start_from or method:
        raise UserError(
            "--from and --method are for new jobs; a stored job goes on as it began. Give the job file to start a new "
            "one",
            param="--from" if start_from else "--method",
        )


def _run_here(job: str, start_from: str | None, method: Method | None) -> None:
    from agentrft.build import require_torch
    from agentrft.store import open_store

    require_torch()
    store = open_store()
    try:
        stored = _stored(store, job, start_from, method)
        with interruptible() as interrupt:
            outcome = asyncio.run(
                _train(store, stored, lambda: "interrupted by the user" if interrupt.requested else None)
            )
        _tell(store, outcome)
    finally:
        store.close()
    if outcome.stopped:
        raise typer.Exit(INTERRUPTED if interrupt.requested else 0)


def _stored(store: SqlStore, job: str, start_from: str | None, method: Method | None) -> StoredJob:
    """The job that the argument names, checked; a new one in the store when it is a file."""
    from agentrft.jobs.check import check_job
    from agentrft.jobs.load import load_job
    from agentrft.jobs.service import create_job, find_job, stored_job

    if is_job_id(job):
        return stored_job(store, find_job(store, job))
    spec, base_dir = load_job(job)
    if method:
        spec = spec.model_copy(update={"method": spec.method.model_copy(update={"type": method.value})})
    with err().status("checking the job …"):
        report = check_job(spec, base_dir, start_from=start_from)
    for warning in report.warnings:
        warn(warning)
    report.raise_problems()
    return create_job(store, spec, base_dir, start_from=start_from)


async def _train(store: SqlStore, job: StoredJob, should_stop: ShouldStop) -> Outcome:
    from agentrft.cli.live import open_with_progress
    from agentrft.cli.watch import Watch
    from agentrft.jobs.models import find_weights
    from agentrft.runtime.inprocess import train_in

    note(f"{job.id}: {job.kind} fine-tuning of {job.model}")
    async with AsyncExitStack() as stack:
        display = stack.enter_context(Display(err()))
        find = partial(find_weights, job.model, base_dir=job.base_dir)
        live = await open_with_progress(stack, display, job.spec, job.base_dir, find, training=True)
        steps = job.spec.training.steps if job.kind == "reinforcement" else 1
        with Watch(display, job.kind, steps=steps) as watch:
            return await train_in(live, store, job, watch=watch, should_stop=should_stop)


def _tell(store: SqlStore, outcome: Outcome) -> None:
    """The report, and what to type next."""
    from agentrft.jobs.service import stored_job
    from agentrft.report.html import write_page
    from agentrft.report.terminal import next_step_lines
    from agentrft.runtime.summary import job_report

    job = stored_job(store, outcome.job.id)
    best = outcome.result.best.step if job.kind == "reinforcement" else None
    report = job_report(store, job, best_step=best)
    page = write_page(report, job.folder / "report.html")
    if outcome.stopped:
        out().print(f"stopped after step {outcome.result.last.step}: {outcome.stopped}", markup=False)
    else:
        out().print(Text(report.headline, style="bold"), soft_wrap=True)
        out().print(f"trained model: {outcome.model}", soft_wrap=True, markup=False)
    out().print(f"report: {page}", soft_wrap=True, markup=False)
    out().print(next_step_lines(report.next_steps), soft_wrap=True)
