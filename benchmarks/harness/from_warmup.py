"""Arms that start from one supervised warm-up: a job is trained from it to its end, and its last weights are measured.

No checkpoint is chosen on validation and no alarm ends a run, so every arm plays the episodes that it was given, and no
more. The held-out rows are looked at once, when the weights are there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agentrft import build
from agentrft.jobs.models import find_weights, published_step
from agentrft.jobs.service import StoredJob, create_job, stored_job
from agentrft.jobs.spec import JobSpec
from agentrft.ladder import measure
from agentrft.ladder.measure import Measured
from agentrft.ladder.own_data import method_spec
from agentrft.protocols import EpisodeFilter, EpisodeRecord
from agentrft.runtime.inprocess import run_job
from agentrft.store import SqlStore
from agentrft.train.log import RunLog
from harness.note import Note
from harness.study import ALL_EPISODES, Study, as_lists, figures, from_lists, gains, say

WARMUP = "warmup"
"""The arm that all others start from."""


async def warm_up(study: Study, store: SqlStore, note: Note) -> dict[str, Any]:
    """Supervised training on the example's demonstrations, measured."""
    spec = method_spec(study.spec, study.base_dir, "supervised", (), note.path)
    assert spec is not None
    return await trained(study, WARMUP, spec, store, note, None)


async def trained(
    study: Study, arm: str, spec: JobSpec, store: SqlStore, note: Note, start: Mapping[str, Any] | None
) -> dict[str, Any]:
    """What the job came to: trained from the weights of the run `start` (the base model where it is None), measured.

    `wall_s` is that of training, loading included and measuring not; `episodes` are those that it played to train on.
    """
    job = _job_of(spec, study, store, note, start)
    with note.timed("train_s"):
        if job.status != "succeeded":
            await run_job(store, job, watch=say, load=study.load)
    measured = await _measured(study, stored_job(store, job.id), arm, store)
    before = measured if start is None else from_lists(start["measured"])
    return {
        "job": job.id,
        "fine_tuned_model": stored_job(store, job.id).fine_tuned_model,
        "step": published_step(job.id),
        "episodes": len(training_episodes(store, job.id)),
        "tokens_trained": _tokens_trained(store, job.id),
        "wall_s": note.known["train_s"],
        "figures": figures(measured),
        "gain_over_warmup": {} if start is None else gains(before, measured),
        "measured": as_lists(measured),
    }


def training_episodes(store: SqlStore, job_id: str) -> list[EpisodeRecord]:
    """What the job played to train on."""
    return store.list_episodes(job_id, wanted=EpisodeFilter(phase="train"), limit=ALL_EPISODES)


def reinforcement_spec(spec: JobSpec) -> JobSpec:
    """Reinforcement with exactly steps × batch × group episodes: silent groups are not replaced, nothing is validated
    and no alarm ends it."""
    changes = {
        "method": spec.method.model_copy(update={"type": "reinforcement"}),
        "data": spec.data.model_copy(update={"validation": None}),
        "training": spec.training.model_copy(update={"oversample": 1.0}),
        "audit": False,
    }
    return spec.model_copy(update=changes)


def _job_of(spec: JobSpec, study: Study, store: SqlStore, note: Note, start: Mapping[str, Any] | None) -> StoredJob:
    """The job that the note names where the run was interrupted, else a new one, noted."""
    if "job" not in note.known:
        model = None if start is None else start["fine_tuned_model"]
        note.keep(job=create_job(store, spec, study.base_dir, start_from=model).id)
    return stored_job(store, note.known["job"])


async def _measured(study: Study, job: StoredJob, arm: str, store: SqlStore) -> dict[str, Measured]:
    weights, step = find_weights(job.id), published_step(job.id)
    log = RunLog(store, job.id, watch=say)
    async with build.open_job(job.spec, study.base_dir, weights, training=False, load=study.load) as live:
        return {
            split: await measure.play(
                live, log, study.items(split), study.samples, measure.Place(stage=arm, split=split, best_step=step)
            )
            for split in study.splits
        }


def _tokens_trained(store: SqlStore, job_id: str) -> int:
    """Of all steps together; a token that several steps were trained on counts for each."""
    return round(sum(one["metrics"].get("tokens_trained") or 0.0 for one in store.list_metrics(job_id)))
