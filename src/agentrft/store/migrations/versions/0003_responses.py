"""Responses that are kept, so that others can go on from them."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_SEQ = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Nothing was kept before."""
    op.create_table(
        "responses",
        sa.Column("seq", _SEQ, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("project_id", sa.Text, nullable=False),
        sa.Column("previous_id", sa.Text, sa.ForeignKey("responses.id", name="fk_responses_previous_id")),
        sa.Column("created_at", sa.Double, nullable=False),
        sa.Column("deleted_at", sa.Double),
        sa.Column("record", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("seq", name="pk_responses"),
        sa.UniqueConstraint("id", name="uq_responses_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_responses_previous", "responses", ["previous_id"])
    op.create_index("ix_responses_created", "responses", ["created_at"])
