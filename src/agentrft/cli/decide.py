"""`agentrft decide JOB`: which method next, by which rule, and how sure that is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from agentrft.cli.console import note, out
from agentrft.cli.jobref import is_job_id, read_job

if TYPE_CHECKING:
    from agentrft.jobs.spec import JobSpec
    from agentrft.store import SqlStore

TOO_LITTLE_DATA = 4
"""Exit code."""


def decide(
    job: str = typer.Argument(help="A job file, or the id of a stored job.", metavar="JOB"),
    as_json: bool = typer.Option(False, "--json", help="Print the decision as JSON on stdout."),
) -> None:
    """Say what to do next, from the job's data and its last diagnosis; exit code 4 when they are too few."""
    from agentrft.ladder.decided import decide_job
    from agentrft.report.decide import decision_view
    from agentrft.store import open_store

    store = open_store()
    try:
        spec, base_dir = read_job(store, job)
        diagnosis = _diagnosis(store, job, spec, base_dir)
        decision, document = decide_job(store, spec, base_dir, diagnosis, job=job)
    finally:
        store.close()
    if as_json:
        typer.echo(json.dumps(document, indent=2, allow_nan=False))
    else:
        for part in decision_view(document):
            out().print(part)
        if diagnosis:
            note(
                f"from {diagnosis['job']}: {diagnosis['model']} on {diagnosis['n_items']} items of {diagnosis['split']}"
            )
    raise typer.Exit(TOO_LITTLE_DATA if decision.says_too_little else 0)


def _diagnosis(store: SqlStore, job: str, spec: JobSpec, base_dir: Path) -> dict[str, Any] | None:
    """The last one; None for a job without a grader, which can be decided from its data alone."""
    from agentrft.jobs.service import find_job, stored_job
    from agentrft.runtime.diagnosed import find_diagnosis, latest_diagnosis

    if spec.method.reinforcement is None:
        return None
    if is_job_id(job):
        own = latest_diagnosis(stored_job(store, find_job(store, job)))
        if own is not None:
            return own
    return find_diagnosis(store, spec, base_dir)
