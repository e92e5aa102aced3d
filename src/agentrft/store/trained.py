"""What jobs have trained: the rows that the names of models are made from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, select

from agentrft.store.database import Database
from agentrft.store.schema import CHECKPOINTS, JOBS

DELETED = "deleted_models"
"""Key of a job's document: names of its models that their owner has deleted."""


class Trained:
    """Queries on jobs that have left weights behind; each job as `get_job` gives it, with its `checkpoints`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def of_project(self, project: str) -> list[dict[str, Any]]:
        """The project's jobs that succeeded or have checkpoints, oldest first."""
        return self._jobs(JOBS.c.project_id == project)

    def with_ids(self, job_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Those of these jobs that succeeded or have checkpoints, oldest first, whosever they are."""
        return self._jobs(JOBS.c.id.in_(job_ids)) if job_ids else []

    def with_prefix(self, job_id_prefix: str) -> list[dict[str, Any]]:
        """The jobs whose ids begin so, whosever they are; more than one only by the rarest chance."""
        return self._jobs(JOBS.c.id.startswith(job_id_prefix, autoescape=True))

    def _jobs(self, which: ColumnElement[bool]) -> list[dict[str, Any]]:
        query = select(JOBS).where(which).order_by(JOBS.c.seq)
        with self._database.read() as connection:
            jobs = {
                row.id: {
                    **row.document,
                    "id": row.id,
                    "project_id": row.project_id,
                    "status": row.status,
                    "finished_at": row.finished_at,
                    "checkpoints": [],
                }
                for row in connection.execute(query)
            }
            checkpoints = select(CHECKPOINTS).join(JOBS, JOBS.c.id == CHECKPOINTS.c.job_id).where(which)
            for row in connection.execute(checkpoints.order_by(CHECKPOINTS.c.step)):
                found = {"step": row.step, "path": row.path, "created_at": row.created_at}
                jobs[row.job_id]["checkpoints"].append(found)
        return [job for job in jobs.values() if job["status"] == "succeeded" or job["checkpoints"]]
