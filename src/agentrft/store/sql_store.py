"""`Store` over SQLAlchemy Core: the same statements for SQLite and PostgreSQL, each method one short transaction."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, Select, select, tuple_, update

from agentrft.errors import UserError
from agentrft.protocols import EpisodeFilter, EpisodeRecord
from agentrft.store import codec
from agentrft.store.job_table import JobTable
from agentrft.store.schema import CHECKPOINTS, EPISODES, EVENTS, JOBS, METRICS
from agentrft.store.values import finite, storable


class SqlStore(JobTable):
    """Durable records; made by `open_store`. Safe to use from several threads; one per process."""

    # What a job leaves behind

    def add_event(
        self,
        job_id: str,
        message: str,
        *,
        level: str = "info",
        data: Mapping[str, Any] | None = None,
        type: Literal["message", "metrics"] = "message",
    ) -> None:
        """Append to the job's events. Numbers in `data` that are NaN or infinite are kept as null."""
        with self.database.write(job_id) as connection:
            self.database.job_row(connection, job_id)
            self._event(connection, job_id, message, level, data, type)

    def list_events(
        self, job_id: str, *, after: str | None = None, limit: int | None = None, newest_first: bool = False
    ) -> list[dict[str, Any]]:
        """`{id, created_at, level, type, message, data}` in the order they were written, or against it.

        `after` is the id of the last one that is known already; raises UserError where it is no event's id.
        """
        query = select(EVENTS).where(EVENTS.c.job_id == job_id)
        query = query.order_by(EVENTS.c.seq.desc() if newest_first else EVENTS.c.seq).limit(limit)
        if after is not None:
            known = _event_seq(after)
            query = query.where(EVENTS.c.seq < known if newest_first else EVENTS.c.seq > known)
        return [
            {
                "id": f"ftevent-{row.seq:020d}",
                "created_at": row.created_at,
                "level": row.level,
                "type": row.type,
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
            {"job_id": job_id, "step": step, "name": name, "value": finite(float(value))}
            for name, value in metrics.items()
        ]
        with self.database.write(job_id) as connection:
            self.database.job_row(connection, job_id)
            self.database.upsert(connection, METRICS, rows)

    def list_metrics(
        self, job_id: str, *, after: int | None = None, limit: int | None = None, steps: Collection[int] | None = None
    ) -> list[dict[str, Any]]:
        """`{step, metrics: {name: value or None}}` by step; None is a value that was no finite number.

        Of all steps, or of those behind `after`, at most `limit`, and among `steps`.
        """
        wanted = select(METRICS.c.step).distinct().where(METRICS.c.job_id == job_id).order_by(METRICS.c.step)
        if after is not None:
            wanted = wanted.where(METRICS.c.step > after)
        if steps is not None:
            wanted = wanted.where(METRICS.c.step.in_(steps))
        chosen = METRICS.c.step.in_(wanted.limit(limit))
        query = select(METRICS).where(METRICS.c.job_id == job_id, chosen).order_by(METRICS.c.step)
        by_step: dict[int, dict[str, float | None]] = {}
        for row in self._rows(job_id, query):
            by_step.setdefault(row.step, {})[row.name] = row.value
        return [{"step": step, "metrics": dict(sorted(metrics.items()))} for step, metrics in by_step.items()]

    def add_checkpoint(self, job_id: str, step: int, path: str, metrics: Mapping[str, float]) -> str:
        """Keep a checkpoint and return its id, a function of job and step; the same step again replaces it.

        A new step means that the job gets on: its restarts are counted anew.
        """
        row = {
            "job_id": job_id,
            "step": step,
            "path": path,
            "metrics": finite({name: float(value) for name, value in metrics.items()}),
            "created_at": self.database.clock.now(),
        }
        with self.database.write(job_id) as connection:
            self.database.job_row(connection, job_id)
            known = select(CHECKPOINTS.c.step).where(CHECKPOINTS.c.job_id == job_id, CHECKPOINTS.c.step == step)
            if connection.execute(known).first() is None:
                connection.execute(update(JOBS).where(JOBS.c.id == job_id).values(restarts=0))
            self.database.upsert(connection, CHECKPOINTS, [row])
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
        with self.database.write(job_id) as connection:
            self.database.job_row(connection, job_id)
            known = select(EPISODES).where(EPISODES.c.id.in_([row["id"] for row in rows]))
            place = {row.id: (row.job_id, row.phase, row.stage) for row in connection.execute(known)}
            for row in rows:
                if place.setdefault(row["id"], key := (row["job_id"], row["phase"], row["stage"])) != key:
                    raise ValueError(f"episode {row['id']} of {key} is already stored as one of {place[row['id']]}")
            self.database.upsert(connection, EPISODES, rows, keys=["id"])

    def get_episode(self, episode_id: str) -> EpisodeRecord:
        """The record exactly as it was added; UserError if unknown."""
        with self.database.read() as connection:
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
        with self.database.read() as connection:
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

    def list_episodes(
        self,
        job_id: str,
        *,
        step: int | None = None,
        wanted: EpisodeFilter | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[EpisodeRecord]:
        """The first `limit` records by step, in the order they were added: of one step, of those that are `wanted`.

        `after` is the id of the last one that is known already; raises UserError where the job has no such episode.
        """
        query = select(EPISODES.c.record).where(EPISODES.c.job_id == job_id)
        if step is not None:
            query = query.where(EPISODES.c.step == step)
        if wanted is not None:
            query = query.where(*_conditions(wanted))
        if after is not None:
            query = query.where(tuple_(EPISODES.c.step, EPISODES.c.seq) > self._place_of(job_id, after))
        query = query.order_by(EPISODES.c.step, EPISODES.c.seq).limit(limit)
        return [codec.decode(row.record) for row in self._rows(job_id, query)]

    def _place_of(self, job_id: str, episode_id: str) -> Any:
        query = select(EPISODES.c.step, EPISODES.c.seq).where(EPISODES.c.id == episode_id, EPISODES.c.job_id == job_id)
        with self.database.read() as connection:
            row = connection.execute(query).first()
        if row is None:
            raise UserError(
                f"job {job_id} has no episode {episode_id!r} to go on after; take the last id of the page before",
                param="after",
                code="not_found",
            )
        return tuple_(row.step, row.seq)

    def _rows(self, job_id: str, query: Select[Any]) -> list[Row[Any]]:
        """All rows of a query about one job; UserError when there is no such job."""
        with self.database.read() as connection:
            self.database.job_row(connection, job_id)
            return list(connection.execute(query))


def _conditions(wanted: EpisodeFilter) -> Iterator[ColumnElement[bool]]:
    for name in ("step", "item_id", "phase", "stop_reason"):
        value = getattr(wanted, name)
        if value is not None:
            yield EPISODES.c[name] == (storable(value) if isinstance(value, str) else value)
    if wanted.min_reward is not None:
        yield EPISODES.c.reward >= wanted.min_reward
    if wanted.max_reward is not None:
        yield EPISODES.c.reward <= wanted.max_reward


def _event_seq(event_id: str) -> int:
    number = event_id.removeprefix("ftevent-")
    if not (number.isascii() and number.isdigit()) or len(number) > 20:
        raise UserError(
            f"no event {event_id!r} to go on after; take the last id of the page before",
            param="after",
            code="not_found",
        )
    return min(int(number), 2**63 - 1)


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
        "item_id": storable(episode.item_id),
        "member": episode.member,
        "attempt": episode.attempt,
        "stop_reason": episode.stop_reason.value,
        "grade": finite(record.grade.value),
        "reward": finite(record.reward),
        "record": codec.encode(record),
    }
