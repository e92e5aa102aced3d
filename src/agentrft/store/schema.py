"""The tables. A change here needs a new file in `migrations/versions` and a new HEAD; a test compares the two.

Times are seconds since the epoch as the writer's clock had them; order is by `seq`, never by time. What only we read
is JSON or compressed JSON; a column exists where a query filters or sorts by it.
"""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

HEAD = "0001"
"""The revision of `migrations/versions` that these tables are."""

METADATA = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
    }
)

# SQLite numbers rows by itself only where the key's type is exactly INTEGER.
_SEQ = BigInteger().with_variant(Integer, "sqlite")

JOBS = Table(
    "jobs",
    METADATA,
    Column("seq", _SEQ, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("status", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("error", JSON(none_as_null=True)),
    Column("document", JSON, nullable=False),
    Column("token", Integer, nullable=False),
    Column("owner", Text),
    Column("lease_until", Double),
    sqlite_autoincrement=True,
)

EVENTS = Table(
    "events",
    METADATA,
    Column("seq", _SEQ, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("level", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON(none_as_null=True)),
    Index("ix_events_job", "job_id", "seq"),
    sqlite_autoincrement=True,
)

METRICS = Table(
    "metrics",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("value", Double),
)

CHECKPOINTS = Table(
    "checkpoints",
    METADATA,
    Column("job_id", Text, ForeignKey("jobs.id"), primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("path", Text, nullable=False),
    Column("metrics", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
)

EPISODES = Table(
    "episodes",
    METADATA,
    Column("seq", _SEQ, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("phase", Text, nullable=False),
    Column("stage", Text, nullable=False),
    Column("step", Integer, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("member", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("stop_reason", Text, nullable=False),
    Column("grade", Double),
    Column("reward", Double),
    Column("record", LargeBinary, nullable=False),
    Index("ix_episodes_job", "job_id", "step", "seq"),
    sqlite_autoincrement=True,
)
