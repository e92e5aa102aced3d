"""What a job that ends leaves for its owner: the result file, and what it used."""

from __future__ import annotations

import sys

from sqlalchemy import update

from agentrft.home import home
from agentrft.jobs.job_object import usage_fields
from agentrft.jobs.result_file import result_csv
from agentrft.store import Artifacts, SqlStore
from agentrft.store.files import FileBytes, Files
from agentrft.store.schema import JOBS

PURPOSE = "fine-tune-results"


def write_result_file(store: SqlStore, job_id: str) -> str | None:
    """Keep the job's metrics as a file of its project, and its usage; returns the file's id, None without metrics.

    Call it before the status becomes final, with the store as the job's owner may use it. Once is enough: a job that
    has its file keeps it. Raises StoreFault when the store or the disk refuses.
    """
    job = store.get_job(job_id)
    if job.get("result_files"):
        return job["result_files"][0]
    metrics = store.list_metrics(job_id)
    if not metrics or job["kind"] == "evaluation":
        return None
    # A project that is full is refused uploads, not its results.
    files = Files(store.database, FileBytes(Artifacts(home() / "files"), project_bytes=sys.maxsize))
    draft = files.draft()
    try:
        draft.write(result_csv(job["kind"], metrics).encode())
        draft.finish()
        with store.database.write(job_id) as connection:
            row = store.database.job_row(connection, job_id, lock=True)
            file = files.add_row(connection, row.project_id, draft, "step_metrics.csv", PURPOSE, None)
            document = {**row.document, **usage_fields(metrics), "result_files": [file.id]}
            connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(document=document))
    finally:
        draft.discard()
    return file.id
