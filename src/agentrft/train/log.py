"""Where a loop tells what it does: into the store, and to whoever watches.

Loops hand over typed records and never format them; the store gets what must last, `watch` gets everything as it
happens (the command line draws its bars from it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from agentrft.protocols import EpisodeRecord, Store
from agentrft.stats import Interval
from agentrft.train.checkpoint import Checkpoint
from agentrft.types import Alarm

Phase = Literal["train", "validation", "test"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeDone:
    """One episode ended and was graded."""

    phase: Phase
    step: int
    done: int
    planned: int
    """Episodes of this step or evaluation; grows when groups are refilled."""
    grade: float | None
    tokens: int
    """Tokens it generated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """One optimiser step ended."""

    step: int
    steps: int
    metrics: Mapping[str, float]
    """Names and units in `agentrft.train.metrics`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationDone:
    """One evaluation ended."""

    split: str
    stage: str
    step: int
    reward: Interval
    success: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved:
    """A checkpoint is on disk."""

    step: int
    path: str
    is_best: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """Something a person should know."""

    message: str
    level: Literal["info", "warn", "error"] = "info"


Progress = EpisodeDone | StepDone | EvaluationDone | CheckpointSaved | Notice


class RunLog:
    """The log of one job."""

    def __init__(self, store: Store, job_id: str, *, watch: Callable[[Progress], None] = lambda progress: None) -> None:
        self.job_id = job_id
        self.watch = watch
        """Called with every Progress record; it must not block."""
        self._store = store

    def notice(self, message: str, level: Literal["info", "warn", "error"] = "info") -> None:
        """An event of the job."""
        self._store.add_event(self.job_id, message, level=level)
        self.watch(Notice(message=message, level=level))

    def alarms(self, step: int, alarms: Sequence[Alarm]) -> None:
        """An event for each; its data say how the alarm came about."""
        for alarm in alarms:
            level = "error" if alarm.level == "stop" else "warn"
            self._store.add_event(self.job_id, alarm.message, level=level, data={"step": step, **asdict(alarm)})
            self.watch(Notice(message=alarm.message, level=level))

    def step(self, done: StepDone) -> None:
        """Metrics of a step; a step repeated after a resume replaces its earlier self."""
        self._store.add_metrics(self.job_id, done.step, done.metrics)
        self.watch(done)

    def evaluation(self, done: EvaluationDone, metrics: Mapping[str, float]) -> None:
        """An evaluation; `metrics`, where there are any, are stored under its step."""
        if metrics:
            self._store.add_metrics(self.job_id, done.step, metrics)
        self.watch(done)

    def episodes(self, records: Sequence[EpisodeRecord]) -> None:
        """Episodes with their grades and what training made of them."""
        self._store.add_episodes(self.job_id, records)

    def checkpoint(self, checkpoint: Checkpoint, metrics: Mapping[str, float], *, is_best: bool) -> None:
        """A checkpoint that is already on disk."""
        path = str(checkpoint.path)
        self._store.add_checkpoint(self.job_id, checkpoint.step, path, metrics)
        self.watch(CheckpointSaved(step=checkpoint.step, path=path, is_best=is_best))
