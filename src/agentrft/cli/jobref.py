"""JOB on the command line: a job file, or the id of a stored job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentrft.jobs.spec import JobSpec
    from agentrft.store import SqlStore


def is_job_id(job: str) -> bool:
    """Whether the argument means a stored job rather than a file."""
    return job.startswith("ftjob-") and not Path(job).exists()


def read_job(store: SqlStore, job: str) -> tuple[JobSpec, Path]:
    """The job's document and the folder its paths start at; raises UserError when there is no such job."""
    from agentrft.jobs.load import load_job
    from agentrft.jobs.service import find_job, stored_job

    if is_job_id(job):
        stored = stored_job(store, find_job(store, job))
        return stored.spec, stored.base_dir
    return load_job(job)
