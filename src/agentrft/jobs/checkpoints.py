"""A job's checkpoints that are still on disk: listed as OpenAI lists them, found by id, packed to be taken away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from agentrft.errors import UserError
from agentrft.jobs.export import Archive, adapter_archive, merged_archive
from agentrft.jobs.job_object import checkpoint_object
from agentrft.jobs.models import find_weights, published_step
from agentrft.jobs.names import ModelName, base_name
from agentrft.protocols import Store
from agentrft.store.trained import DELETED

WeightsFormat = Literal["adapter", "merged"]
RESULT = "result"
"""Stands for the checkpoint that a job ended with."""


def checkpoints_of(store: Store, job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The checkpoint objects of a job as `get_job` gives it, newest first.

    Those that training has pruned and those whose models were deleted are left out.
    """
    kept = kept_checkpoints(store, job)
    found = store.list_metrics(job["id"], steps=[one["step"] for one in kept])
    metrics = {entry["step"]: entry["metrics"] for entry in found}
    return [checkpoint_object(job, one, metrics.get(one["step"], {})) for one in kept]


def kept_checkpoints(store: Store, job: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same as `Store.list_checkpoints` gives them, `path` included."""
    gone, name = set(job.get(DELETED, ())), ModelName.of_job(job)
    return [
        checkpoint
        for checkpoint in reversed(store.list_checkpoints(job["id"]))
        if Path(checkpoint["path"]).is_dir() and str(name.at_step(checkpoint["step"])) not in gone
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedWeights:
    """Weights that can be taken away."""

    model: str
    """`ft:…`, its name."""
    step: int
    place: str
    """Where `find_weights` finds them."""


def checkpoint_named(store: Store, job: Mapping[str, Any], named: str, *, param: str) -> SavedWeights:
    """The checkpoint of that id or model name, or (`result`) what the job ended with.

    Raises UserError (`not_found`) where there is none.
    """
    result = str(ModelName.of_job(job)) if job.get("fine_tuned_model") else None
    if result is not None and named in (result, RESULT) and result not in job.get(DELETED, ()):
        return SavedWeights(model=result, step=published_step(job["id"]), place=job["id"])
    kept = kept_checkpoints(store, job)
    for one in kept:
        model = str(ModelName.of_job(job).at_step(one["step"]))
        if named in (one["id"], model):
            return SavedWeights(model=model, step=one["step"], place=one["path"])
    known = ", ".join(f"{one['id']} (step {one['step']})" for one in kept[:5])
    raise UserError(
        f"the job has no checkpoint {named[:200]!r}; expected one of those it keeps: {known or 'none yet'}, or "
        f"`{RESULT}` once it has succeeded",
        param=param,
        code="not_found",
    )


def weights_archive(job: Mapping[str, Any], saved: SavedWeights, *, format: WeightsFormat) -> Archive:
    """The weights as a tar; the caller closes it. Raises as the functions of `export` do."""
    weights = replace(find_weights(saved.place), name=saved.model)
    asked_for = str((job.get("request") or {}).get("model") or base_name(job["spec"]["model"]))
    card = {
        "model": saved.model,
        "base_model": asked_for,
        "job": job["id"],
        "step": saved.step,
        "bundle": weights.bundle,
        "system": job["spec"]["agent"]["system"],
    }
    name = f"{base_name(asked_for)}-{ModelName.of_job(job).job_prefix}-step-{saved.step}"
    if format == "merged":
        return merged_archive(weights, name=f"{name}-merged", base_model=asked_for, card=card)
    return adapter_archive(weights, name=name, base_model=asked_for, card=card)
