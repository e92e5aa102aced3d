"""Pause, resume, cancel: what a user may ask of a stored job, whoever runs it.

Asking twice is asking once, so that a client that never got its answer may ask again. A running job is asked through
the store; its worker writes a checkpoint and pauses by itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from agentrft.errors import StoreFault, UserError
from agentrft.jobs.results import write_result_file
from agentrft.store import SqlStore
from agentrft.store.attention import fulfil_wish
from agentrft.store.states import FINAL

PAUSE_WAIT_S = 10.0
"""How long a caller waits for a worker to reach its checkpoint."""
_LOOK_EVERY_S = 0.1


def pause(
    store: SqlStore,
    job_id: str,
    *,
    project: str | None = None,
    wait_s: float | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> dict[str, Any]:
    """Ask for a pause and wait for it, `wait_s` (`PAUSE_WAIT_S`) at most; the job as it is then, maybe still running.

    Raises UserError for a job that is final.
    """
    job = store.get_job(job_id, project=project)
    _refuse_final(job, "paused")
    if job["status"] == "paused":
        if job["owner"] is not None:  # its worker waits for an outage to end, and must not go on by itself
            store.ask(job_id, "pause")
        return job
    store.ask(job_id, "pause")  # from here on nobody claims it
    until = time.monotonic() + (PAUSE_WAIT_S if wait_s is None else wait_s)
    while True:
        job = store.get_job(job_id, project=project)
        if job["status"] == "queued" and job["owner"] is None:
            fulfil_wish(store, job_id)  # does nothing where somebody has taken the wish back meanwhile
            job = store.get_job(job_id, project=project)
        if job["status"] == "paused" or job["status"] in FINAL or time.monotonic() >= until:
            return job
        sleep(_LOOK_EVERY_S)


def resume(store: SqlStore, job_id: str, *, project: str | None = None) -> dict[str, Any]:
    """The job, queued again; or, while it still runs, without the wish to pause. Raises UserError when it is final."""
    job = store.get_job(job_id, project=project)
    _refuse_final(job, "resumed")
    store.ask(job_id, None)
    if job["status"] == "paused":
        store.set_job_status(job_id, "queued")
    return store.get_job(job_id, project=project)


def cancel(store: SqlStore, job_id: str, *, project: str | None = None) -> dict[str, Any]:
    """The job, cancelled: nothing that its worker still writes is kept. Raises UserError when it ended otherwise."""
    job = store.get_job(job_id, project=project)
    if job["status"] == "cancelled":
        return job
    _refuse_final(job, "cancelled")
    store.cancel_job(job_id)
    with suppress(StoreFault):  # a disk that is full takes no file, but the job is cancelled all the same
        write_result_file(store, job_id)
    return store.get_job(job_id, project=project)


def _refuse_final(job: dict[str, Any], wanted: str) -> None:
    if job["status"] in FINAL:
        raise UserError(
            f"job {job['id']} has {job['status']}, which is final, and cannot be {wanted}; create a new job instead",
            param="fine_tuning_job_id",
            code="illegal_transition",
        )
