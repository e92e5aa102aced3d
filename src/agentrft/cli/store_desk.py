"""Jobs in the store of this machine, no server needed: the same functions that the server calls."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from agentrft.cli.desk import Format, JobView
from agentrft.jobs import control
from agentrft.jobs.checkpoints import checkpoint_named, kept_checkpoints, weights_archive
from agentrft.jobs.episodes import episodes_of, export
from agentrft.jobs.event_object import event_object
from agentrft.jobs.service import find_job, job_folder
from agentrft.jobs.trace import episode_object
from agentrft.protocols import EpisodeFilter
from agentrft.store import SqlStore

_LOOK_EVERY_S = 0.5
_PAGE = 200


class StoreDesk:
    """`Desk` of `agentrft.cli.desk`."""

    def __init__(self, store: SqlStore) -> None:
        self._store = store

    def jobs(self, limit: int) -> list[JobView]:
        return [_view(job) for job in self._store.list_jobs(limit=limit)]

    def find(self, given: str) -> str:
        return find_job(self._store, given)

    def job(self, job_id: str) -> JobView:
        return _view(self._store.get_job(job_id))

    def events(self, job_id: str, limit: int) -> list[dict[str, Any]]:
        found = self._store.list_events(job_id, limit=limit, newest_first=True)
        return [event_object(event) for event in reversed(found)]

    def follow(self, job_id: str) -> Iterator[dict[str, Any]]:
        after: str | None = None
        while True:
            is_final = self.job(job_id).is_final  # before the events: what is written in between is still told
            page = self._store.list_events(job_id, after=after, limit=_PAGE)
            yield from map(event_object, page)
            after = page[-1]["id"] if page else after
            if len(page) < _PAGE:
                if is_final:
                    return
                time.sleep(_LOOK_EVERY_S)

    def metrics(self, job_id: str, *, after: int = -1) -> list[dict[str, Any]]:
        return self._store.list_metrics(job_id, after=after)

    def checkpoints(self, job_id: str) -> list[dict[str, Any]]:
        found = kept_checkpoints(self._store, self._store.get_job(job_id))
        return [{"id": one["id"], "step_number": one["step"], "path": one["path"]} for one in found]

    def episodes(self, job_id: str, wanted: EpisodeFilter, limit: int) -> list[dict[str, Any]]:
        return [episode_object(one) for one in episodes_of(self._store, job_id, wanted, after=None, limit=limit)]

    def export(self, job_id: str, wanted: EpisodeFilter) -> Iterator[str]:
        return export(self._store, job_id, wanted)

    def pause(self, job_id: str) -> JobView:
        return _view(control.pause(self._store, job_id))

    def resume(self, job_id: str) -> JobView:
        return _view(control.resume(self._store, job_id))

    def cancel(self, job_id: str) -> JobView:
        return _view(control.cancel(self._store, job_id))

    def weights(self, job_id: str, checkpoint: str, format: Format) -> Iterator[bytes]:
        job = self._store.get_job(job_id)
        chosen = checkpoint_named(self._store, job, checkpoint, param="--checkpoint")
        archive = weights_archive(job, chosen, format=format)
        try:
            yield from archive.pieces()
        finally:
            archive.close()

    def close(self) -> None:
        self._store.close()


def _view(job: Mapping[str, Any]) -> JobView:
    return JobView(
        id=job["id"],
        kind=job.get("kind", ""),
        status=job["status"],
        created_at=job["created_at"],
        model=job.get("start_from") or job.get("model") or "",
        result=job.get("fine_tuned_model"),
        error=(job["error"] or {}).get("message"),
        folder=job_folder(job["id"]),
        is_run_here=job["runner"] == "cli",
    )
