"""Jobs: their documents, their status, and who works on them.

A status changes through one function only, which checks the step and writes the event of it, and the webhook events of
a final one, in the same transaction. Whoever works on a job holds a fencing token: once another process has claimed the
job, nothing that the former owner still sends is kept.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from sqlalchemy import Connection, Row, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from agentrft.errors import UserError
from agentrft.store.database import Database
from agentrft.store.schema import DELIVERIES, EVENTS, JOBS, LOCAL_PROJECT, WEBHOOK_ENDPOINTS, WEBHOOK_EVENTS
from agentrft.store.states import FINAL, INITIAL, check_transition
from agentrft.store.values import finite, storable

Wish = Literal["pause", "cancel"]

_OWN = frozenset(
    {"status", "created_at", "finished_at", "error", "owner", "lease_until", "project_id", "runner", "wish", "restarts"}
)
"""Keys of a job that the store keeps itself, beside its `id` and the caller's document."""
_PAGE = 200


class JobTable:
    """The store's jobs; `SqlStore` adds what they leave behind."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @property
    def url(self) -> str:
        """The database, its password hidden."""
        return self.database.url

    def close(self) -> None:
        """Close the connections; safe to call twice. A fenced view shares them."""
        self.database.close()

    def fenced(self, job_id: str, token: int) -> Self:
        """The same store, as the holder of `token` may use it: it writes to this job only.

        Every write checks the token in its own transaction and raises StoreFault once the job was claimed anew.
        """
        return type(self)(self.database.fenced(job_id, token))

    # Documents

    def create_job(self, job: Mapping[str, Any]) -> None:
        """Keep a new job: `id`, and any other keys as its document.

        `status` may be given, else it is validating_files; so may `project_id` and `runner`: `cli`, or `server` for
        jobs that schedulers claim. Raises UserError when the id is taken. The first event is written with it.
        """
        job_id, now = job["id"], self.database.clock.now()
        status = job.get("status", INITIAL)
        row = {
            "id": job_id,
            "project_id": job.get("project_id", LOCAL_PROJECT),
            "runner": job.get("runner", "cli"),
            "status": status,
            "created_at": job.get("created_at", now),
            "document": {key: value for key, value in job.items() if key != "id" and key not in _OWN},
            "token": 0,
        }
        with self.database.write() as connection:
            try:
                connection.execute(insert(JOBS), row)
            except IntegrityError as error:
                raise UserError(
                    f"job {job_id} exists already; create it under another id", param="id", code="job_exists"
                ) from error
            self._event(connection, job_id, f"Created job {job_id}", "info", {"status": status})

    def get_job(self, job_id: str, *, project: str | None = None) -> dict[str, Any]:
        """The job's document, and id and what the store keeps itself: `status`, `wish`, `owner`, `restarts`, …

        Raises UserError (`not_found`) when there is no such job, or when it is another project's.
        """
        with self.database.read() as connection:
            return _job(self.database.job_row(connection, job_id, project=project))

    def list_jobs(
        self,
        *,
        limit: int = 20,
        after: str | None = None,
        project: str | None = None,
        metadata: Mapping[str, str] | Literal["null"] | None = None,
    ) -> list[dict[str, Any]]:
        """Jobs as `get_job` gives them, newest first; `after` is the id that the previous page ended with.

        `metadata` keeps jobs that have all of these pairs in their spec's, or, as "null", those that have none.
        """
        found: list[dict[str, Any]] = []
        with self.database.read() as connection:
            before = None if after is None else self.database.job_row(connection, after, project=project).seq
            for row in self._newest_first(connection, before, project, page=limit if metadata is None else _PAGE):
                if metadata is None or _matches(row, metadata):
                    found.append(_job(row))
                if len(found) >= limit:
                    break
        return found

    def update_job(self, job_id: str, fields: Mapping[str, Any]) -> None:
        """Set keys of the job's document (`fine_tuned_model`, `trained_tokens`, …).

        Raises ValueError for the keys that the store keeps itself, UserError when the job is unknown.
        """
        if own := sorted((_OWN | {"id"}) & fields.keys()):
            raise ValueError(f"update_job cannot set {', '.join(own)}; status has set_job_status")
        with self.database.write(job_id) as connection:
            row = self.database.job_row(connection, job_id, lock=True)
            self._set(connection, job_id, document={**row.document, **fields})

    def count_jobs(self) -> dict[str, int]:
        """Jobs by status; a status that no job has is absent."""
        with self.database.read() as connection:
            rows = connection.execute(select(JOBS.c.status, func.count()).group_by(JOBS.c.status)).all()
            return {row[0]: row[1] for row in rows}

    # Status

    def set_job_status(self, job_id: str, status: str, *, error: Mapping[str, Any] | None = None) -> None:
        """Move the job to `status` and write the event of it, in one transaction; the only way a status changes.

        `error` is OpenAI's `{code, message, param}`; None clears it. A wish is fulfilled, or void, once the job is
        paused or final. The same status again changes nothing. Raises UserError when the job is unknown or the step is
        not legal (`states.FOLLOWS`).
        """
        with self.database.write(job_id) as connection:
            row = self.database.job_row(connection, job_id, lock=True)
            if row.status != status:
                self._move(connection, row, status, error=error)

    def cancel_job(self, job_id: str) -> None:
        """The job is cancelled, and whoever works on it has lost it; UserError when it is final already."""
        with self.database.write(job_id) as connection:
            row = self.database.job_row(connection, job_id, lock=True)
            self._move(connection, row, "cancelled")
            self._set(connection, job_id, token=row.token + 1, owner=None, lease_until=None)

    def ask(self, job_id: str, wish: Wish | None) -> None:
        """Tell whoever works on the job what the user wants; None takes it back."""
        with self.database.write(job_id) as connection:
            self.database.job_row(connection, job_id, lock=True)
            self._set(connection, job_id, wish=wish)

    # Who works on a job

    def claim_job(self, job_id: str, owner: str, lease_s: float) -> int:
        """Take the job for `lease_s` seconds; returns the fencing token, one more than any before it.

        Raises UserError while another owner's lease runs. The same owner may claim again, which voids its older token.
        """
        with self.database.write() as connection:
            row = self.database.job_row(connection, job_id, lock=True)
            left_s = (row.lease_until or 0.0) - self.database.clock.now()
            if row.owner not in (None, owner) and left_s > 0:
                raise UserError(
                    f"job {job_id} is being worked on by {row.owner} (its lease ends in {left_s:.0f} s unless renewed);"
                    " cancel or pause it, or wait",
                    param="job",
                    code="job_is_held",
                )
            return self._take(connection, row, owner, lease_s)

    def claim_next(self, owner: str, lease_s: float) -> tuple[str, int] | None:
        """Take the oldest queued job of those that servers run, and move it to running, in one transaction.

        Returns its id and fencing token; None when there is none that nobody holds and nobody wants paused.
        """
        now = self.database.clock.now()
        query = (
            select(JOBS)
            .where(JOBS.c.status == "queued", JOBS.c.runner == "server", JOBS.c.wish.is_(None))
            .where(or_(JOBS.c.owner.is_(None), JOBS.c.lease_until <= now))
            .order_by(JOBS.c.seq)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        with self.database.write() as connection:
            row = connection.execute(query).first()
            if row is None:
                return None
            self._move(connection, row, "running")
            return row.id, self._take(connection, row, owner, lease_s)

    def heartbeat(self, job_id: str, token: int, lease_s: float, *, owner: str | None = None) -> None:
        """Renew the lease to `lease_s` seconds from now, under another owner's name where one is given.

        Raises StoreFault when the token is stale.
        """
        values: dict[str, Any] = {"lease_until": self.database.clock.now() + lease_s}
        if owner is not None:
            values["owner"] = owner
        with self.database.fenced(job_id, token).write(job_id) as connection:
            self._set(connection, job_id, **values)

    def release_job(self, job_id: str, token: int) -> None:
        """Give the job back, so that anyone may claim it at once; StoreFault when the token is stale."""
        with self.database.fenced(job_id, token).write(job_id) as connection:
            self._set(connection, job_id, owner=None, lease_until=None)

    def lapsed(self) -> list[dict[str, Any]]:
        """Jobs that servers run, not final, whose owner has let its lease run out; each with its `token`."""
        query = (
            select(JOBS)
            .where(JOBS.c.runner == "server", JOBS.c.owner.is_not(None), JOBS.c.status.not_in(FINAL))
            .where(JOBS.c.lease_until <= self.database.clock.now())
            .order_by(JOBS.c.seq)
        )
        with self.database.read() as connection:
            return [{**_job(row), "token": row.token} for row in connection.execute(query)]

    def requeue(self, job_id: str, message: str, *, token: int) -> bool:
        """Take a job from an owner that died while it held `token`, and queue it; False when that is not so any more.

        Counts as a restart, of which `get_job` says how many there were since the last checkpoint. A job that is
        neither running nor queued keeps its status.
        """
        with self.database.write(job_id) as connection:
            row = self.database.job_row(connection, job_id, lock=True)
            if row.token != token or row.status in FINAL:
                return False
            self._event(connection, job_id, message, "warn", {"restarts": row.restarts + 1})
            if row.status == "running":
                self._move(connection, row, "queued")
            self._set(connection, job_id, token=row.token + 1, owner=None, lease_until=None, restarts=row.restarts + 1)
            return True

    # Shared by the above

    def _newest_first(
        self, connection: Connection, before: int | None, project: str | None, *, page: int
    ) -> Iterator[Row[Any]]:
        while True:
            query = select(JOBS).order_by(JOBS.c.seq.desc()).limit(page)
            if before is not None:
                query = query.where(JOBS.c.seq < before)
            if project is not None:
                query = query.where(JOBS.c.project_id == project)
            rows = connection.execute(query).all()
            yield from rows
            if len(rows) < page:
                return
            before = rows[-1].seq

    def _take(self, connection: Connection, row: Row[Any], owner: str, lease_s: float) -> int:
        lease_until = self.database.clock.now() + lease_s
        self._set(connection, row.id, token=row.token + 1, owner=owner, lease_until=lease_until)
        return row.token + 1

    def _move(
        self, connection: Connection, row: Row[Any], status: str, *, error: Mapping[str, Any] | None = None
    ) -> None:
        check_transition(row.id, row.status, status)
        now = self.database.clock.now()
        values: dict[str, Any] = {"finished_at": now if status in FINAL else None, "error": finite(error)}
        if status in FINAL or status == "paused":
            values["wish"] = None
        self._set(connection, row.id, status=status, **values)
        reason = f": {error['message']}" if error and error.get("message") else ""
        data = {"from": row.status, "status": status}
        level = "error" if status == "failed" else "info"
        self._event(connection, row.id, f"Job is now {status}{reason}", level, data)
        if status in FINAL:
            self._announce(connection, row, f"fine_tuning.job.{status}", now)

    def _announce(self, connection: Connection, row: Row[Any], kind: str, now: float) -> None:
        """The webhook event of a job that is final, due at once at every endpoint that wants to know."""
        query = select(WEBHOOK_ENDPOINTS).where(WEBHOOK_ENDPOINTS.c.project_id == row.project_id)
        wanted = [endpoint.id for endpoint in connection.execute(query) if kind in endpoint.event_types]
        if not wanted:
            return
        event = {"id": f"evt_{uuid.uuid4().hex}", "project_id": row.project_id, "type": kind, "created_at": now}
        connection.execute(insert(WEBHOOK_EVENTS), {**event, "data": {"id": row.id}})
        due = [{"event_id": event["id"], "endpoint_id": endpoint, "due_at": now} for endpoint in wanted]
        connection.execute(insert(DELIVERIES), due)

    def _set(self, connection: Connection, job_id: str, **values: Any) -> None:
        connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(**values))

    def _event(
        self,
        connection: Connection,
        job_id: str,
        message: str,
        level: str,
        data: Mapping[str, Any] | None,
        kind: str = "message",
    ) -> None:
        row = {
            "job_id": job_id,
            "created_at": self.database.clock.now(),
            "level": level,
            "type": kind,
            "message": storable(message),
            "data": finite(data),
        }
        connection.execute(insert(EVENTS), row)


def _job(row: Row[Any]) -> dict[str, Any]:
    return {**row.document, "id": row.id, **{name: getattr(row, name) for name in sorted(_OWN)}}


def _matches(row: Row[Any], metadata: Mapping[str, str] | Literal["null"]) -> bool:
    own = (row.document.get("spec") or {}).get("metadata") or {}
    return not own if metadata == "null" else all(own.get(key) == value for key, value in metadata.items())
