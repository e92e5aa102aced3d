"""What benchmarks of audit and alarms share: a warm-up, the audit, a reinforcement run with its alarms."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentrft import build
from agentrft.audit import audit
from agentrft.jobs.audit import audit_plan
from agentrft.jobs.models import find_weights
from agentrft.jobs.service import create_job
from agentrft.jobs.spec import JobSpec
from agentrft.runtime.inprocess import run_job, train_in
from agentrft.runtime.training import Outcome
from agentrft.store import SqlStore
from agentrft.types import Item
from harness.study import say


async def warm_up(spec: JobSpec, base_dir: Path, store: SqlStore) -> str:
    """Name of the model that the supervised stage makes."""
    job = create_job(store, spec, base_dir, kind="supervised")
    outcome = await run_job(store, job, watch=say)
    assert outcome.model is not None
    return outcome.model


async def failed_checks(spec: JobSpec, base_dir: Path) -> list[str]:
    """Probes and checks of the audit that the job's grader fails before any training."""
    grader = build.grader_of(spec, base_dir)
    assert grader is not None
    try:
        report = await audit(audit_plan(spec, base_dir), grader)
    finally:
        await grader.close()
    return [line.name for line in report.lines if line.verdict == "failed"]


async def reinforced(
    spec: JobSpec, base_dir: Path, store: SqlStore, model: str, *, validation: list[Item] | None = None
) -> tuple[str, Outcome]:
    """The job's id and how its run ended; `validation` replaces the job's validation items."""
    job = create_job(store, spec, base_dir, kind="reinforcement", start_from=model)
    weights = find_weights(job.model, base_dir=job.base_dir)
    async with build.open_job(job.spec, job.base_dir, weights, training=True) as live:
        return job.id, await train_in(live, store, job, watch=say, validation=validation)


def alarms_of(store: SqlStore, job_id: str) -> list[dict[str, Any]]:
    """Every alarm of a job: step, name, level, value."""
    events = [event for event in store.list_events(job_id) if event["data"] and "formula" in event["data"]]
    return [{key: event["data"][key] for key in ("step", "name", "level", "value")} for event in events]
