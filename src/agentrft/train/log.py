"""Where a loop tells what it does: into the store, and to whoever watches.

Loops hand over typed records and never format them; the store gets what must last, `watch` gets everything as it
happens (the command line draws its bars from it).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

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
    validation_follows: bool = False
    """Its validation is not among the metrics, and comes next."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFigures:
    """Everything that is known of a step once it is over, its validation included."""

    step: int
    steps: int
    metrics: Mapping[str, float]
    train: Sequence[EpisodeRecord] = ()
    """Episodes of the step; none but in reinforcement."""
    validation: Sequence[EpisodeRecord] = ()


Progress = EpisodeDone | StepDone | EvaluationDone | CheckpointSaved | Notice


Tell = Callable[[StepFigures], tuple[str, Mapping[str, Any]]]
"""What the event of a step says: a line to read, and its data."""


class RunLog:
    """The log of one job."""

    def __init__(
        self,
        store: Store,
        job_id: str,
        *,
        watch: Callable[[Progress], None] = lambda progress: None,
        tell: Tell | None = None,
    ) -> None:
        """With `tell` every step is an event of type `metrics` as well, written once its validation is known."""
        self.job_id = job_id
        self.watch = watch
        """Called with every Progress record; it must not block."""
        self._store = store
        self._tell = tell
        self._told: dict[Phase, list[EpisodeRecord]] = {"train": [], "validation": [], "test": []}
        """Episodes since the last event."""
        self._untold: StepDone | None = None
        """A step whose event waits for its validation."""

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
        self._untold = done
        if not done.validation_follows:
            self._tell_step({})

    def evaluation(self, done: EvaluationDone, metrics: Mapping[str, float]) -> None:
        """An evaluation; `metrics`, where there are any, are stored under its step."""
        if metrics:
            self._store.add_metrics(self.job_id, done.step, metrics)
            self._tell_step(metrics)
        self.watch(done)

    def measured(self, step: int, metrics: Mapping[str, float]) -> None:
        """Further figures of a step, beside those that it is told with."""
        self._store.add_metrics(self.job_id, step, metrics)

    def episodes(self, records: Sequence[EpisodeRecord]) -> None:
        """Episodes with their grades and what training made of them."""
        self._store.add_episodes(self.job_id, records)
        if self._tell:
            for record in records:
                self._told[record.phase].append(record)

    def checkpoint(self, checkpoint: Checkpoint, metrics: Mapping[str, float], *, is_best: bool) -> None:
        """A checkpoint that is already on disk."""
        self._tell_step({})  # of a step that was stopped before its validation
        path = str(checkpoint.path)
        self._store.add_checkpoint(self.job_id, checkpoint.step, path, metrics)
        self.watch(CheckpointSaved(step=checkpoint.step, path=path, is_best=is_best))

    def _tell_step(self, validated: Mapping[str, float]) -> None:
        """The event of the step that waits for one, if any."""
        done, told = self._untold, self._told
        self._untold, self._told = None, {"train": [], "validation": [], "test": []}
        if done is None or self._tell is None:
            return
        figures = StepFigures(
            step=done.step,
            steps=done.steps,
            metrics={**done.metrics, **validated},
            train=told["train"],
            validation=told["validation"],
        )
        message, data = self._tell(figures)
        self._store.add_event(self.job_id, message, data=data, type="metrics")
