"""The answers of `/fine_tuning/jobs`, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

JobStatus = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]


class JobError(BaseModel):
    """Why a job failed, or waits."""

    code: str
    message: str
    param: str | None


class JobHyperparameters(BaseModel):
    """The three that every method has."""

    batch_size: Literal["auto"] | int | None = None
    learning_rate_multiplier: Literal["auto"] | float | None = None
    n_epochs: Literal["auto"] | float | None = None


class JobMethod(BaseModel):
    """How the job trains, as it was asked for; secrets are masked."""

    type: Literal["supervised", "dpo", "reinforcement"]
    supervised: dict[str, Any] | None = None
    dpo: dict[str, Any] | None = None
    reinforcement: dict[str, Any] | None = None


class JobUsage(BaseModel):
    """What a job that ended has used. Ours."""

    tokens_generated: int
    judge_tokens: int
    training_s: float


class Job(BaseModel):
    """OpenAI's `fine_tuning.job`; `status` may also be `paused`."""

    id: str
    object: Literal["fine_tuning.job"]
    created_at: int
    finished_at: int | None
    estimated_finish: int | None
    model: str
    fine_tuned_model: str | None
    organization_id: str
    status: JobStatus
    error: JobError | None
    hyperparameters: JobHyperparameters
    method: JobMethod
    training_file: str
    validation_file: str | None
    result_files: list[str]
    trained_tokens: int | None
    seed: int
    integrations: list[dict[str, Any]]
    metadata: dict[str, str]
    user_provided_suffix: str | None
    usage_metrics: JobUsage | None


class Jobs(BaseModel):
    """A page of jobs, newest first."""

    object: Literal["list"] = "list"
    data: list[Job]
    has_more: bool


class JobRequest(BaseModel):
    """The create body. Its fields are checked one by one (docs/openai-api.md), so that errors name them."""

    model_config = ConfigDict(extra="allow")

    model: Any = Field(description="A name that GET /v1/models lists, an alias, a hub model or `ft:…` to go on with.")
    training_file: Any = Field(default=None, description="Id of an uploaded file, purpose `fine-tune`.")
    validation_file: Any = None
    method: Any = Field(default=None, description="`{type, supervised | dpo | reinforcement: {hyperparameters, …}}`.")
    suffix: Any = None
    seed: Any = None
    metadata: Any = None
    integrations: Any = None
    hyperparameters: Any = Field(default=None, description="Deprecated: the supervised three.")
