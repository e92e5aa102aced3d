"""Alembic migrations, run when a store is opened. Released files are never edited; a change is a new file."""
