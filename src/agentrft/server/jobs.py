"""`/fine_tuning/jobs`: create, list, look, pause, resume and cancel."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request

from agentrft.errors import UserError
from agentrft.jobs import control
from agentrft.jobs.create_body import BodyRules
from agentrft.jobs.job_object import estimated_finish, job_object
from agentrft.jobs.names import is_trained, resolve_alias
from agentrft.jobs.submit import Terms, submit
from agentrft.server.auth import Caller, allow
from agentrft.server.errors import ApiError
from agentrft.server.idempotency import once_of
from agentrft.server.job_models import Job, JobRequest, Jobs
from agentrft.server.models import base_models, find_trained
from agentrft.server.state import ServerState, state_of

router = APIRouter(prefix="/fine_tuning/jobs", tags=["Fine-tuning"])
Reader = Annotated[Caller, Depends(allow("jobs:read"))]
Writer = Annotated[Caller, Depends(allow("jobs:write"))]

_PURPOSE = "fine-tune"
_PACE_EVENTS = 20
"""Metrics by which the end of a running job is foretold."""


@router.post("", response_model=Job)
def create_job(request: Request, body: JobRequest, caller: Writer) -> Any:
    """Check a job and queue it; 400 with the `param` to blame for one that could not run."""
    state = state_of(request)
    terms = Terms(
        network=state.policy,
        resolve_model=_resolver(state, caller),
        rules=BodyRules(min_examples=state.config.min_examples, judge_urls=state.config.judge_urls),
    )
    given = body.model_dump(exclude_unset=True)
    find = _finder(state, caller)
    made = submit(state.store, given, project=caller.project, find_file=find, terms=terms, token=once_of(request))
    _wake(state)
    return job_object(made)


@router.get("", response_model=Jobs)
def list_jobs(
    request: Request,
    caller: Reader,
    after: str | None = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    metadata: Annotated[Literal["null"] | None, Query(description="`null`: jobs without metadata.")] = None,
) -> Any:
    """The project's jobs, newest first; `metadata[KEY]=VALUE` keeps those that have all of these pairs."""
    store = state_of(request).store
    wanted = metadata or _pairs(request.query_params) or None
    jobs: list[dict[str, Any]] = []
    while len(jobs) <= limit:
        page = store.list_jobs(limit=limit + 1, after=after, project=caller.project, metadata=wanted)
        jobs += [job for job in page if job["kind"] != "evaluation"]  # which have no job object
        if len(page) <= limit:
            break
        after = page[-1]["id"]
    return {"data": [job_object(job) for job in jobs[:limit]], "has_more": len(jobs) > limit}


@router.get("/{fine_tuning_job_id}", response_model=Job)
def retrieve_job(request: Request, fine_tuning_job_id: str, caller: Reader) -> Any:
    """One job as it is now."""
    state = state_of(request)
    return _shown(state, _job(state, fine_tuning_job_id, caller))


@router.post("/{fine_tuning_job_id}/pause", response_model=Job)
def pause_job(request: Request, fine_tuning_job_id: str, caller: Writer) -> Any:
    """Ask for a checkpoint and a pause; the job as it is after ten seconds at most, maybe still `running`."""
    state = state_of(request)
    _job(state, fine_tuning_job_id, caller)
    return _shown(state, control.pause(state.store, fine_tuning_job_id, project=caller.project))


@router.post("/{fine_tuning_job_id}/resume", response_model=Job)
def resume_job(request: Request, fine_tuning_job_id: str, caller: Writer) -> Any:
    """Queue a paused job again; it goes on from its newest checkpoint."""
    state = state_of(request)
    _job(state, fine_tuning_job_id, caller)
    job = control.resume(state.store, fine_tuning_job_id, project=caller.project)
    _wake(state)
    return _shown(state, job)


@router.post("/{fine_tuning_job_id}/cancel", response_model=Job)
def cancel_job(request: Request, fine_tuning_job_id: str, caller: Writer) -> Any:
    """End a job for good; its checkpoints stay."""
    state = state_of(request)
    _job(state, fine_tuning_job_id, caller)
    job = control.cancel(state.store, fine_tuning_job_id, project=caller.project)
    _wake(state)
    return _shown(state, job)


def _wake(state: ServerState) -> None:
    """Something changed that the scheduler would see within its interval anyway."""
    if state.scheduler is not None:
        state.scheduler.wake()


def _job(state: ServerState, job_id: str, caller: Caller) -> dict[str, Any]:
    job = state.store.get_job(job_id, project=caller.project)
    if job["kind"] == "evaluation":
        message = f"{job_id} is an evaluation, not a fine-tuning job; look at it with `agentrft jobs show {job_id}`"
        raise ApiError(404, message, param="fine_tuning_job_id", code="not_found")
    return job


def _shown(state: ServerState, job: Mapping[str, Any]) -> dict[str, Any]:
    if job["status"] != "running":
        return job_object(job)
    events = state.store.list_events(job["id"], limit=_PACE_EVENTS, newest_first=True)
    metrics = [event for event in events if event["type"] == "metrics"]
    return job_object(job, estimated_finish=estimated_finish(job, metrics))


def _pairs(query: Mapping[str, str]) -> dict[str, str]:
    """`metadata[KEY]=VALUE` of a query."""
    return {
        name.removeprefix("metadata[").removesuffix("]"): value
        for name, value in query.items()
        if name.startswith("metadata[") and name.endswith("]")
    }


def _finder(state: ServerState, caller: Caller) -> Callable[[str, str], Path]:
    def find(file_id: str, param: str) -> Path:
        try:
            file = state.files.get(caller.project, file_id)
            path = state.files.path(file)
        except UserError as error:
            message = (
                f"`{param}`: no file {file_id!r} in this project; upload it with purpose `fine-tune`, and give its id"
            )
            raise UserError(message, param=param, code=error.code) from None
        if file.purpose != _PURPOSE:
            raise UserError(
                f"`{param}`: the file {file_id} has the purpose {file.purpose!r}; expected {_PURPOSE!r}. Upload it "
                "again with that purpose",
                param=param,
                code="invalid_file_purpose",
            )
        return path

    return find


def _resolver(state: ServerState, caller: Caller) -> Callable[[str], str]:
    """Names as this caller may mean them: aliases, models of this server, and what it may use of what jobs trained."""

    def resolve(name: str) -> str:
        meant = resolve_alias(name, state.config.aliases)
        if is_trained(meant):
            weights = find_trained(state, caller, meant).weights()
            return str(weights.trained or weights.folder)  # a model whose weights were all trained stands alone
        if meant == name and name not in base_models(state.config):
            raise UserError(
                f"`model`: the model {name[:200]!r} does not exist or you do not have access to it; expected one that "
                "GET /v1/models lists. Ask the operator to add it, or an alias for it",
                param="model",
                code="model_not_found",
            )
        return meant

    return resolve
