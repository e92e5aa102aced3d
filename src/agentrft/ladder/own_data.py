"""Training files from the episodes of a diagnosis: own successes to imitate, own pairs to compare."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from agentrft.build import pass_threshold_of
from agentrft.data.collect import collect_bad, collect_good, demonstration_rows, rated_rows
from agentrft.data.export import write_rows
from agentrft.data.pairs import PairRules, pair_row, pair_up
from agentrft.jobs.rows import Lead, row_tools
from agentrft.jobs.spec import JobSpec
from agentrft.ladder.rungs import KINDS, Method
from agentrft.protocols import EpisodeRecord, Store

_PER_ITEM = 4
_MOST_EPISODES = 1_000_000


def method_spec(
    spec: JobSpec, base_dir: Path, method: Method, records: Sequence[EpisodeRecord], path: Path
) -> JobSpec | None:
    """The job that trains by this method, its data in `path` where they come from the episodes; None without any."""
    chosen = spec.method.model_copy(update={"type": KINDS[method]})
    if method in ("supervised", "reinforcement"):
        return spec.model_copy(update={"method": chosen})
    rows = own_rows(spec, base_dir, method, records)
    if not rows:
        return None
    write_rows(path, rows, param="--out")
    field = "demonstrations" if method == "rejection" else "preferences"
    data = spec.data.model_copy(update={field: str(path), f"{field}_validation": None})
    return spec.model_copy(update={"method": chosen, "data": data})


def own_rows(spec: JobSpec, base_dir: Path, method: Method, records: Sequence[EpisodeRecord]) -> list[dict[str, Any]]:
    """Rows of demonstrations (`rejection`), of pairs, or of rated conversations where the job's loss is KTO's."""
    lead = Lead.of(spec, base_dir)
    records = [_without_examples(record, lead) for record in records]
    tools, threshold = row_tools(spec, base_dir), pass_threshold_of(spec)
    if method == "rejection":
        return demonstration_rows(collect_good(records, min_reward=threshold, per_item=_PER_ITEM).records, tools)
    if spec.method.dpo.loss.type == "kto":
        good = collect_good(records, min_reward=threshold, per_item=_PER_ITEM).records
        bad = collect_bad(records, max_reward=threshold, per_item=_PER_ITEM).records
        return rated_rows(good, bad, tools) if good and bad else []
    return [pair_row(pair, tools.get(pair.item_id, ())) for pair in pair_up(records, PairRules()).pairs]


def same_episodes(spec: JobSpec, episodes: int) -> JobSpec:
    """The reinforcement job with that many training episodes, or a step's less: silent groups are not replaced."""
    method = spec.method.reinforcement
    assert method is not None
    group = spec.training.group_size
    batch = max(1, min(method.hyperparameters.batch_size, episodes // group))
    steps = max(1, episodes // (batch * group))
    hyperparameters = method.hyperparameters.model_copy(update={"batch_size": batch})
    reinforcement = method.model_copy(update={"hyperparameters": hyperparameters})
    training = spec.training.model_copy(update={"steps": steps, "oversample": 1.0})
    chosen = spec.method.model_copy(update={"reinforcement": reinforcement})
    return spec.model_copy(update={"method": chosen, "training": training})


def episodes_of(store: Store, job_id: str) -> Sequence[EpisodeRecord]:
    """Every episode of a diagnosis."""
    return store.list_episodes(job_id, limit=_MOST_EPISODES)


def _without_examples(record: EpisodeRecord, lead: Lead) -> EpisodeRecord:
    """The episode without the job's worked examples, which a row gets again when it is read."""
    messages, shown = record.episode.messages, lead.demos
    start = sum(message.role == "system" for message in messages[:1])
    if not shown or messages[start : start + len(shown)] != shown:
        return record
    rest = (*messages[:start], *messages[start + len(shown) :])
    return replace(record, episode=replace(record.episode, messages=rest))
