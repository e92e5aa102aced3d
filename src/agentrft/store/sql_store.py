"""`Store` over SQLAlchemy Core: the same statements for SQLite and PostgreSQL.

Every method is one short transaction; a write takes the write lock first (`BEGIN IMMEDIATE`, or the job's row), so
that it never has to be undone half-way. A store seen through `fenced` checks its token inside each of them: once
another process has claimed the job, nothing that the former owner still sends is kept.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from sqlalchemy import Connection, Engine, Row, Select, Table, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from agentrft.errors import StoreFault, UserError
from agentrft.protocols import Clock, EpisodeRecord
from agentrft.store import codec
from agentrft.store.faults import store_faults
from agentrft.store.schema import CHECKPOINTS, EPISODES, EVENTS, JOBS, METRICS
from agentrft.store.states import FINAL, INITIAL, check_transition

_OWN = frozenset({"status", "created_at", "finished_at", "error", "owner", "lease_until"})
"""Keys of a job that the store keeps itself, beside its `id` and the caller's document."""


class SqlStore:
    """Durable records; made by `open_store`. Safe to use from several threads; one per process."""

    def __init__(self, engine: Engine, *, clock: Clock, fence: tuple[str, int] | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._fence = fence

    @property
    def url(self) -> str:
        """The database, its password hidden."""
        return self._engine.url.render_as_string()

    def close(self) -> None:
        """Close the connections; safe to call twice. A fenced view shares them."""
        self._engine.dispose()

    # Jobs

    def create_job(self, job: Mapping[str, Any]) -> None:
        """Keep a new job: `id`, and any other keys as its document; `status` may be given, else validating_files.

        Raises UserError when the id is taken. The first event is written with it.
        """
        job_id, now = job["id"], self._clock.now()
        status = job.get("status", INITIAL)
        row = {
            "id": job_id,
            "status": status,
            "created_at": job.get("created_at", now),
            "document": {key: value for key, value in job.items() if key != "id" and key not in _OWN},
            "token": 0,
        }
        with self._write(None) as connection:
            try:
                connection.execute(insert(JOBS), row)
            except IntegrityError as error:
                raise UserError(
                    f"job {job_id} exists already; create it under another id", param="id", code="job_exists"
                ) from error
            self._event(connection, job_id, f"Created job {job_id}", "info", {"status": status})

    def get_job(self, job_id: str) -> dict[str, Any]:
        """The job's document, and id, status, created_at, finished_at, error, owner, lease_until.

        Raises UserError when there is no such job.
        """
        with self._read() as connection:
            return _job(self._job_row(connection, job_id))

    def list_jobs(self, *, limit: int = 20, after: str | None = None) -> list[dict[str, Any]]:
        """Jobs as `get_job` gives them, newest first; `after` is the id that the previous page ended with."""
        with self._read() as connection:
            query = select(JOBS).order_by(JOBS.c.seq.desc()).limit(limit)
            if after is not None:
                query = query.where(JOBS.c.seq < self._job_row(connection, after).seq)
            return [_job(row) for row in connection.execute(query)]

    def update_job(self, job_id: str, fields: Mapping[str, Any]) -> None:
        """Set keys of the job's document (`fine_tuned_model`, `trained_tokens`, …).

        Raises ValueError for the keys that the store keeps itself, UserError when the job is unknown.
        """
        if own := sorted((_OWN | {"id"}) & fields.keys()):
            raise ValueError(f"update_job cannot set {', '.join(own)}; status has set_job_status")
        with self._write(job_id) as connection:
            row = self._job_row(connection, job_id, lock=True)
            self._set(connection, job_id, document={**row.document, **fields})

    def set_job_status(self, job_id: str, status: str, *, error: Mapping[str, Any] | None = None) -> None:
        """Move the job to `status` and write the event of it, in one transaction; the only way a status changes.

        `error` is OpenAI's `{code, message, param}`; None clears it. The same status again changes nothing. Raises
        UserError when the job is unknown or the step is not legal (`states.FOLLOWS`).
        """
        with self._write(job_id) as connection:
            row = self._job_row(connection, job_id, lock=True)
            if row.status == status:
                return
            check_transition(job_id, row.status, status)
            now = self._clock.now()
            finished_at = now if status in FINAL else None
            self._set(connection, job_id, status=status, error=_finite(error), finished_at=finished_at)
            reason = f": {error['message']}" if error and error.get("message") else ""
            level = "error" if status == "failed" else "info"
            data = {"from": row.status, "status": status}
            self._event(connection, job_id, f"Job is now {status}{reason}", level, data)

    # Who works on a job

    def claim_job(self, job_id: str, owner: str, lease_s: float) -> int:
        """Take the job for `lease_s` seconds; returns the fencing token, one more than any before it.

        Raises UserError while another owner's lease runs. The same owner may claim again, which voids its older token.
        """
        with self._write(None) as connection:
            row = self._job_row(connection, job_id, lock=True)
            left_s = (row.lease_until or 0.0) - self._clock.now()
            if row.owner not in (None, owner) and left_s > 0:
                raise UserError(
                    f"job {job_id} is being worked on by {row.owner} (its lease ends in {left_s:.0f} s unless renewed);"
                    " cancel or pause it, or wait",
                    param="job",
                    code="job_is_held",
                )
            token = row.token + 1
            self._set(connection, job_id, token=token, owner=owner, lease_until=self._clock.now() + lease_s)
            return token

    def heartbeat(self, job_id: str, token: int, lease_s: float) -> None:
        """Renew the lease to `lease_s` seconds from now; StoreFault when the token is stale."""
        with self.fenced(job_id, token)._write(job_id) as connection:
            self._set(connection, job_id, lease_until=self._clock.now() + lease_s)

    def release_job(self, job_id: str, token: int) -> None:
        """Give the job back, so that anyone may claim it at once; StoreFault when the token is stale."""
        with self.fenced(job_id, token)._write(job_id) as connection:
            self._set(connection, job_id, owner=None, lease_until=None)

    def fenced(self, job_id: str, token: int) -> Self:
        """The same store, as the holder of `token` may use it: it writes to this job only.

        Every write checks the token in its own transaction and raises StoreFault once the job was claimed anew.
        """
        return type(self)(self._engine, clock=self._clock, fence=(job_id, token))

    # What a job leaves behind

    def add_event(
        self, job_id: str, message: str, *, level: str = "info", data: Mapping[str, Any] | None = None
    ) -> None:
        """Append to the job's events. Numbers in `data` that are NaN or infinite are kept as null."""
        with self._write(job_id) as connection:
            self._job_row(connection, job_id)
            self._event(connection, job_id, message, level, data)

    def list_events(self, job_id: str) -> list[dict[str, Any]]:
        """`{id, created_at, level, message, data}` in the order they were written."""
        query = select(EVENTS).where(EVENTS.c.job_id == job_id).order_by(EVENTS.c.seq)
        return [
            {
                "id": f"ftevent-{row.seq:020d}",
                "created_at": row.created_at,
                "level": row.level,
                "message": row.message,
                "data": row.data,
            }
            for row in self._rows(job_id, query)
        ]

    def add_metrics(self, job_id: str, step: int, metrics: Mapping[str, float]) -> None:
        """Keep the metrics of a step; a name already there is replaced, others stay.

        A NaN or an infinity is kept as null: a run that diverges must be able to say so.
        """
        rows = [
            {"job_id": job_id, "step": step, "name": name, "value": _finite(float(value))}
            for name, value in metrics.items()
        ]
        with self._write(job_id) as connection:
            self._job_row(connection, job_id)
            self._upsert(connection, METRICS, rows)

    def list_metrics(self, job_id: str) -> list[dict[str, Any]]:
        """`{step, metrics: {name: value or None}}` by step; None is a value that was no finite number."""
        query = select(METRICS).where(METRICS.c.job_id == job_id).order_by(METRICS.c.step)
        by_step: dict[int, dict[str, float | None]] = {}
        for row in self._rows(job_id, query):
            by_step.setdefault(row.step, {})[row.name] = row.value
        return [{"step": step, "metrics": dict(sorted(metrics.items()))} for step, metrics in by_step.items()]

    def add_checkpoint(self, job_id: str, step: int, path: str, metrics: Mapping[str, float]) -> str:
        """Keep a checkpoint and return its id, a function of job and step; the same step again replaces it."""
        row = {
            "job_id": job_id,
            "step": step,
            "path": path,
            "metrics": _finite({name: float(value) for name, value in metrics.items()}),
            "created_at": self._clock.now(),
        }
        with self._write(job_id) as connection:
            self._job_row(connection, job_id)
            self._upsert(connection, CHECKPOINTS, [row])
        return _checkpoint_id(job_id, step)

    def list_checkpoints(self, job_id: str) -> list[dict[str, Any]]:
        """`{id, step, path, metrics, created_at}` by step."""
        query = select(CHECKPOINTS).where(CHECKPOINTS.c.job_id == job_id).order_by(CHECKPOINTS.c.step)
        return [
            {
                "id": _checkpoint_id(job_id, row.step),
                "step": row.step,
                "path": row.path,
                "metrics": row.metrics,
                "created_at": row.created_at,
            }
            for row in self._rows(job_id, query)
        ]

    def add_episodes(self, job_id: str, records: Sequence[EpisodeRecord]) -> None:
        """Keep episodes, all or none; one that is there already (a resumed step plays it again) is replaced.

        Raises ValueError when an id is already another episode's: ids must tell job, phase and stage apart.
        """
        if strangers := [record.job_id for record in records if record.job_id != job_id]:
            raise ValueError(f"episodes of {strangers[0]} cannot be stored under {job_id}")
        rows = [_episode_row(record) for record in records]
        with self._write(job_id) as connection:
            self._job_row(connection, job_id)
            known = select(EPISODES).where(EPISODES.c.id.in_([row["id"] for row in rows]))
            place = {row.id: (row.job_id, row.phase, row.stage) for row in connection.execute(known)}
            for row in rows:
                if place.setdefault(row["id"], key := (row["job_id"], row["phase"], row["stage"])) != key:
                    raise ValueError(f"episode {row['id']} of {key} is already stored as one of {place[row['id']]}")
            self._upsert(connection, EPISODES, rows)

    def get_episode(self, episode_id: str) -> EpisodeRecord:
        """The record exactly as it was added; UserError if unknown."""
        with self._read() as connection:
            data = connection.execute(select(EPISODES.c.record).where(EPISODES.c.id == episode_id)).scalar()
        if data is None:
            raise UserError(
                f"no episode {episode_id!r} in {self.url}; `agentrft jobs show JOB` lists a job's episodes",
                param="episode",
                code="not_found",
            )
        return codec.decode(data)

    def find_episode(self, prefix: str) -> str:
        """The id of the one episode whose id begins with `prefix` (`ep_` may be left out); UserError otherwise."""
        start = prefix if prefix.startswith("ep_") else f"ep_{prefix}"
        query = select(EPISODES.c.id).where(EPISODES.c.id.startswith(start, autoescape=True)).limit(2)
        with self._read() as connection:
            found = connection.execute(query).scalars().all()
        if len(found) == 1:
            return found[0]
        got = f"several begin so ({', '.join(found)}, …)" if found else "none begins so"
        raise UserError(
            f"episode {prefix!r}: {got} in {self.url}; expected the beginning of one episode's id. `agentrft jobs show"
            " JOB` lists a job's episodes",
            param="episode",
            code="not_found",
        )

    def list_episodes(self, job_id: str, *, step: int | None = None, limit: int = 100) -> list[EpisodeRecord]:
        """The first `limit` records by step, in the order they were added; of one step only when it is given."""
        query = select(EPISODES.c.record).where(EPISODES.c.job_id == job_id)
        query = query.order_by(EPISODES.c.step, EPISODES.c.seq).limit(limit)
        if step is not None:
            query = query.where(EPISODES.c.step == step)
        return [codec.decode(row.record) for row in self._rows(job_id, query)]

    # Shared by the above

    @contextmanager
    def _read(self) -> Iterator[Connection]:
        with store_faults(self._engine.url), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def _write(self, job_id: str | None) -> Iterator[Connection]:
        """One write transaction, its fence checked; `job_id` is the job it writes to, None where no fence applies."""
        engine = self._engine.execution_options(sqlite_begin="IMMEDIATE")
        with store_faults(self._engine.url), engine.begin() as connection:
            if self._fence:
                self._check_fence(connection, job_id, *self._fence)
            yield connection

    def _check_fence(self, connection: Connection, job_id: str | None, fenced_job_id: str, token: int) -> None:
        if job_id != fenced_job_id:
            raise ValueError(f"this view of the store may write to {fenced_job_id} only, got {job_id}")
        row = self._job_row(connection, fenced_job_id, lock=True)
        if row.token != token:
            raise StoreFault(
                f"job {fenced_job_id} was claimed by {row.owner or 'another process'} (token {row.token}); this process"
                f" holds the older token {token} and must stop: nothing it writes is kept"
            )

    def _job_row(self, connection: Connection, job_id: str, *, lock: bool = False) -> Row[Any]:
        query = select(JOBS).where(JOBS.c.id == job_id)
        row = connection.execute(query.with_for_update(key_share=True) if lock else query).first()
        if row is None:
            raise UserError(
                f"no job {job_id!r} in {self.url}; `agentrft jobs list` shows those there are",
                param="job",
                code="not_found",
            )
        return row

    def _rows(self, job_id: str, query: Select[Any]) -> list[Row[Any]]:
        """All rows of a query about one job; UserError when there is no such job."""
        with self._read() as connection:
            self._job_row(connection, job_id)
            return list(connection.execute(query))

    def _set(self, connection: Connection, job_id: str, **values: Any) -> None:
        connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(**values))

    def _event(
        self, connection: Connection, job_id: str, message: str, level: str, data: Mapping[str, Any] | None
    ) -> None:
        row = {
            "job_id": job_id,
            "created_at": self._clock.now(),
            "level": level,
            "message": _storable(message),
            "data": _finite(data),
        }
        connection.execute(insert(EVENTS), row)

    def _upsert(self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
        """Insert, or replace what has the same key."""
        if not rows:
            return
        keys = ["id"] if table is EPISODES else [column.name for column in table.primary_key]
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(table)
        replaced = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=replaced), list(rows))


def _job(row: Row[Any]) -> dict[str, Any]:
    own = {name: getattr(row, name) for name in ("status", "created_at", "finished_at", "error", "owner")}
    return {**row.document, "id": row.id, **own, "lease_until": row.lease_until}


def _checkpoint_id(job_id: str, step: int) -> str:
    return "ftckpt_" + hashlib.sha256(f"{job_id}/{step}".encode()).hexdigest()[:24]


def _episode_row(record: EpisodeRecord) -> dict[str, Any]:
    episode = record.episode
    return {
        "id": episode.id,
        "job_id": record.job_id,
        "phase": record.phase,
        "stage": record.stage,
        "step": episode.step,
        "item_id": _storable(episode.item_id),
        "member": episode.member,
        "attempt": episode.attempt,
        "stop_reason": episode.stop_reason.value,
        "grade": _finite(record.grade.value),
        "reward": _finite(record.reward),
        "record": codec.encode(record),
    }


def _storable(text: str) -> str:
    """Text that both databases take: PostgreSQL refuses NUL, and neither takes half a surrogate pair."""
    return text.encode("utf-8", "replace").decode().replace("\x00", "\ufffd")


def _finite(value: Any) -> Any:
    """`value` with every NaN and infinity in it as None: JSON and the databases have no agreed way to write them."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value
