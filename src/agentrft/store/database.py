"""One database: short transactions for every table's queries, and the fence that a job's owner writes behind.

A write takes the write lock first (`BEGIN IMMEDIATE`, or the job's row), so that it never has to be undone half-way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Row, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from agentrft.errors import StoreFault, UserError
from agentrft.protocols import Clock
from agentrft.store.faults import store_faults
from agentrft.store.schema import JOBS


class Database:
    """An open database; made by `open_store`. Safe to use from several threads; one per process."""

    def __init__(self, engine: Engine, *, clock: Clock, fence: tuple[str, int] | None = None) -> None:
        self.clock = clock
        self.engine = engine
        self._fence = fence

    @property
    def url(self) -> str:
        """Where it is, its password hidden."""
        return self.engine.url.render_as_string()

    def close(self) -> None:
        """Close the connections; safe to call twice. A fenced view shares them."""
        self.engine.dispose()

    def fenced(self, job_id: str, token: int) -> Database:
        """The same database, as the holder of a job's token may use it."""
        return Database(self.engine, clock=self.clock, fence=(job_id, token))

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state and changes nothing; StoreFault when the database refuses."""
        with store_faults(self.engine.url), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, job_id: str | None = None) -> Iterator[Connection]:
        """A write transaction, its fence checked; `job_id` is the job it writes to, None where it is no job's.

        Raises StoreFault when the database refuses or the fence's token is stale.
        """
        engine = self.engine.execution_options(sqlite_begin="IMMEDIATE")
        with store_faults(self.engine.url), engine.begin() as connection:
            if self._fence:
                self._check_fence(connection, job_id, *self._fence)
            yield connection

    def job_row(
        self, connection: Connection, job_id: str, *, project: str | None = None, lock: bool = False
    ) -> Row[Any]:
        """A job's row, of that project where one is given; raises UserError when there is none."""
        query = select(JOBS).where(JOBS.c.id == job_id)
        row = connection.execute(query.with_for_update(key_share=True) if lock else query).first()
        if row is None or project not in (None, row.project_id):
            raise UserError(
                f"no job {job_id!r} in {self.url if project is None else 'this project'}; `agentrft jobs list` shows "
                "those there are",
                param="job",
                code="not_found",
            )
        return row

    def upsert(
        self, connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]], *, keys: Sequence[str] = ()
    ) -> None:
        """Insert, or replace what has the same `keys` (by default the primary key)."""
        if not rows:
            return
        keys = keys or [column.name for column in table.primary_key]
        dialect = postgresql if self.engine.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(table)
        replaced = {name: statement.excluded[name] for name in rows[0] if name not in keys}
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=replaced), list(rows))

    def _check_fence(self, connection: Connection, job_id: str | None, fenced_job_id: str, token: int) -> None:
        if job_id != fenced_job_id:
            raise ValueError(f"this view of the store may write to {fenced_job_id} only, got {job_id}")
        row = self.job_row(connection, fenced_job_id, lock=True)
        if row.token != token:
            raise StoreFault(
                f"job {fenced_job_id} was claimed by {row.owner or 'another process'} (token {row.token}); this process"
                f" holds the older token {token} and must stop: nothing it writes is kept"
            )
