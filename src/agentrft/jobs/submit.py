"""A job from the network: the create body and its files, checked as `agentrft check` would, then stored and queued.

The server and `agentrft run --server` meet here. Everything that can be known before a model is loaded is known before
the answer: a bad job is a UserError whose `param` is a path in the body, and whose text names files by their ids.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentrft.errors import BoundaryError, UserError
from agentrft.jobs.body_paths import error_in_body, message_in_body
from agentrft.jobs.check import CheckReport, check_job
from agentrft.jobs.create_body import ApiJob, BodyRules, job_from_body
from agentrft.jobs.inputs import Inputs
from agentrft.jobs.service import StoredJob, create_job, job_id_of
from agentrft.net.policy import NetworkPolicy
from agentrft.protocols import Store

CHECKS_AT_ONCE = 4
CHECK_S = 60.0
"""Millions of rows take longer than clients wait; a worker checks them then, and the job says what it found."""
_WAITING_S = 30.0

_SLOTS = threading.BoundedSemaphore(CHECKS_AT_ONCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an operator lets jobs from the network do."""

    network: NetworkPolicy
    """Which addresses their tools and graders may ask."""
    resolve_model: Callable[[str], str]
    """The model that a name stands for; raises UserError."""
    rules: BodyRules = field(default_factory=BodyRules)
    check_s: float = CHECK_S


FindFile = Callable[[str, str], Path]
"""(file id, field that names it) → the stored bytes; raises UserError for a file that the project does not have."""


def submit(
    store: Store, body: Mapping[str, Any], *, project: str, find_file: FindFile, terms: Terms, token: str | None = None
) -> dict[str, Any]:
    """The stored job that the create body asks for, checked and queued.

    `token` names one intention: the same again gives the job that it has made already. Raises UserError for a bad job;
    nothing is kept of it.
    """
    fixed_id = None if token is None else job_id_of({"token": token, "project": project}, 0)
    if fixed_id is not None and (made := _job_made(store, fixed_id, project)):
        return made
    with Inputs() as inputs:

        def add(file_id: str, param: str) -> str:
            return inputs.add(file_id, find_file(file_id, param))

        asked = job_from_body(
            body, base_dir=inputs.folder, files=add, resolve_model=terms.resolve_model, rules=terms.rules
        )
        report = _checked(asked, body, inputs.folder, terms)
        status = "validating_files" if report is None else "queued"
        extra = {"project_id": project, "runner": "server", "request": asked.request, "status": status}
        job = create_job(store, asked.spec, inputs.folder, extra=extra, fixed_id=fixed_id)
    _tell(store, job, asked, report)
    return store.get_job(job.id, project=project)


def _job_made(store: Store, job_id: str, project: str) -> dict[str, Any] | None:
    """What the same intention made before its answer got lost."""
    try:
        return store.get_job(job_id, project=project)
    except UserError:
        return None


def _checked(asked: ApiJob, body: Mapping[str, Any], folder: Path, terms: Terms) -> CheckReport | None:
    """What `check_job` found; None when it takes longer than clients wait, and is a worker's task then.

    In a thread of its own, because nothing can end one that reads a file without end.
    """
    if not _SLOTS.acquire(timeout=_WAITING_S):
        raise BusyChecking("the server is checking as many jobs as it can")
    done: queue.SimpleQueue[CheckReport | BaseException] = queue.SimpleQueue()

    def check() -> None:
        try:
            done.put(check_job(asked.spec, folder, network=terms.network))
        except BaseException as error:  # raised again where somebody waits for it
            done.put(error)
        finally:
            _SLOTS.release()

    threading.Thread(target=check, name="job-check", daemon=True).start()
    try:
        outcome = done.get(timeout=terms.check_s)
    except queue.Empty:
        return None
    if isinstance(outcome, BaseException):
        raise outcome
    try:
        outcome.raise_problems()
    except UserError as error:
        raise error_in_body(error, body, folder) from None
    return outcome


class BusyChecking(BoundaryError):
    """Too many jobs are being checked at this moment."""

    boundary = "checks"


def _tell(store: Store, job: StoredJob, asked: ApiJob, report: CheckReport | None) -> None:
    """What was chosen for the user, and what the checks warn about, as the job's first events."""
    with suppress(BoundaryError):  # the job is there, whether or not these words are
        for note in asked.notes:
            store.add_event(job.id, note)
        for warning in report.warnings if report else ():
            store.add_event(job.id, message_in_body(warning, asked.request, job.base_dir), level="warn")
