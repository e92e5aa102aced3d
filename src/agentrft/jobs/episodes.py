"""A job's episodes, filtered and a page at a time; or all of them as lines of an export."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from agentrft.errors import UserError
from agentrft.jobs.names import ModelName, base_name
from agentrft.jobs.rows import items_of
from agentrft.jobs.service import StoredJob, stored_job
from agentrft.jobs.trace import export_line
from agentrft.protocols import EpisodeFilter, EpisodeRecord, Store
from agentrft.types import Item, StopReason

_PAGE = 50
_SPLITS = ("train", "validation", "test")
_WORDS: Mapping[str, Sequence[str]] = {"phase": _SPLITS, "stop_reason": tuple(StopReason)}


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_KINDS: dict[str, Callable[[str], Any]] = {
    "step": int,
    "item_id": str,
    "phase": str,
    "stop_reason": str,
    "min_reward": _finite,
    "max_reward": _finite,
}
"""Fields of `EpisodeFilter`, and how their text is read."""


def filter_of(conditions: Iterable[str]) -> EpisodeFilter:
    """The filter that conditions such as `step=3` make; raises UserError for one that cannot be read."""
    read: dict[str, Any] = {}
    for condition in conditions:
        name, _, value = condition.partition("=")
        try:
            read[name] = _KINDS[name](value)
        except (KeyError, ValueError):
            raise UserError(
                f"--where {condition!r} cannot be read; expected `FIELD=VALUE` with one of the fields "
                f"{', '.join(_KINDS)}, for example `step=3`. Mend it",
                param="--where",
            ) from None
        if value not in (words := _WORDS.get(name, (value,))):
            message = (
                f"--where {condition!r} can be true of no episode; expected {name} to be {', '.join(words)}. Mend it"
            )
            raise UserError(message, param="--where")
    return EpisodeFilter(**read)


def episodes_of(
    store: Store, job_id: str, wanted: EpisodeFilter, *, after: str | None, limit: int
) -> list[EpisodeRecord]:
    """By step, in the order they were played; raises UserError where `after` is none of the job's."""
    return store.list_episodes(job_id, wanted=wanted, after=after, limit=limit)


def episode_of(store: Store, job_id: str, episode_id: str) -> EpisodeRecord:
    """One episode of this job; raises UserError (`not_found`) for another job's, too."""
    record = store.get_episode(episode_id)
    if record.job_id != job_id:
        raise UserError(
            f"job {job_id} has no episode {episode_id!r}; list its episodes for those there are",
            param="episode_id",
            code="not_found",
        )
    return record


def export(store: Store, job_id: str, wanted: EpisodeFilter) -> Iterator[str]:
    """Every episode as a line of JSON in OpenAI's trace shape, with its row where the job's files still have it.

    Reads a page at a time: memory does not grow with the number of episodes.
    """
    job, document = stored_job(store, job_id), store.get_job(job_id)
    rows, trained = _rows(job), ModelName.of_job(document)
    started_from = (document.get("request") or {}).get("model") or base_name(job.model)
    reinforcement = job.spec.method.reinforcement
    threshold = 0.5 if reinforcement is None else reinforcement.grader.pass_threshold
    after: str | None = None
    while page := episodes_of(store, job_id, wanted, after=after, limit=_PAGE):
        for record in page:
            at = re.fullmatch(r"step-0*(\d+)", record.stage)  # checkpoints are validated under their names
            model = str(trained.at_step(int(at[1]))) if at and int(at[1]) else started_from
            line = export_line(record, model=model, item=rows.get(record.episode.item_id), pass_threshold=threshold)
            yield json.dumps(line, ensure_ascii=True) + "\n"
        after = page[-1].episode.id


def _rows(job: StoredJob) -> dict[str, Item]:
    """Items of the job's splits by id, those to train on first; none where a file is gone."""
    found: dict[str, Item] = {}
    for split in (*_SPLITS, *job.spec.data.splits):
        if job.spec.data.path_of(split) is None:
            continue
        try:
            items = items_of(job.spec, job.base_dir, split)
        except UserError:  # moved or changed since: the episodes are whole without
            continue
        for item in items:
            found.setdefault(item.id, item)
    return found
