"""What `pairs` and `collect` share: a stored job's episodes, and the tools that its rows describe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentrft.protocols import EpisodeRecord
    from agentrft.types import ToolSpec

_MOST_EPISODES = 100_000


def recorded_episodes(job: str) -> tuple[Sequence[EpisodeRecord], Mapping[str, Sequence[ToolSpec]]]:
    """All episodes of the stored job whose id begins with `job`, and tools by item id where rows have their own.

    Raises UserError for a job that is not stored, or that has more episodes than are read at once.
    """
    from agentrft.errors import UserError
    from agentrft.jobs.rows import row_tools
    from agentrft.jobs.service import find_job, stored_job
    from agentrft.store import open_store

    store = open_store()
    try:
        stored = stored_job(store, find_job(store, job))
        records = store.list_episodes(stored.id, limit=_MOST_EPISODES + 1)
    finally:
        store.close()
    if len(records) > _MOST_EPISODES:
        raise UserError(
            f"job {stored.id} has more than {_MOST_EPISODES} episodes, which are not read at once", param="job"
        )
    return records, row_tools(stored.spec, stored.base_dir)


def none_found(what: str, why: str) -> Exception:
    """The error for a job whose episodes hold nothing to write."""
    from agentrft.errors import UserError

    return UserError(f"no {what} in this job: {why}", param="job", code="nothing_recorded")
