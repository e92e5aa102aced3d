"""Where jobs, events, metrics, checkpoints and episodes are kept."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from agentrft.types import Episode, Grade


class Store(Protocol):
    """Durable records of jobs, events, metrics, checkpoints and episodes. Short transactions only.

    Unknown ids raise UserError; a database that refuses raises StoreFault.
    """

    def create_job(self, job: Mapping[str, Any]) -> None: ...
    def get_job(self, job_id: str, *, project: str | None = None) -> dict[str, Any]:
        """Of that project where one is given: another's is unknown."""
        ...

    def list_jobs(
        self,
        *,
        limit: int = 20,
        after: str | None = None,
        project: str | None = None,
        metadata: Mapping[str, str] | Literal["null"] | None = None,
    ) -> list[dict[str, Any]]:
        """Newest first; `metadata` keeps jobs that have these pairs, or as "null" those that have none."""
        ...

    def update_job(self, job_id: str, fields: Mapping[str, Any]) -> None:
        """Set keys of the job's document; never its status."""
        ...

    def set_job_status(self, job_id: str, status: str, *, error: Mapping[str, Any] | None = None) -> None:
        """The only way a status changes; writes the event in the same transaction. UserError when not legal."""
        ...

    def cancel_job(self, job_id: str) -> None:
        """Cancelled, and lost to whoever works on it."""
        ...

    def ask(self, job_id: str, wish: Literal["pause", "cancel"] | None) -> None:
        """Tell whoever works on the job what the user wants."""
        ...

    def claim_job(self, job_id: str, owner: str, lease_s: float) -> int:
        """A fencing token that voids every earlier one; UserError while another owner's lease runs."""
        ...

    def claim_next(self, owner: str, lease_s: float) -> tuple[str, int] | None:
        """Id and token of the oldest queued job that servers run and nobody holds, now running; None without one."""
        ...

    def heartbeat(self, job_id: str, token: int, lease_s: float, *, owner: str | None = None) -> None: ...
    def release_job(self, job_id: str, token: int) -> None: ...
    def lapsed(self) -> list[dict[str, Any]]:
        """Jobs that servers run, not final, whose owner let its lease run out; each with its `token`."""
        ...

    def requeue(self, job_id: str, message: str, *, token: int) -> bool:
        """Take a job from an owner that died holding `token`, and queue it; False when that is not so any more."""
        ...

    def fenced(self, job_id: str, token: int) -> Store:
        """The same store for the holder of `token`: every write raises StoreFault once the token is stale."""
        ...

    def add_event(
        self,
        job_id: str,
        message: str,
        *,
        level: str = "info",
        data: Mapping[str, Any] | None = None,
        type: Literal["message", "metrics"] = "message",
    ) -> None: ...
    def list_events(
        self, job_id: str, *, after: str | None = None, limit: int | None = None, newest_first: bool = False
    ) -> list[dict[str, Any]]:
        """`{id, created_at, level, type, message, data}`, oldest first unless told otherwise."""
        ...

    def add_metrics(self, job_id: str, step: int, metrics: Mapping[str, float]) -> None: ...
    def list_metrics(
        self, job_id: str, *, after: int | None = None, limit: int | None = None, steps: Collection[int] | None = None
    ) -> list[dict[str, Any]]:
        """`{step, metrics: {name: value}}` by step; None where the value was no finite number.

        Of all steps, or of those behind `after`, at most `limit`, and among `steps`.
        """
        ...

    def add_checkpoint(self, job_id: str, step: int, path: str, metrics: Mapping[str, float]) -> str:
        """The checkpoint's id; the same step again replaces it."""
        ...

    def list_checkpoints(self, job_id: str) -> list[dict[str, Any]]:
        """`{id, step, path, metrics, created_at}` by step."""
        ...

    def add_episodes(self, job_id: str, records: Sequence[EpisodeRecord]) -> None:
        """All or none; an episode that is there already is replaced."""
        ...

    def get_episode(self, episode_id: str) -> EpisodeRecord: ...
    def list_episodes(
        self,
        job_id: str,
        *,
        step: int | None = None,
        wanted: EpisodeFilter | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[EpisodeRecord]:
        """By step, in the order they were added: of one step, of those that are wanted, behind the episode `after`."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeFilter:
    """Which episodes; None takes all."""

    step: int | None = None
    item_id: str | None = None
    phase: str | None = None
    stop_reason: str | None = None
    min_reward: float | None = None
    max_reward: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeRecord:
    """An episode as it is stored and shown: with its grade and what training made of it."""

    job_id: str
    phase: Literal["train", "validation", "test"]
    stage: str
    """Which model produced it: `base`, `sft`, `rft`, or a checkpoint name."""
    episode: Episode
    grade: Grade
    reward: float | None = None
    """None when the episode was out of the loss."""
    advantage: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
