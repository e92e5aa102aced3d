"""What Alembic runs: the migrations, on the connection and inside the transaction that `connect` opened."""

from alembic import context

from agentrft.store.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    # Both databases can undo DDL, so a migration that is killed leaves nothing behind.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
