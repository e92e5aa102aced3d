"""`/fine_tuning/jobs/{id}/events` and `…/metrics`: what a job says while it runs, in pages or as it happens."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Query, Request
from pydantic import BaseModel, Field

from agentrft.jobs.event_object import event_object
from agentrft.server.auth import Caller, allow
from agentrft.server.follow import follow
from agentrft.server.state import state_of

router = APIRouter(tags=["Fine-tuning"])
Reader = Annotated[Caller, Depends(allow("jobs:read"))]


class JobEvent(BaseModel):
    """One thing that happened to a job."""

    id: str
    object: Literal["fine_tuning.job.event"] = "fine_tuning.job.event"
    created_at: int
    level: Literal["info", "warn", "error"]
    message: str
    type: Literal["message", "metrics"]
    data: dict[str, Any] | None = Field(description="Metrics have OpenAI's keys and ours; docs/jobs.md lists them.")


class JobEvents(BaseModel):
    """A page of events, newest first."""

    object: Literal["list"] = "list"
    data: list[JobEvent]
    has_more: bool


class StepMetrics(BaseModel):
    """Everything measured at one optimiser step."""

    step: int
    metrics: dict[str, float | None] = Field(description="null: the value was no finite number.")


class JobMetrics(BaseModel):
    """Metrics by step, first step first."""

    object: Literal["list"] = "list"
    data: list[StepMetrics]
    has_more: bool


@router.get(
    "/fine_tuning/jobs/{fine_tuning_job_id}/events",
    response_model=JobEvents,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
def list_events(
    request: Request,
    fine_tuning_job_id: str,
    caller: Reader,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    stream: Annotated[bool, Query(description="Server-sent events, oldest first, until the job is final.")] = False,
    last_event_id: Annotated[str | None, Header(description="Where a stream goes on.")] = None,
) -> Any:
    """Events, newest first; with `stream=true` as server-sent events while they happen."""
    state = state_of(request)
    store = state.store
    store.get_job(fine_tuning_job_id, project=caller.project)
    if stream:
        return follow(state, fine_tuning_job_id, after=last_event_id or after)
    found = store.list_events(fine_tuning_job_id, after=after, limit=limit + 1, newest_first=True)
    return {"data": [event_object(event) for event in found[:limit]], "has_more": len(found) > limit}


@router.get("/fine_tuning/jobs/{fine_tuning_job_id}/metrics", response_model=JobMetrics)
def list_metrics(
    request: Request,
    fine_tuning_job_id: str,
    caller: Reader,
    after: Annotated[int, Query(ge=-1, le=2**31 - 1, description="The last step of the page before.")] = -1,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
) -> Any:
    """Every figure of every step, under our own names (docs/training.md)."""
    store = state_of(request).store
    store.get_job(fine_tuning_job_id, project=caller.project)
    found = store.list_metrics(fine_tuning_job_id, after=after, limit=limit + 1)
    return {"data": found[:limit], "has_more": len(found) > limit}
