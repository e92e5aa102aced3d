"""One task and seed of a training benchmark: what is trained, what it is measured on, and the figures as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrft import build
from agentrft.jobs.rows import items_of
from agentrft.jobs.spec import JobSpec
from agentrft.ladder.measure import Measured
from agentrft.train.log import EvaluationDone, Notice, Progress, StepDone
from agentrft.types import Item

ALL_EPISODES = 1_000_000
"""More than any job has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """One task and seed: what is trained and what it is measured on."""

    task: str
    spec: JobSpec
    base_dir: Path
    splits: Sequence[str]
    n_items: int
    samples: int
    validation_items: int
    """Items that choose the best checkpoint; 0 where the last one is the result."""
    load: build.LoadEngine | None = None
    """Opens the engine; None for the one that the job asks for."""

    def items(self, split: str) -> list[Item]:
        """The items of a split that this study uses."""
        most = self.validation_items if split == "validation" else self.n_items
        return items_of(self.spec, self.base_dir, split)[:most]

    @property
    def pass_threshold(self) -> float:
        """The grade from which on an episode is solved."""
        return build.pass_threshold_of(self.spec)


def say(progress: Progress) -> None:
    """One line for a step, an evaluation or a notice."""
    match progress:
        case StepDone(step=step, steps=steps, metrics=metrics):
            shown = {name: metrics[name] for name in ("reward_mean", "calls_mean", "signal_frac") if name in metrics}
            print(f"    step {step}/{steps} " + " ".join(f"{k}={v:.3f}" for k, v in shown.items()), flush=True)
        case EvaluationDone(split=split, stage=stage, reward=reward):
            print(f"    {stage} on {split}: {reward.mean:.3f} [{reward.low:.3f}, {reward.high:.3f}]", flush=True)
        case Notice(message=message):
            print(f"    {message}", flush=True)
        case _:
            pass


def gains(before: Mapping[str, Measured], after: Mapping[str, Measured]) -> dict[str, Any]:
    """The paired gain in reward by split."""
    return {split: one.gain_over(before[split]).to_json() for split, one in after.items() if split in before}


def figures(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Means with their intervals by split."""
    found = {split: one.figures() for split, one in measured.items()}
    return {
        split: {
            "reward": one.reward.to_json(),
            "success": one.success.to_json(),
            "calls": one.calls.to_json(),
            "parse_rate": one.parse_rate.to_json(),
        }
        for split, one in found.items()
    }


def as_lists(measured: Mapping[str, Measured]) -> dict[str, Any]:
    """Every episode's numbers, so that any later comparison can pair them; `from_lists` reads them."""
    names = Measured.__dataclass_fields__
    return {split: {name: getattr(one, name) for name in names} for split, one in measured.items()}


def from_lists(document: Mapping[str, Any]) -> dict[str, Measured]:
    """What `as_lists` made, after JSON."""
    return {split: Measured(**fields) for split, fields in document.items()}
