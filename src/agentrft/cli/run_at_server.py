"""`agentrft run JOB --server URL`: the job of a file at a server, with the same lines to watch it by."""

from __future__ import annotations

import os
from pathlib import Path

from agentrft.cli.console import err, note
from agentrft.cli.desk import KEY, check_new
from agentrft.cli.jobref import is_job_id
from agentrft.cli.jobs import follow_to_end, take_away
from agentrft.cli.progress import Display
from agentrft.cli.server_desk import ServerDesk
from agentrft.jobs.load import load_job
from agentrft.jobs.probe import missing_grader
from agentrft.jobs.to_body import body_of


def run_at_server(url: str, job: str, start_from: str | None, method: str | None, download: Path | None) -> None:
    """Upload the job file's data, create the job (or resume a stored one), follow it to its end, take the result away.

    Raises UserError as the server words it: its `param` is a field of the create body.
    """
    if download is not None:
        check_new(download, option="--download")
    desk = ServerDesk(url, os.environ.get(KEY))
    try:
        job_id = desk.resume(desk.find(job)).id if is_job_id(job) else _created(desk, job, start_from, method)
        ended = follow_to_end(desk, job_id)
        if download is not None and ended.status == "succeeded":
            take_away(desk, job_id, "result", "adapter", download)
    finally:
        desk.close()


def _created(desk: ServerDesk, job: str, start_from: str | None, method: str | None) -> str:
    """The id of the new job at the server."""
    spec, base_dir = load_job(job)
    if method:
        spec = spec.model_copy(update={"method": spec.method.model_copy(update={"type": method})})
        if spec.method.type == "reinforcement" and spec.method.reinforcement is None:
            raise missing_grader()
    if start_from:
        spec = spec.model_copy(update={"model": start_from})
    if spec.method.type == "reinforcement" and spec.data.demonstrations:
        note("data.demonstrations stays here: beside reinforcement only the ladder and the audit read it")
    with Display(err()) as display:
        with display.task("uploading files"):
            body = body_of(spec, base_dir, desk.upload)
        with display.task("the server checks the job"):
            made = desk.create(body)
    note(f"{made.id}: {made.kind} fine-tuning of {made.model}")
    return made.id
