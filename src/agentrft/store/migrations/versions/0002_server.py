"""What a server needs: projects, wishes, files, keys, webhooks."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Jobs that are there belong to the command line."""
    _extend_jobs_and_events()
    _create_files()
    _create_uploads()
    _create_access()
    _create_webhooks()


def _extend_jobs_and_events() -> None:
    op.add_column("jobs", sa.Column("project_id", sa.Text, nullable=False, server_default="proj_local"))
    op.add_column("jobs", sa.Column("runner", sa.Text, nullable=False, server_default="cli"))
    op.add_column("jobs", sa.Column("wish", sa.Text))
    op.add_column("jobs", sa.Column("restarts", sa.Integer, nullable=False, server_default="0"))
    op.create_index("ix_jobs_project", "jobs", ["project_id", "seq"])
    op.create_index("ix_jobs_status", "jobs", ["status", "seq"])
    op.add_column("events", sa.Column("type", sa.Text, nullable=False, server_default="message"))


def _create_files() -> None:
    op.create_table(
        "files",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.PrimaryKeyConstraint("seq", name="pk_files"),
        sa.UniqueConstraint("id", name="uq_files_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_files_project", "files", ["project_id", "seq"])
    op.create_index("ix_files_sha256", "files", ["sha256"])


def _create_uploads() -> None:
    op.create_table(
        "uploads",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("filename", sa.Text, nullable=False),
        sa.Column("purpose", sa.Text, nullable=False),
        sa.Column("mime_type", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double, nullable=False),
        sa.Column("file_expires_after_s", sa.Integer),
        sa.Column("file_id", sa.Text),
        sa.PrimaryKeyConstraint("seq", name="pk_uploads"),
        sa.UniqueConstraint("id", name="uq_uploads_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "upload_parts",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("upload_id", sa.Text, sa.ForeignKey("uploads.id", name="fk_upload_parts_upload_id"), nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_upload_parts"),
        sa.UniqueConstraint("id", name="uq_upload_parts_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_upload_parts_upload", "upload_parts", ["upload_id", "seq"])


def _create_access() -> None:
    op.create_table(
        "keys",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("scopes", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("expires_at", sa.Double),
        sa.Column("last_used_at", sa.Double),
        sa.Column("revoked_at", sa.Double),
        sa.PrimaryKeyConstraint("seq", name="pk_keys"),
        sa.UniqueConstraint("id", name="uq_keys_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "idempotency",
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("request_sha256", sa.Text, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("status", sa.Integer),
        sa.Column("answer", sa.JSON),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("project_id", "key", name="pk_idempotency"),
    )
    op.create_table(
        "permissions",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", name="fk_permissions_job_id"), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_permissions"),
        sa.UniqueConstraint("id", name="uq_permissions_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_permissions_model", "permissions", ["model", "seq"])
    op.create_index("ix_permissions_project", "permissions", ["project_id"])


def _create_webhooks() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("event_types", sa.JSON, nullable=False),
        sa.Column("document", sa.JSON, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_webhook_endpoints"),
        sa.UniqueConstraint("id", name="uq_webhook_endpoints_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_webhook_endpoints_project", "webhook_endpoints", ["project_id", "seq"])
    op.create_table(
        "webhook_events",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_webhook_events"),
        sa.UniqueConstraint("id", name="uq_webhook_events_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "deliveries",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column(
            "event_id", sa.Text, sa.ForeignKey("webhook_events.id", name="fk_deliveries_event_id"), nullable=False
        ),
        sa.Column("endpoint_id", sa.Text, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False, server_default="0"),
        sa.Column("due_at", sa.Double, nullable=False),
        sa.Column("delivered_at", sa.Double),
        sa.Column("given_up_at", sa.Double),
        sa.PrimaryKeyConstraint("seq", name="pk_deliveries"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_deliveries_due", "deliveries", ["due_at"])
