"""One stage measured on one split, as numbers per item that a later comparison can pair; kept as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from agentrft import build
from agentrft.report.model import StageFigures
from agentrft.stats import Interval, cluster_bootstrap, paired_cluster_bootstrap
from agentrft.train.evaluate import EvalPlan, Evaluation, evaluate
from agentrft.train.log import RunLog
from agentrft.types import Item
from agentrft.writing import write_whole

ValuesPerItem = Sequence[Sequence[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Results of every episode of a stage on a split, in the order of its items."""

    stage: str
    split: str
    item_ids: Sequence[str]
    reward_I_K: ValuesPerItem
    success_I_K: ValuesPerItem
    calls_I_K: ValuesPerItem
    readable_I_K: ValuesPerItem
    stop_reasons: Mapping[str, int]
    best_step: int | None = None
    """Optimiser step of the weights that played; None for the base model."""

    @classmethod
    def of(cls, evaluation: Evaluation, *, best_step: int | None) -> Measured:
        """The numbers of an evaluation."""
        return cls(
            stage=evaluation.plan.stage,
            split=evaluation.plan.split,
            item_ids=[item.id for item in evaluation.plan.items],
            reward_I_K=evaluation.reward_I_K,
            success_I_K=evaluation.success_I_K,
            calls_I_K=evaluation.calls_I_K,
            readable_I_K=evaluation.readable_I_K,
            stop_reasons=dict(evaluation.stop_reasons),
            best_step=best_step,
        )

    def figures(self) -> StageFigures:
        """Means with 95 % intervals over items."""
        reward, success, calls, parse_rate = (
            cluster_bootstrap(values_I_K)
            for values_I_K in (self.reward_I_K, self.success_I_K, self.calls_I_K, self.readable_I_K)
        )
        return StageFigures(
            reward=reward, success=success, calls=calls, parse_rate=parse_rate, stop_reasons=self.stop_reasons
        )

    def gain_over(self, before: Measured) -> Interval:
        """The paired difference in reward on the same items, with its 95 % interval."""
        if list(before.item_ids) != list(self.item_ids):
            raise ValueError(f"{self.stage} and {before.stage} were measured on different items of {self.split}")
        return paired_cluster_bootstrap(before.reward_I_K, self.reward_I_K)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What is measured: ids and seeds of the episodes depend on it."""

    stage: str
    split: str
    best_step: int | None = None
    """Of the weights that play; None for the base model."""


async def play(live: build.Live, log: RunLog, items: Sequence[Item], samples: int, place: Place) -> Measured:
    """Figures of the weights that are in the engine now; the episodes go to the log's job. Raises as `evaluate`."""
    plan = EvalPlan(
        run=log.job_id,
        split=place.split,
        stage=place.stage,
        items=items,
        samples=samples,
        pass_threshold=build.pass_threshold_of(live.spec),
        penalties=live.spec.training.penalties,
    )
    evaluation = await evaluate(plan, live.agent, live.graded(), log)
    return Measured.of(evaluation, best_step=place.best_step)


def write(measured: Measured, path: Path) -> None:
    """Keep it, whole or not at all."""
    write_whole(path, json.dumps(asdict(measured)))


def read(path: Path) -> Measured | None:
    """What `write` kept, or None when there is nothing."""
    return Measured(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
