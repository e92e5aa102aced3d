"""Runs a job in this process: claims it, trains, publishes the result, and leaves the job in a state that says so."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import psutil

from agentrft import build
from agentrft.errors import BoundaryError, UserError
from agentrft.home import home
from agentrft.jobs.models import find_weights, publish
from agentrft.jobs.service import StoredJob, result_name, write_job_file
from agentrft.runtime.audit import audit_of
from agentrft.store import SqlStore
from agentrft.train import dpo, rft, sft
from agentrft.train.log import Progress, RunLog
from agentrft.train.plan import TrainResult
from agentrft.types import Item

LEASE_S = 60.0
"""A process that has been silent this long no longer owns its job."""

Watcher = Callable[[Progress], None]
ShouldStop = Callable[[], str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended."""

    job: StoredJob
    result: TrainResult
    model: str | None
    """Name of the published result; None when the run stopped early."""

    @property
    def stopped(self) -> str | None:
        """Why it stopped before its end; None when it is complete."""
        return self.result.stopped


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
    async with _working_on(store, job) as fenced:
        write_job_file(job, live.weights.folder, job.fine_tuned_model)
        log = RunLog(fenced, job.id, watch=watch)
        if job.kind == "supervised":
            plan = build.sft_plan(live, run=job.id, folder=job.folder)
            result = await sft.train(plan, live.engine.learner, log, should_stop=should_stop)
        elif job.kind == "dpo":
            plan = build.dpo_plan(live, run=job.id, folder=job.folder)
            result = await dpo.train(plan, live.engine.learner, log, should_stop=should_stop)
        else:
            plan = build.rft_plan(live, run=job.id, folder=job.folder, validation=validation)
            result = await rft.train(
                plan,
                live.engine.learner,
                live.agent,
                live.graded(),
                log,
                should_stop=should_stop,
                monitor=build.monitor_of(live),
                audit=audit_of(live, job, log),
            )
        if result.stopped:
            fenced.set_job_status(job.id, "paused")
            fenced.add_event(job.id, f"Stopped after step {result.last.step}: {result.stopped}")
            return Outcome(job=job, result=result, model=None)
        name = _publish(live, job, result)
        fenced.update_job(job.id, {"fine_tuned_model": name})
        write_job_file(job, live.weights.folder, name)
        fenced.set_job_status(job.id, "succeeded")
        return Outcome(job=job, result=result, model=name)


def _publish(live: build.Live, job: StoredJob, result: TrainResult) -> str:
    name = result_name(job)
    best = dict(result.validations).get(result.best.step) if job.kind == "reinforcement" else None
    card = {
        "base_model": str(live.weights.folder),
        "job": job.id,
        "step": result.best.step,
        "validation_reward": best,
        "system": job.spec.agent.system,
        "bundle": result.best.bundle,
    }
    publish(result.best.path, home() / "models" / name, card, base=live.weights.folder)
    return name


@asynccontextmanager
async def _working_on(store: SqlStore, job: StoredJob) -> AsyncIterator[SqlStore]:
    """The store as the job's owner may use it; the job is `running` inside, `failed` after an exception."""
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
    finally:
        heart.cancel()
        with suppress(BoundaryError):
            store.release_job(job.id, token)


def _claim(store: SqlStore, job_id: str) -> int:
    """The fencing token; what a process of this machine that no longer lives has left claimed is taken over at once."""
    host = socket.gethostname()
    owner = store.get_job(job_id)["owner"]
    if owner and owner.startswith(f"{host}:") and not psutil.pid_exists(int(owner.rpartition(":")[2])):
        store.claim_job(job_id, owner, 0.0)
    return store.claim_job(job_id, f"{host}:{os.getpid()}", LEASE_S)


async def _beat(store: SqlStore, job_id: str, token: int) -> None:
    while True:
        await asyncio.sleep(LEASE_S / 3)
        # A store that is busy now may answer next time; whether the lease was lost, the fenced writes find out.
        with suppress(BoundaryError):
            store.heartbeat(job_id, token, LEASE_S)
