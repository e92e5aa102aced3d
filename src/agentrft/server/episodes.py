"""`/fine_tuning/jobs/{id}/episodes`: every trajectory of a job, with its grade, reward and exact tokens. Ours."""

from __future__ import annotations

from dataclasses import fields
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from agentrft.jobs.episodes import episode_of, episodes_of, export
from agentrft.jobs.trace import episode_detail, episode_object
from agentrft.protocols import EpisodeFilter
from agentrft.server.auth import Caller, allow
from agentrft.server.state import state_of
from agentrft.types import StopReason

router = APIRouter(prefix="/fine_tuning/jobs/{fine_tuning_job_id}/episodes", tags=["Episodes"])
Reader = Annotated[Caller, Depends(allow("jobs:read"))]
Reward = Annotated[float, Field(allow_inf_nan=False)]

JSONL = "application/jsonl"


class EpisodeGrade(BaseModel):
    """A number, or why there is none."""

    value: float | None
    reason: str | None
    error: str | None
    is_fault: bool
    sub_grades: dict[str, float]
    clipped: dict[str, float]
    substituted: str | None
    wall_s: float


class Episode(BaseModel):
    """One run of the agent on one item."""

    id: str
    object: Literal["fine_tuning.job.episode"]
    fine_tuning_job_id: str
    step: int
    phase: Literal["train", "validation", "test"]
    stage: str = Field(description="Which weights played it.")
    split: str | None = Field(description="Which file the item is of, where the phase does not say.")
    item_id: str
    member: int
    attempt: int
    trace_id: str
    stop_reason: str
    fault: str | None
    n_turns: int
    n_calls: int
    n_tokens: int
    wall_s: float
    output_text: str | None
    grade: EpisodeGrade
    reward: float | None = Field(description="null: out of the loss.")
    advantage: float | None


class EpisodeTokens(BaseModel):
    """The exact tokens, in order; three lists of one length."""

    ids: list[int]
    trained: list[bool]
    log_probs: list[float | None]
    prompt_tokens: int
    policy_version: int


class Trace(BaseModel):
    """OpenAI's trace: a span for every reply and every call."""

    type: Literal["trace"]
    spans: list[dict[str, Any]]


class EpisodeDetail(Episode):
    """The same with everything that was said."""

    messages: list[dict[str, Any]]
    turns: list[dict[str, Any]]
    tokens: EpisodeTokens | None
    extra: dict[str, Any] = Field(description="What made up the reward and the credit.")
    trace: Trace


class Episodes(BaseModel):
    """A page of episodes, by step, in the order they were played."""

    object: Literal["list"] = "list"
    data: list[Episode]
    has_more: bool
    first_id: str | None
    last_id: str | None


class EpisodeQuery(BaseModel):
    """Which episodes, and how they are wanted."""

    step: Annotated[int, Field(ge=0, le=2**31 - 1)] | None = None
    item_id: Annotated[str, Field(max_length=10_000)] | None = None
    phase: Literal["train", "validation", "test"] | None = None
    stop_reason: StopReason | None = None
    min_reward: Reward | None = None
    max_reward: Reward | None = None
    after: str | None = None
    limit: int = Field(default=20, ge=1, le=100)
    format: Literal["json", "jsonl"] | None = Field(
        default=None, description="jsonl: all of them, in OpenAI's trace shape."
    )

    def filter(self) -> EpisodeFilter:
        """What the store is asked for."""
        return EpisodeFilter(**{field.name: getattr(self, field.name) for field in fields(EpisodeFilter)})


@router.get("", response_model=Episodes, responses={200: {"content": {JSONL: {"schema": {"type": "string"}}}}})
def list_episodes(
    request: Request,
    fine_tuning_job_id: str,
    caller: Reader,
    query: Annotated[EpisodeQuery, Query()],
) -> Any:
    """Episodes that are what is given; as `application/jsonl`, by `format` or `Accept`, all of them at once."""
    store = state_of(request).store
    store.get_job(fine_tuning_job_id, project=caller.project)
    wanted, limit = query.filter(), query.limit
    if query.format == "jsonl" or (query.format is None and JSONL in request.headers.get("accept", "")):
        lines = export(store, fine_tuning_job_id, wanted)
        name = f"{fine_tuning_job_id}-episodes.jsonl"
        return StreamingResponse(
            lines, media_type=JSONL, headers={"content-disposition": f'attachment; filename="{name}"'}
        )
    found = episodes_of(store, fine_tuning_job_id, wanted, after=query.after, limit=limit + 1)
    data = [episode_object(record) for record in found[:limit]]
    return {
        "data": data,
        "has_more": len(found) > limit,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
    }


@router.get("/{episode_id}", response_model=EpisodeDetail)
def retrieve_episode(request: Request, fine_tuning_job_id: str, episode_id: str, caller: Reader) -> Any:
    """One episode with every message, result and token."""
    store = state_of(request).store
    store.get_job(fine_tuning_job_id, project=caller.project)
    return episode_detail(episode_of(store, fine_tuning_job_id, episode_id))
