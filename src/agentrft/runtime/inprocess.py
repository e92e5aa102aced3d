"""Runs a job in this process, for the command line: claims it, trains, publishes, and leaves it in a telling state."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from agentrft import build
from agentrft.errors import BoundaryError, UserError
from agentrft.jobs.models import find_weights
from agentrft.jobs.service import StoredJob
from agentrft.runtime.lease import LEASE_S
from agentrft.runtime.processes import is_gone, this_owner
from agentrft.runtime.training import Outcome, Watcher, note_stop, train_job
from agentrft.store import SqlStore
from agentrft.train.stop import ShouldStop
from agentrft.types import Item


async def run_job(
    store: SqlStore,
    job: StoredJob,
    *,
    watch: Watcher = lambda progress: None,
    should_stop: ShouldStop = lambda: None,
    load: build.LoadEngine | None = None,
) -> Outcome:
    """Train the job to its end, or until `should_stop` gives a reason; resumes from its newest checkpoint.

    Raises UserError when the job cannot run or is held by another process; the job is `failed` then, with the reason.
    """
    weights = find_weights(job.model, base_dir=job.base_dir)
    async with build.open_job(job.spec, job.base_dir, weights, training=True, load=load) as live:
        return await train_in(live, store, job, watch=watch, should_stop=should_stop)


async def train_in(
    live: build.Live,
    store: SqlStore,
    job: StoredJob,
    *,
    watch: Watcher = lambda progress: None,
    should_stop: ShouldStop = lambda: None,
    validation: list[Item] | None = None,
) -> Outcome:
    """`run_job` with live objects that the caller opened; `validation` replaces the job's validation items."""
    async with working_on(store, job) as fenced:
        outcome = await train_job(live, fenced, job, watch=watch, should_stop=should_stop, validation=validation)
        if outcome.stopped:
            note_stop(fenced, outcome)
        return outcome


@asynccontextmanager
async def working_on(store: SqlStore, job: StoredJob) -> AsyncIterator[SqlStore]:
    """The store as the job's owner may use it; the job is `running` inside, and whoever is inside ends it well.

    After a UserError it is `failed`, after anything else that ends it early `paused`. Raises UserError for a job that
    is final, or that another process holds.
    """
    if job.status in ("succeeded", "cancelled", "failed"):
        why = "it is complete" if job.status == "succeeded" else "start it again as a new job"
        raise UserError(
            f"job {job.id} has {job.status} and cannot be run again; expected one that is queued, paused or was "
            f"interrupted: {why}",
            param="job",
            code="illegal_transition",
        )
    token = _claim(store, job.id)
    fenced = store.fenced(job.id, token)
    if store.get_job(job.id)["status"] != "queued":
        fenced.set_job_status(job.id, "queued")
    fenced.set_job_status(job.id, "running")
    heart = asyncio.create_task(_beat(store, job.id, token))
    try:
        yield fenced
    except UserError as error:
        failure = {"code": error.code, "message": error.message, "param": error.param}
        fenced.set_job_status(job.id, "failed", error=failure)
        raise
    except BoundaryError as error:
        # The outside may mend itself: what was checkpointed is good, and the job can be resumed.
        with suppress(BoundaryError):
            fenced.set_job_status(job.id, "paused", error={"code": error.boundary, "message": str(error)})
        raise
    except BaseException:  # an interrupt, or a bug: what is kept is good
        with suppress(BoundaryError, UserError):
            fenced.set_job_status(job.id, "paused")
        raise
    finally:
        heart.cancel()
        with suppress(BoundaryError):
            store.release_job(job.id, token)


def _claim(store: SqlStore, job_id: str) -> int:
    """The fencing token; what a process of this machine that no longer lives has left claimed is taken over at once."""
    owner = store.get_job(job_id)["owner"]
    if owner and is_gone(owner):
        store.claim_job(job_id, owner, 0.0)
    return store.claim_job(job_id, this_owner(), LEASE_S)


async def _beat(store: SqlStore, job_id: str, token: int) -> None:
    while True:
        await asyncio.sleep(LEASE_S / 3)
        # A store that is busy now may answer next time; whether the lease was lost, the fenced writes find out.
        with suppress(BoundaryError):
            store.heartbeat(job_id, token, LEASE_S)
