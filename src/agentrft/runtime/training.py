"""Runs the loop that a job asks for, and publishes what came of it; in this process, whoever owns it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agentrft import build
from agentrft.graders import sandboxes_of
from agentrft.home import home
from agentrft.jobs.event_data import teller
from agentrft.jobs.models import publish
from agentrft.jobs.results import write_result_file
from agentrft.jobs.service import StoredJob, result_name, write_job_file
from agentrft.runtime.audit import audit_of
from agentrft.store import SqlStore
from agentrft.train import dpo, rft, sft
from agentrft.train.log import Progress, RunLog
from agentrft.train.plan import TrainResult
from agentrft.train.stop import ShouldStop
from agentrft.types import Item

Watcher = Callable[[Progress], None]


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


async def train_job(
    live: build.Live,
    fenced: SqlStore,
    job: StoredJob,
    *,
    watch: Watcher = lambda progress: None,
    should_stop: ShouldStop = lambda: None,
    validation: Sequence[Item] | None = None,
) -> Outcome:
    """Train and publish, and leave the job `succeeded`; as it was where `should_stop` or an alarm ended it early.

    `fenced` is the store as the job's owner may use it; `validation` replaces the job's validation items.
    """
    write_job_file(job, live.weights.folder, job.fine_tuned_model)
    if job.spec.training.dtype == "auto":
        # What a busy machine measures when the job is resumed must not change the numbers it computes with.
        fenced.update_job(job.id, {"dtype": live.engine.dtype})
    note_sandboxes(fenced, job)
    log = RunLog(fenced, job.id, watch=watch, tell=teller(job.spec, job.kind))
    result = await _loop(live, job, log, should_stop, validation)
    if result.stopped:
        return Outcome(job=job, result=result, model=None)
    name = _publish(live, job, result)
    fenced.update_job(job.id, {"fine_tuned_model": name})
    write_job_file(job, live.weights.folder, name)
    write_result_file(fenced, job.id)
    fenced.set_job_status(job.id, "succeeded")
    return Outcome(job=job, result=result, model=name)


def note_stop(fenced: SqlStore, outcome: Outcome) -> None:
    """The job is `paused`, and says after which step and why."""
    fenced.set_job_status(outcome.job.id, "paused")
    fenced.add_event(outcome.job.id, f"Stopped after step {outcome.result.last.step}: {outcome.stopped}")


def note_sandboxes(fenced: SqlStore, job: StoredJob) -> None:
    """An event on where each Python grader runs: another machine may give the job another sandbox."""
    grades = job.spec.method.reinforcement if job.spec.played_split(job.kind) else None
    audits = job.spec.audit if job.kind == "reinforcement" else None
    for section in (grades, audits):
        if section and section.grader:
            for sentence in sandboxes_of(section.grader):
                fenced.add_event(job.id, sentence[:1].upper() + sentence[1:])


async def _loop(
    live: build.Live, job: StoredJob, log: RunLog, should_stop: ShouldStop, validation: Sequence[Item] | None
) -> TrainResult:
    learner = live.engine.learner
    if job.kind == "supervised":
        plan = build.sft_plan(live, run=job.id, folder=job.folder)
        rehearsal = build.rehearsal_of(live, run=job.id, validation=validation)
        return await sft.train(plan, learner, log, rehearsal=rehearsal, should_stop=should_stop)
    if job.kind == "dpo":
        plan = build.dpo_plan(live, run=job.id, folder=job.folder)
        return await dpo.train(plan, learner, log, should_stop=should_stop)
    return await rft.train(
        build.rft_plan(live, run=job.id, folder=job.folder, validation=validation),
        learner,
        live.agent,
        live.graded(),
        log,
        should_stop=should_stop,
        monitor=build.monitor_of(live),
        audit=audit_of(live, job, log),
    )


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
