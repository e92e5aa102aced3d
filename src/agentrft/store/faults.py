"""The store's boundary: what a database raises becomes a StoreFault that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from agentrft.errors import StoreFault

NEXT_STEPS = {
    "full": "free space on the disk, then resume",
    "locked": "another process kept the store busy for too long; end it, then resume",
    "readonly": "make the file and its folder writable, or set AGENTRFT_HOME to another folder",
    "unable to open": "check that the folder exists and is writable, or set AGENTRFT_HOME to another one",
    "not a database": "the file is no store; move it away, or set AGENTRFT_HOME to another folder",
    "malformed": "the store is damaged; restore it from a backup",
    "connection": "check that the PostgreSQL server runs and the URL is right, then resume",
}
"""Part of a database's message → what the user can do about it."""


@contextmanager
def store_faults(url: URL) -> Iterator[None]:
    """Raise StoreFault for whatever the database raises inside; passwords never show."""
    try:
        yield
    except (DBAPIError, PoolTimeout) as error:
        reason = " ".join(str(getattr(error, "orig", None) or error).split())
        step = next((step for part, step in NEXT_STEPS.items() if part in reason.lower()), "see `agentrft doctor`")
        raise StoreFault(f"the store {url.render_as_string()} refused: {reason}; {step}") from error
