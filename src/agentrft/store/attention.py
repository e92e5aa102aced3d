"""Which jobs a scheduler has to look at: those that somebody holds, wait for their checks, or are wanted otherwise."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import or_, select

from agentrft.store.schema import JOBS
from agentrft.store.sql_store import SqlStore

_MOST = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenJob:
    """A job that servers run and that is not final."""

    id: str
    status: str
    wish: str | None
    owner: str | None
    token: int
    lease_until: float | None
    restarts: int
    """Times that its worker died since the last checkpoint."""


def jobs_to_attend(store: SqlStore) -> list[OpenJob]:
    """A thousand at most, those that somebody holds first, then oldest first; StoreFault when the store refuses."""
    columns = [JOBS.c[name] for name in OpenJob.__dataclass_fields__]
    query = (
        select(*columns)
        .where(JOBS.c.runner == "server", JOBS.c.status.in_(("validating_files", "queued", "running", "paused")))
        .where(or_(JOBS.c.owner.is_not(None), JOBS.c.wish.is_not(None), JOBS.c.status.in_(_RESTLESS)))
        .order_by(JOBS.c.owner.is_(None), JOBS.c.seq)
        .limit(_MOST)
    )
    with store.database.read() as connection:
        return [OpenJob(**row._mapping) for row in connection.execute(query)]


_RESTLESS = ("validating_files", "running")
"""Statuses in which somebody ought to hold a job."""


def fulfil_wish(store: SqlStore, job_id: str) -> None:
    """Do what is wanted of a job that nobody holds, in the transaction that finds it so: a resume may come between."""
    with store.database.write(job_id) as connection:
        row = store.database.job_row(connection, job_id, lock=True)
        if row.owner is not None or row.wish != "pause":
            return
        if row.status == "queued":
            store._move(connection, row, "paused")
        elif row.status == "paused":
            store._set(connection, job_id, wish=None)
