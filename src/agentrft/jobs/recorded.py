"""What a recorded episode was played with: its item, and the weights, as far as they are kept."""

from __future__ import annotations

from agentrft.errors import UserError
from agentrft.jobs.models import published_step
from agentrft.jobs.rows import items_of
from agentrft.jobs.service import StoredJob
from agentrft.protocols import EpisodeRecord, Store
from agentrft.train.checkpoint import checkpoint_name
from agentrft.types import Item

_FIELDS = ("train", "validation", "test")


def item_of(job: StoredJob, record: EpisodeRecord) -> Item:
    """The item that the episode was played on, from the job's files as they are now; raises UserError without it.

    Splits may use the same ids: the recorded split comes first, and then where the prompt is the episode's own.
    """
    data, episode = job.spec.data, record.episode
    own = record.extra.get("split", record.phase)
    names = dict.fromkeys((own, *_FIELDS, *data.splits))
    splits = [name for name in names if data.path_of(name) is not None]
    other: Item | None = None
    for name in splits:
        item = next((one for one in items_of(job.spec, job.base_dir, name) if one.id == episode.item_id), None)
        if item is not None and episode.messages[: len(item.messages)] == item.messages:
            return item
        other = other or item
    if other is None:
        raise UserError(
            f"item {episode.item_id!r} of episode {episode.id} is in none of the job's files; looked in "
            f"{', '.join(splits) or 'none'}, expected the rows that it was played on",
            param="episode",
            code="not_repeatable",
        )
    return other


def model_of(store: Store, job: StoredJob, record: EpisodeRecord) -> str:
    """The model that played the episode, as `--model` takes it; raises UserError where it is not known or not kept."""
    episode, stage = record.episode, record.stage
    if episode.tokens is None:
        raise _unknown(episode.id, "a model behind an API played it. Next: --endpoint URL --endpoint-model NAME")
    if "climb" in store.get_job(job.id):
        raise _unknown(episode.id, f"it is of the rung {stage!r} of a climb. Next: --model with that rung's model")
    if job.kind == "evaluation" or stage == "base":
        return job.model
    if record.phase == "train":
        return _checkpoint(job, episode.step - 1, episode.id)
    if stage.startswith("step-"):
        return _checkpoint(job, int(stage.removeprefix("step-")), episode.id)
    return job.id  # measured after training: its result


def _checkpoint(job: StoredJob, step: int, episode_id: str) -> str:
    """The weights after that optimiser step; step 0 is what training started from."""
    folder = job.folder / "checkpoints"
    if (folder / checkpoint_name(step)).is_dir():
        return str(folder / checkpoint_name(step))
    if step == 0:
        return job.model
    if job.status == "succeeded" and published_step(job.id) == step:
        return job.id
    kept = sorted(folder.glob("step-*"), key=lambda path: abs(int(path.name.removeprefix("step-")) - step))
    nearest = f"the nearest that are: {kept[0]}" if kept else "and the job has no other checkpoint either"
    raise _unknown(
        episode_id,
        f"the weights after step {step} of job {job.id}, which played it, are not kept; {nearest}. Next: --model with "
        "a checkpoint near enough for you",
    )


def _unknown(episode_id: str, why: str) -> UserError:
    return UserError(f"which model played {episode_id}? {why}", param="--model", code="model_not_found")
