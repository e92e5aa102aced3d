"""What a climb found: as JSON, as a report for people, and in one sentence that claims no more than the figures."""

from __future__ import annotations

import datetime
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrft.jobs.service import StoredJob
from agentrft.jobs.spec import JobSpec
from agentrft.ladder.measure import Measured
from agentrft.report.model import Comparison, NextStep, Report, Stage, StageFigures
from agentrft.report.wording import bounds, duration, number
from agentrft.runtime.machine import cores, versions
from agentrft.runtime.summary import compare_episodes, curves, settings_of
from agentrft.stats import Interval
from agentrft.store import SqlStore

SCHEMA = 1
"""Of `to_json`'s document; raised when a field changes its meaning."""

_LABELS = {
    "base": "the model as it comes",
    "sft": "after supervised fine-tuning",
    "rft": "after reinforcement fine-tuning",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """One rung that was reached."""

    name: str
    measured: Mapping[str, Measured]
    """By split."""
    train_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderResult:
    """What there is after a climb, complete or not."""

    task: str
    spec: JobSpec
    job_file: Path
    command: str | None
    """What goes on with this climb; None for `agentrft climb JOB --only-train`."""
    stages: Sequence[StageRun]
    jobs: Mapping[str, StoredJob]
    """By stage: the jobs that trained it."""
    wall_s: float
    stopped: str | None
    """Why the climb ended early; None when it is complete."""
    folder: Path
    """The climb's own files; the report belongs there."""

    @property
    def rft_gain(self) -> Mapping[str, Interval]:
        """Reward of rft over sft, paired by item, by split; empty when rft was not reached."""
        return self._gains("sft", "rft")

    def to_json(self) -> dict[str, Any]:
        """`{schema, seed, task, stages, rft_gain, wall_s, …}`; a stage that was not reached is null."""
        by_name = {stage.name: stage for stage in self.stages}
        gains = self.rft_gain
        main = next(iter(gains), None)
        return {
            "schema": SCHEMA,
            "seed": self.spec.seed,
            "task": self.task,
            "stages": {name: _stage_json(by_name[name]) if name in by_name else None for name in _LABELS},
            "rft_gain": None if main is None else gains[main].to_json(),
            "rft_gain_by_split": {split: gain.to_json() for split, gain in gains.items()},
            "wall_s": self.wall_s,
            "stopped": self.stopped,
            "jobs": {stage: job.id for stage, job in self.jobs.items()},
            "model": self.trained_model,
        }

    @property
    def trained_model(self) -> str | None:
        """Name of the last finished stage's weights."""
        names = [self.jobs[stage].fine_tuned_model for stage in ("rft", "sft") if stage in self.jobs]
        return next((name for name in names if name), None)

    def report(self, store: SqlStore) -> Report:
        """The report of this climb, its curves and transcripts read from the store."""
        rft = self.jobs.get("rft")
        steps, validations = curves(store, rft.id) if rft else ([], [])
        measured = next((stage.measured for stage in self.stages if stage.name == "rft"), None)
        return Report(
            kind=f"agentrft {'quickstart' if self.command else 'climb'} · {self.task}",
            headline=self.headline(),
            lede=self._lede(),
            facts=self._facts(),
            stages=[self._stage(stage) for stage in self.stages],
            gains=self._all_gains(),
            steps=steps,
            validations=validations,
            best_step=None if measured is None else next(iter(measured.values())).best_step,
            comparisons=self._comparisons(store),
            next_steps=self.next_steps(store),
            notes=self._notes(),
            settings=settings_of(self.spec),
            versions=versions(),
        )

    def headline(self) -> str:
        """One sentence; "rose" only where the interval is above zero."""
        split, gain = next(iter(self.rft_gain.items()), ("", None))
        if gain is None:
            return f"The climb stopped before reinforcement was measured on {self.task}"
        before, after = (self._figures(stage, split).reward.mean for stage in ("sft", "rft"))
        change = f"from {number(before)} to {number(after)}"
        if gain.low > 0:
            return f"Reinforcement raised the reward on {gain.n_items} unseen items {change}"
        if gain.high < 0:
            return f"Reinforcement lowered the reward on {gain.n_items} unseen items {change}"
        return f"No reliable change by reinforcement on {gain.n_items} unseen items: {change}"

    def next_steps(self, store: SqlStore) -> list[NextStep]:
        """Commands that make sense now."""
        job_file = _typed(self.job_file)
        if self.stopped:
            command = self.command or f"agentrft climb {job_file} --only-train --seed {self.spec.seed}"
            return [NextStep(what="go on where this stopped", command=command)]
        steps = []
        if self.trained_model:
            steps.append(
                NextStep(
                    what="ask the trained agent something yourself",
                    command=f"agentrft chat {self.trained_model} --job {job_file}",
                )
            )
        episodes = [shown.episode.id for one in self._comparisons(store) for shown in one.episodes]
        if episodes:
            steps.append(NextStep(what="read a whole episode", command=f"agentrft show {episodes[-1][:11]}"))
        steps.append(NextStep(what="train on your own task: start from this job file", command=f"cat {job_file}"))
        other = self.job_file.parents[1] / "units" / "job.yaml"
        if other.is_file():
            steps.append(NextStep(what="the next example", command=f"agentrft run {_typed(other)}"))
        return steps

    def _lede(self) -> str:
        gain = next(iter(self.rft_gain.values()), None)
        model = Path(self.spec.model).name
        if gain is None:
            return f"{model}: what was measured so far is below."
        sentence = (
            f"{model} was first fine-tuned on demonstrations, then by Agent RFT, on this machine. The paired gain of "
            f"the second over the first is {number(gain.mean, sign='+')}, 95 % interval {bounds(gain)}, at temperature "
            f"1 on {gain.n_items} items that no stage was trained on."
        )
        return sentence + " One training run: the interval covers the items, not another seed's luck."

    def _facts(self) -> list[tuple[str, str]]:
        return [
            ("model", Path(self.spec.model).name),
            ("task", self.task),
            ("seed", str(self.spec.seed)),
            ("time", f"{duration(self.wall_s)} on {cores()} cores"),
            ("made", datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")),
        ]

    def _notes(self) -> list[str]:
        return [f"This climb is not complete: {self.stopped}."] if self.stopped else []

    def _all_gains(self) -> list[tuple[str, Interval]]:
        pairs = (("rft", "sft"), ("sft", "base"))
        return [
            (f"{after} over {before}, {split.replace('_', ' ')}", gain)
            for after, before in pairs
            for split, gain in self._gains(before, after).items()
        ]

    def _gains(self, before: str, after: str) -> dict[str, Interval]:
        by_name = {stage.name: stage.measured for stage in self.stages}
        if before not in by_name or after not in by_name:
            return {}
        return {
            split: measured.gain_over(by_name[before][split])
            for split, measured in by_name[after].items()
            if split in by_name[before]
        }

    def _figures(self, stage: str, split: str) -> StageFigures:
        return next(one for one in self.stages if one.name == stage).measured[split].figures()

    def _stage(self, stage: StageRun) -> Stage:
        figures = {split: measured.figures() for split, measured in stage.measured.items()}
        return Stage(name=stage.name, label=_LABELS[stage.name], figures=figures, wall_s=stage.train_s)

    def _comparisons(self, store: SqlStore) -> list[Comparison]:
        if "sft" not in self.jobs or "rft" not in self.jobs:
            return []
        before, after = (self.jobs[stage].id for stage in ("sft", "rft"))
        return compare_episodes(store, ("before reinforcement", before, "sft"), ("after reinforcement", after, "rft"))


def _stage_json(stage: StageRun) -> dict[str, Any]:
    """Figures of the first split at the top, of every split under `splits`."""
    splits = {split: _figures_json(measured.figures()) for split, measured in stage.measured.items()}
    steps = {measured.best_step for measured in stage.measured.values()}
    return {**next(iter(splits.values())), "splits": splits, "train_s": stage.train_s, "step": steps.pop()}


def _figures_json(figures: StageFigures) -> dict[str, Any]:
    return {
        "reward": figures.reward.to_json(),
        "success": figures.success.to_json(),
        "calls": figures.calls.to_json(),
        "parse_rate": figures.parse_rate.to_json(),
        "stop_reasons": dict(figures.stop_reasons),
    }


def _typed(path: Path) -> str:
    """The path as one would type it here."""
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))
