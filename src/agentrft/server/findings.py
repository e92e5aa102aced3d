"""What was found about a job's agent: its diagnosis, the decision made from it, and its optimisation."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel

from agentrft.jobs.service import StoredJob, stored_job
from agentrft.jobs.trace import json_safe
from agentrft.ladder.decided import latest_decision
from agentrft.runtime.diagnosed import latest_diagnosis
from agentrft.server.auth import Caller, allow
from agentrft.server.errors import ApiError
from agentrft.server.state import state_of

router = APIRouter(prefix="/fine_tuning/jobs", tags=["Findings"])

Reading = Annotated[Caller, Depends(allow("jobs:read"))]


class Findings(BaseModel):
    """One document of each kind, as docs/diagnose.md, docs/decide.md and docs/optimise.md have it; null where none."""

    object: Literal["fine_tuning.job.findings"] = "fine_tuning.job.findings"
    job_id: str
    diagnosis: dict[str, Any] | None
    decision: dict[str, Any] | None
    optimisation: dict[str, Any] | None


@router.get("/{job_id}/findings", response_model=Findings)
def findings(request: Request, job_id: str, caller: Reading) -> Any:
    """The newest of each; 404 for a job that has none."""
    store = state_of(request).store
    row = store.get_job(job_id, project=caller.project)
    job: StoredJob = stored_job(store, job_id)
    found = Findings(
        job_id=job_id,
        diagnosis=latest_diagnosis(job),
        decision=latest_decision(job),
        optimisation=(row.get("optimisation") or {}).get("report"),
    )
    if found.diagnosis is None and found.decision is None and found.optimisation is None:
        raise ApiError(
            404,
            f"job {job_id} has no findings; `agentrft diagnose` and `agentrft optimise` make some",
            param="job_id",
            code="not_found",
        )
    return json_safe(found.model_dump(mode="json"))
