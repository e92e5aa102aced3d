"""Jobs, events, metrics, checkpoints, episodes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """From an empty database."""
    _create_jobs()
    _create_results()
    _create_episodes()


def _create_jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("finished_at", sa.Double),
        sa.Column("error", sa.JSON),
        sa.Column("document", sa.JSON, nullable=False),
        sa.Column("token", sa.Integer, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("lease_until", sa.Double),
        sa.PrimaryKeyConstraint("seq", name="pk_jobs"),
        sa.UniqueConstraint("id", name="uq_jobs_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "events",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", name="fk_events_job_id"), nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("level", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("data", sa.JSON),
        sa.PrimaryKeyConstraint("seq", name="pk_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_events_job", "events", ["job_id", "seq"])


def _create_results() -> None:
    op.create_table(
        "metrics",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", name="fk_metrics_job_id"), nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("value", sa.Double),
        sa.PrimaryKeyConstraint("job_id", "step", "name", name="pk_metrics"),
    )
    op.create_table(
        "checkpoints",
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", name="fk_checkpoints_job_id"), nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("path", sa.Text, nullable=False),
        sa.Column("metrics", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.PrimaryKeyConstraint("job_id", "step", name="pk_checkpoints"),
    )


def _create_episodes() -> None:
    op.create_table(
        "episodes",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id", name="fk_episodes_job_id"), nullable=False),
        sa.Column("phase", sa.Text, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("item_id", sa.Text, nullable=False),
        sa.Column("member", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("stop_reason", sa.Text, nullable=False),
        sa.Column("grade", sa.Double),
        sa.Column("reward", sa.Double),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_episodes"),
        sa.UniqueConstraint("id", name="uq_episodes_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_episodes_job", "episodes", ["job_id", "step", "seq"])
