"""`/fine_tuning/jobs/{id}/checkpoints`: what a job has saved, and its weights to take away."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict
from starlette.background import BackgroundTask

from agentrft.jobs.checkpoints import checkpoint_named, checkpoints_of, weights_archive
from agentrft.server.auth import Caller, allow
from agentrft.server.errors import not_found
from agentrft.server.paging import ListPage, list_page
from agentrft.server.state import state_of

router = APIRouter(prefix="/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints", tags=["Fine-tuning"])
Reader = Annotated[Caller, Depends(allow("jobs:read"))]


class CheckpointMetrics(BaseModel):
    """What was measured at the step; reinforcement has rewards beside these."""

    model_config = ConfigDict(extra="allow")

    step: int
    train_loss: float | None
    train_mean_token_accuracy: float | None
    valid_loss: float | None
    valid_mean_token_accuracy: float | None
    full_valid_loss: float | None
    full_valid_mean_token_accuracy: float | None


class JobCheckpoint(BaseModel):
    """OpenAI's `fine_tuning.job.checkpoint`."""

    id: str
    object: Literal["fine_tuning.job.checkpoint"]
    created_at: int
    fine_tuned_model_checkpoint: str
    fine_tuning_job_id: str
    metrics: CheckpointMetrics
    step_number: int


@router.get("", response_model=ListPage[JobCheckpoint])
def list_checkpoints(
    request: Request,
    fine_tuning_job_id: str,
    caller: Reader,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 10,
) -> Any:
    """The checkpoints that are still kept, newest first."""
    store = state_of(request).store
    job = store.get_job(fine_tuning_job_id, project=caller.project)
    found = checkpoints_of(store, job)
    if after is not None:
        steps = [one["step_number"] for one in found if one["id"] == after]
        if not steps:
            raise not_found("checkpoint", after, param="after")
        found = [one for one in found if one["step_number"] < steps[0]]
    return list_page(found[:limit], len(found) > limit)


@router.get(
    "/{checkpoint_id}/download",
    response_class=StreamingResponse,
    responses={200: {"content": {"application/x-tar": {"schema": {"type": "string", "format": "binary"}}}}},
)
def download_checkpoint(
    request: Request,
    fine_tuning_job_id: str,
    checkpoint_id: str,
    caller: Reader,
    format: Annotated[
        Literal["adapter", "merged"], Query(description="merged: a whole model, ready to load.")
    ] = "adapter",
) -> Any:
    """The weights of a checkpoint, or of the `result`, as a tar: a PEFT adapter, or a whole model.

    A job that trains all weights has no adapter: it gives the whole model either way.
    """
    store = state_of(request).store
    job = store.get_job(fine_tuning_job_id, project=caller.project)
    archive = weights_archive(job, checkpoint_named(store, job, checkpoint_id, param="checkpoint_id"), format=format)
    headers = {
        "content-disposition": f'attachment; filename="{archive.name}.tar"',
        "content-length": str(archive.n_bytes),
    }
    return StreamingResponse(
        archive.pieces(), media_type="application/x-tar", headers=headers, background=BackgroundTask(archive.close)
    )
