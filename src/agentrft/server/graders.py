"""`/fine_tuning/alpha/graders/run` and `…/validate`: a grader tried on one sample, before a job depends on it.

What a job may not say over the network may not be said here either (`jobs.remote`); endpoints are asked under the
server's network policy, Python runs in its sandbox.
"""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from agentrft.data.jsonl import RowFault
from agentrft.data.rows import id_of, messages_of, tools_of
from agentrft.engines.openai_chat import open_judge
from agentrft.errors import BoundaryError, UserError
from agentrft.graders import AnySpec, LabelModelSpec, ScoreModelSpec, build_grader, grade_sample, parse_grader
from agentrft.home import home
from agentrft.jobs.remote import check_remote_grader
from agentrft.jobs.trace import json_safe
from agentrft.server.auth import Caller, allow
from agentrft.server.state import ServerState, state_of
from agentrft.types import Grade, GradeError, Item, Sample, TokenUsage

router = APIRouter(prefix="/fine_tuning/alpha/graders", tags=["Graders"])
Grading = Annotated[Caller, Depends(allow("graders:run"))]

MAX_WAIT_S = 300.0
"""Of one run, whatever the grader's own limits; endpoints and judges may be asked four times."""
_AT_ONCE, _WAITING_S = 16, 30.0
_SLOTS = threading.BoundedSemaphore(_AT_ONCE)


class GraderDocument(BaseModel):
    """A grader to look at, as it stands in a job."""

    grader: dict[str, Any] = Field(description="Any type of docs/graders.md; `endpoint` and `label_model` too.")


class GraderRunRequest(GraderDocument):
    """A grader with what it is to grade."""

    model_config = ConfigDict(protected_namespaces=())

    model_sample: str = Field(description="The answer; `sample.output_json` is what it says as JSON.")
    item: dict[str, Any] | None = Field(default=None, description="The row: `item.*` of templates.")
    trace_id: str | None = Field(default=None, min_length=1, max_length=200, description="For endpoint graders.")


class GraderErrors(BaseModel):
    """What kind of failure left the run without a number; all false for a number."""

    formula_parse_error: bool = False
    sample_parse_error: bool = False
    truncated_observation_error: bool = False
    unresponsive_reward_error: bool = False
    invalid_variable_error: bool = False
    other_error: bool = False
    python_grader_server_error: bool = False
    python_grader_server_error_type: str | None = None
    python_grader_runtime_error: bool = False
    python_grader_runtime_error_details: str | None = None
    model_grader_server_error: bool = False
    model_grader_server_error_details: str | None = None
    model_grader_refusal_error: bool = False
    model_grader_parse_error: bool = False


class ModelTokens(BaseModel):
    """Tokens that one judge took."""

    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    total_tokens: int


class GraderRunMetadata(BaseModel):
    """How the number came about."""

    name: str
    type: str
    execution_time: float = Field(description="Seconds.")
    scores: dict[str, float]
    token_usage: int | None = Field(description="Of all judges; null where none was asked.")
    sampled_model_name: str | None
    errors: GraderErrors
    reason: str | None = Field(description="Ours: why there is no number, in words.")


class GraderRun(BaseModel):
    """OpenAI's answer; `reward` is 0 where there is no number, and `metadata.errors` says why."""

    model_config = ConfigDict(protected_namespaces=())

    reward: float
    sub_rewards: dict[str, float]
    model_grader_token_usage_per_model: dict[str, ModelTokens]
    metadata: GraderRunMetadata


@router.post("/validate", response_model=GraderDocument)
def validate_grader(request: Request, body: GraderDocument, caller: Grading) -> Any:
    """The grader as it is understood, defaults filled in and headers masked; 400 for what cannot be used."""
    state = state_of(request)
    spec, network = _spec(body.grader, state), state.policy

    async def build_and_close() -> None:
        await build_grader(spec, home(), open_judge=open_judge, network=network).close()

    with _turn():
        asyncio.run(build_and_close())
    return json_safe({"grader": spec.model_dump(mode="json", exclude_none=True)})


@router.post("/run", response_model=GraderRun)
def run_grader(request: Request, body: GraderRunRequest, caller: Grading) -> Any:
    """What the grader says of one sample."""
    state = state_of(request)
    spec, item, network = _spec(body.grader, state), item_of(body.item or {}), state.policy
    trace_id = body.trace_id or f"trace_{uuid.uuid4()}"

    async def grade() -> Grade:
        grader = build_grader(spec, home(), open_judge=open_judge, network=network)
        try:
            async with asyncio.timeout(MAX_WAIT_S):
                return await grade_sample(grader, Sample(output_text=body.model_sample), item, trace_id)
        except TimeoutError:
            reason = f"no grade within {MAX_WAIT_S:g} s"
            return Grade(value=None, reason=reason, error=GradeError.OTHER, wall_s=MAX_WAIT_S)
        finally:
            await grader.close()

    with _turn():
        # On a loop of its own: comparing long texts takes time in which the server must go on answering.
        return json_safe(run_object(spec, asyncio.run(grade())))


def run_object(spec: AnySpec, grade: Grade) -> dict[str, Any]:
    """A grade as `graders/run` answers it."""
    used = grade.token_usage
    return {
        "reward": 0.0 if grade.value is None else grade.value,
        "sub_rewards": dict(grade.sub_grades),
        "model_grader_token_usage_per_model": {model: _tokens(usage) for model, usage in used.items()},
        "metadata": {
            "name": spec.name,
            "type": spec.type,
            "execution_time": grade.wall_s,
            "scores": dict(grade.sub_grades) or ({} if grade.value is None else {spec.name: grade.value}),
            "token_usage": sum(usage.total_tokens for usage in used.values()) if used else None,
            "sampled_model_name": spec.model if isinstance(spec, ScoreModelSpec | LabelModelSpec) else None,
            "errors": _errors(grade),
            "reason": grade.reason,
        },
    }


def _errors(grade: Grade) -> dict[str, Any]:
    if grade.value is not None:
        return {}
    error = grade.error or GradeError.OTHER
    details: dict[str, Any] = {str(error): True}
    if error is GradeError.PYTHON_RUNTIME:
        details["python_grader_runtime_error_details"] = grade.traceback or grade.reason
    elif error is GradeError.PYTHON_SERVER:
        details["python_grader_server_error_type"] = grade.reason
    elif error is GradeError.MODEL_SERVER:
        details["model_grader_server_error_details"] = grade.reason
    return details


def _tokens(usage: TokenUsage) -> dict[str, int]:
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "cached_tokens": usage.cached_tokens,
        "total_tokens": usage.total_tokens,
    }


class BusyGrading(BoundaryError):
    """Too many graders are being tried at this moment."""

    boundary = "graders"


@contextmanager
def _turn() -> Iterator[None]:
    """One of the runs that the server has threads for; raises BusyGrading when there is none for long."""
    if not _SLOTS.acquire(timeout=_WAITING_S):
        raise BusyGrading("the server tries as many graders as it can")
    try:
        yield
    finally:
        _SLOTS.release()


def _spec(document: Mapping[str, Any], state: ServerState) -> AnySpec:
    """The grader of a document; raises UserError for one that is none, or not to be had over the network."""
    spec = parse_grader(document)
    check_remote_grader(spec, judge_urls=state.config.judge_urls)
    return spec


def item_of(row: Mapping[str, Any]) -> Item:
    """The row as training reads it, as far as it is one: here it needs neither messages nor a question at its end.

    Raises UserError for messages or tools that are none.
    """
    try:
        messages = messages_of(row) if row.get("messages") else ()
        tools = tools_of(row)
        item_id = id_of(row, 0)
    except RowFault as fault:
        raise UserError(f"`item`: {fault.what}; next step: {fault.step}", param="item", code="invalid_row") from None
    fields = {key: value for key, value in row.items() if key not in ("messages", "tools")}
    return Item(id=item_id, messages=messages, tools=tools, fields=fields)
