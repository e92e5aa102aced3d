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

HEAD = "0003"
"""The revision of `migrations/versions` that these tables are."""

LOCAL_PROJECT = "proj_local"
"""Owns what the command line makes, and what a server without keys is given."""

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
    Column("project_id", Text, nullable=False, server_default=LOCAL_PROJECT),
    Column("runner", Text, nullable=False, server_default="cli"),
    Column("status", Text, nullable=False),
    Column("wish", Text),
    Column("created_at", Double, nullable=False),
    Column("finished_at", Double),
    Column("error", JSON(none_as_null=True)),
    Column("document", JSON, nullable=False),
    Column("token", Integer, nullable=False),
    Column("owner", Text),
    Column("lease_until", Double),
    Column("restarts", Integer, nullable=False, server_default="0"),
    Index("ix_jobs_project", "project_id", "seq"),
    Index("ix_jobs_status", "status", "seq"),
    sqlite_autoincrement=True,
)

EVENTS = Table(
    "events",
    METADATA,
    Column("seq", _SEQ, primary_key=True),
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("created_at", Double, nullable=False),
    Column("level", Text, nullable=False),
    Column("type", Text, nullable=False, server_default="message"),
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

FILES = Table(
    "files",
    METADATA,
    Column("seq", _SEQ, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("project_id", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Index("ix_files_project", "project_id", "seq"),
    Index("ix_files_sha256", "sha256"),
    sqlite_autoincrement=True,
)

UPLOADS = Table(
    "uploads",
    METADATA,
    Column("seq", _SEQ, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("project_id", Text, nullable=False),
    Column("filename", Text, nullable=False),
    Column("purpose", Text, nullable=False),
    Column("mime_type", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double, nullable=False),
    Column("file_expires_after_s", Integer),
    Column("file_id", Text),
    sqlite_autoincrement=True,
)

UPLOAD_PARTS = Table(
    "upload_parts",
    METADATA,
    Column("seq", _SEQ, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("upload_id", Text, ForeignKey("uploads.id"), nullable=False),
    Column("sha256", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_upload_parts_upload", "upload_id", "seq"),
    sqlite_autoincrement=True,
)

KEYS = Table(
    "keys",
    METADATA,
    Column("seq", _SEQ, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("project_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("scopes", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("last_used_at", Double),
    Column("revoked_at", Double),
    sqlite_autoincrement=True,
)

IDEMPOTENCY = Table(
    "idempotency",
    METADATA,
    Column("project_id", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("request_sha256", Text, nullable=False),
    Column("owner", Text),
    Column("status", Integer),
    Column("answer", JSON(none_as_null=True)),
    Column("created_at", Double, nullable=False),
)

PERMISSIONS = Table(
    "permissions",
    METADATA,
    Column("seq", _SEQ, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("job_id", Text, ForeignKey("jobs.id"), nullable=False),
    Column("model", Text, nullable=False),
    Column("project_id", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("ix_permissions_model", "model", "seq"),
    Index("ix_permissions_project", "project_id"),
    sqlite_autoincrement=True,
)

WEBHOOK_ENDPOINTS = Table(
    "webhook_endpoints",
    METADATA,
    Column("seq", _SEQ, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("project_id", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("event_types", JSON, nullable=False),
    Column("document", JSON, nullable=False),
    Index("ix_webhook_endpoints_project", "project_id", "seq"),
    sqlite_autoincrement=True,
)

WEBHOOK_EVENTS = Table(
    "webhook_events",
    METADATA,
    Column("seq", _SEQ, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("project_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Column("created_at", Double, nullable=False),
    sqlite_autoincrement=True,
)

DELIVERIES = Table(
    "deliveries",
    METADATA,
    Column("seq", _SEQ, primary_key=True),
    Column("event_id", Text, ForeignKey("webhook_events.id"), nullable=False),
    Column("endpoint_id", Text, nullable=False),
    Column("tries", Integer, nullable=False, server_default="0"),
    Column("due_at", Double, nullable=False),
    Column("delivered_at", Double),
    Column("given_up_at", Double),
    Index("ix_deliveries_due", "due_at"),
    sqlite_autoincrement=True,
)

RESPONSES = Table(
    "responses",
    METADATA,
    Column("seq", _SEQ, primary_key=True),
    Column("id", Text, nullable=False, unique=True),
    Column("project_id", Text, nullable=False),
    Column("previous_id", Text, ForeignKey("responses.id")),
    Column("created_at", Double, nullable=False),
    Column("deleted_at", Double),
    Column("record", LargeBinary, nullable=False),
    Index("ix_responses_previous", "previous_id"),
    Index("ix_responses_created", "created_at"),
    sqlite_autoincrement=True,
)
