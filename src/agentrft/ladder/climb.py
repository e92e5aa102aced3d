"""Climbs the ladder: base model → supervised warm-up → reinforcement, measured on held-out items at each rung.

Every piece (a stage's weights, a stage's figures on a split) is on the disk when it is done: an interrupted climb of
the same plan goes on with the first piece that is missing.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from agentrft import build
from agentrft.home import home
from agentrft.jobs.models import Weights, find_weights, published_step
from agentrft.jobs.rows import items_of
from agentrft.jobs.service import Kind, StoredJob, create_job, stored_job
from agentrft.jobs.spec import JobSpec
from agentrft.ladder import measure
from agentrft.ladder.result import LadderResult, StageRun
from agentrft.ladder.state import LadderState, open_ladder
from agentrft.ladder.stops import Stops
from agentrft.runtime.inprocess import train_in
from agentrft.runtime.training import Watcher
from agentrft.store import SqlStore
from agentrft.train.log import RunLog
from agentrft.train.plan import TrainResult
from agentrft.train.stop import ShouldStop
from agentrft.types import Item

OpenWatch = Callable[[str, int | None], AbstractContextManager[Watcher]]
"""(what is about to run, optimiser steps or None) → who watches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderPlan:
    """What to climb and how to measure it."""

    task: str
    spec: JobSpec
    base_dir: Path
    file_name: str = "job.yaml"
    """Of the job, in `base_dir`."""
    command: str | None = None
    """What the user typed to begin this climb, and types to go on with it; None for `agentrft climb --only-train`."""
    splits: Sequence[str] = ("test",)
    """Held-out splits; the first is the one that headlines quote."""
    n_items: int = 100
    """Items measured of each split, from its beginning."""
    samples: int = 2
    """Episodes per item, at temperature 1."""
    validation_items: int = 50
    """Items that choose the best reinforcement checkpoint, from the beginning of the validation split."""

    @property
    def seed(self) -> int:
        return self.spec.seed

    @property
    def key(self) -> str:
        """Names the plan: equal plans continue each other's climb."""
        document = {
            "spec": self.spec.model_dump(mode="json"),
            "sizes": [list(self.splits), self.n_items, self.samples, self.validation_items],
        }
        digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
        return f"{self.task}-seed{self.seed}-{digest[:8]}"


async def climb(
    plan: LadderPlan,
    store: SqlStore,
    *,
    open_watch: OpenWatch = lambda title, steps: nullcontext(lambda progress: None),
    should_stop: ShouldStop = lambda: None,
    deadline_s: float | None = None,
    again: bool = False,
    load: build.LoadEngine | None = None,
) -> LadderResult:
    """Run what is missing of the plan and return what there is; a complete climb comes back as it was, unless `again`.

    `should_stop` is asked after whole steps and ends the climb there. `deadline_s` (of `time.monotonic`) ends training
    after a whole step too, early enough to measure what was trained. `LadderResult.stopped` says which it was; the
    same plan climbed again goes on from there.
    """
    state = open_state(plan, again=again)
    climber = _Climber(plan, store, open_watch, Stops(should_stop, deadline_s), load, state)
    if state.is_complete:
        return climber.result(None)
    started = time.monotonic()
    try:
        stopped = await climber.supervised() or await climber.reinforcement()
    finally:
        climber.state.wall_s += time.monotonic() - started
        climber.state.save()
    if stopped is None:
        climber.state.is_complete = True
        climber.state.save()
    return climber.result(stopped)


class _Climber:
    """One climb: what is done, what is next."""

    def __init__(
        self,
        plan: LadderPlan,
        store: SqlStore,
        open_watch: OpenWatch,
        stops: Stops,
        load: build.LoadEngine | None,
        state: LadderState,
    ) -> None:
        self._plan = plan
        self._store = store
        self._open_watch = open_watch
        self._stops = stops
        self._load = load
        self.state = state
        self._base = find_weights(plan.spec.model, base_dir=plan.base_dir)

    async def supervised(self) -> str | None:
        """Measure the base model, warm it up on demonstrations, measure again; a reason when it was stopped."""
        job = self._job("sft", "supervised", start_from=None)
        if self._has("base") and self._has("sft"):
            return None
        async with self._open(job, self._base) as live:
            if not self._has("base"):
                await self._measure(live, job, "base", best_step=None)
            return self._stops() or await self._train_and_measure(live, job, "sft")

    async def reinforcement(self) -> str | None:
        """Reinforce the warmed-up model and measure it; a reason when it was stopped."""
        warm = self._refreshed("sft")
        job = self._job("rft", "reinforcement", start_from=warm.fine_tuned_model)
        if job.status == "succeeded" and self._has("rft", published_step(job.id)):
            return None
        if stopped := self._stops():
            return stopped
        async with self._open(job, find_weights(job.model)) as live:
            return await self._train_and_measure(live, job, "rft")

    def result(self, stopped: str | None) -> LadderResult:
        """What has been found so far."""
        stages = [
            StageRun(name=stage, measured=measured, train_s=self.state.train_s.get(stage, 0.0))
            for stage in ("base", "sft", "rft")
            if (measured := self._pieces(stage))
        ]
        return LadderResult(
            task=self._plan.task,
            spec=self._plan.spec,
            job_file=self._plan.base_dir / self._plan.file_name,
            command=self._plan.command,
            stages=stages,
            jobs={stage: self._refreshed(stage) for stage in self.state.jobs},
            wall_s=self.state.wall_s,
            stopped=stopped,
            folder=self.state.folder,
        )

    def _open(self, job: StoredJob, weights: Weights) -> AbstractAsyncContextManager[build.Live]:
        return build.open_job(job.spec, self._plan.base_dir, weights, training=True, load=self._load)

    async def _train_and_measure(self, live: build.Live, job: StoredJob, stage: str) -> str | None:
        if job.status != "succeeded":
            result = await self._train(live, job, stage)
            weights, step, stopped = result.best.path, result.best.step, result.stopped
        else:
            weights, step, stopped = find_weights(job.id).trained, published_step(job.id), None
        if stopped and (stage == "sft" or self._stops.asked()):
            return stopped
        if not self._has(stage, step):
            assert weights is not None, job.id
            await live.engine.learner.load_weights(weights)
            await self._measure(live, job, stage, best_step=step)
        return stopped

    async def _train(self, live: build.Live, job: StoredJob, stage: str) -> TrainResult:
        title = {"sft": "supervised fine-tuning", "rft": "reinforcement"}[stage]
        steps = job.spec.training.steps if stage == "rft" else 1
        started = time.monotonic()
        validation = self._items("validation", self._plan.validation_items)
        with self._open_watch(title, steps) as watch:
            outcome = await train_in(
                live, self._store, job, watch=watch, should_stop=self._stops, validation=validation
            )
        self.state.train_s[stage] = self.state.train_s.get(stage, 0.0) + time.monotonic() - started
        self.state.save()
        return outcome.result

    async def _measure(self, live: build.Live, job: StoredJob, stage: str, *, best_step: int | None) -> None:
        """Figures of the weights that are in the engine now."""
        started = time.monotonic()
        for split in self._plan.splits:
            with self._open_watch(f"{stage} on {split.replace('_', ' ')}", None) as watch:
                measured = await measure.play(
                    live,
                    RunLog(self._store, job.id, watch=watch),
                    self._items(split, self._plan.n_items),
                    self._plan.samples,
                    measure.Place(stage=stage, split=split, best_step=best_step),
                )
            measure.write(measured, self._piece_path(stage, split))
        self._stops.measuring_s = time.monotonic() - started

    def _items(self, split: str, count: int) -> list[Item]:
        return items_of(self._plan.spec, self._plan.base_dir, split)[:count]

    def _has(self, stage: str, best_step: int | None = None) -> bool:
        """All figures of the stage are there; of these very weights, when `best_step` says which."""
        pieces = self._pieces(stage)
        return len(pieces) == len(self._plan.splits) and (
            best_step is None or all(piece.best_step == best_step for piece in pieces.values())
        )

    def _pieces(self, stage: str) -> dict[str, measure.Measured]:
        read = ((split, measure.read(self._piece_path(stage, split))) for split in self._plan.splits)
        return {split: piece for split, piece in read if piece is not None}

    def _piece_path(self, stage: str, split: str) -> Path:
        return self.state.folder / f"{stage}-{split}.json"

    def _job(self, stage: str, kind: Kind, *, start_from: str | None) -> StoredJob:
        """The stage's job, made on the first climb and found again on later ones."""
        if stage not in self.state.jobs:
            spec = self._plan.spec
            spec = spec.model_copy(update={"method": spec.method.model_copy(update={"type": kind})})
            job = create_job(self._store, spec, self._plan.base_dir, start_from=start_from)
            self.state.jobs[stage] = job.id
            self.state.save()
        return self._refreshed(stage)

    def _refreshed(self, stage: str) -> StoredJob:
        return stored_job(self._store, self.state.jobs[stage])


def open_state(plan: LadderPlan, *, again: bool = False) -> LadderState:
    """The newest climb of this plan, or a new one; `again` makes a new one when the newest is complete."""
    return open_ladder(home() / "ladders", plan.key, again=again)
