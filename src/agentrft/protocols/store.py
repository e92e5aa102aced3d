"""Where jobs, events, metrics, checkpoints and episodes are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from agentrft.types import Episode, Grade


class Store(Protocol):
    """Durable records of jobs, events, metrics, checkpoints and episodes. Short transactions only.

    Unknown ids raise UserError; a database that refuses raises StoreFault.
    """

    def create_job(self, job: Mapping[str, Any]) -> None: ...
    def get_job(self, job_id: str) -> dict[str, Any]: ...
    def list_jobs(self, *, limit: int = 20, after: str | None = None) -> list[dict[str, Any]]:
        """Newest first."""
        ...

    def update_job(self, job_id: str, fields: Mapping[str, Any]) -> None:
        """Set keys of the job's document; never its status."""
        ...

    def set_job_status(self, job_id: str, status: str, *, error: Mapping[str, Any] | None = None) -> None:
        """The only way a status changes; writes the event in the same transaction. UserError when not legal."""
        ...

    def claim_job(self, job_id: str, owner: str, lease_s: float) -> int:
        """A fencing token that voids every earlier one; UserError while another owner's lease runs."""
        ...

    def heartbeat(self, job_id: str, token: int, lease_s: float) -> None: ...
    def release_job(self, job_id: str, token: int) -> None: ...
    def fenced(self, job_id: str, token: int) -> Store:
        """The same store for the holder of `token`: every write raises StoreFault once the token is stale."""
        ...

    def add_event(
        self, job_id: str, message: str, *, level: str = "info", data: Mapping[str, Any] | None = None
    ) -> None: ...
    def list_events(self, job_id: str) -> list[dict[str, Any]]:
        """`{id, created_at, level, message, data}`, oldest first."""
        ...

    def add_metrics(self, job_id: str, step: int, metrics: Mapping[str, float]) -> None: ...
    def list_metrics(self, job_id: str) -> list[dict[str, Any]]:
        """`{step, metrics: {name: value}}` by step; None where the value was no finite number."""
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
    def list_episodes(self, job_id: str, *, step: int | None = None, limit: int = 100) -> list[EpisodeRecord]: ...
    def close(self) -> None: ...


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
