"""Each step is an event of type `metrics`, told once its validation is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from agentrft.jobs.event_data import teller
from agentrft.jobs.spec import JobSpec
from agentrft.store.sql_store import SqlStore
from agentrft.train import RftPlan, RunLog, SftPlan
from agentrft.train import rft as rft_loop
from agentrft.train import sft as sft_loop
from agentrft.train.log import StepFigures


class Told:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.figures: list[StepFigures] = []

    def __call__(self, figures: StepFigures) -> tuple[str, Mapping[str, Any]]:
        self.figures.append(figures)
        return f"Step {figures.step}/{figures.steps}", {"step": figures.step, "nan": float("nan")}


def metrics_events(store: SqlStore) -> list[dict[str, Any]]:
    return [event for event in store.list_events("ftjob-t") if event["type"] == "metrics"]


async def test_a_supervised_step_is_told_with_its_validation(
    store: SqlStore, peek: SimpleNamespace, sft_plan: Callable[..., SftPlan]
) -> None:
    told = Told()
    plan = sft_plan()
    plan = sft_plan(validation_rows=plan.rows[:3])
    await sft_loop.train(plan, peek.learner(), RunLog(store, "ftjob-t", tell=told))
    assert [figures.step for figures in told.figures] == list(range(1, plan.steps + 1))
    assert ["valid_nll" in figures.metrics for figures in told.figures] == [
        step % 2 == 0 for step in range(1, plan.steps + 1)
    ]
    events = metrics_events(store)
    assert [event["message"] for event in events] == [f"Step {k}/{plan.steps}" for k in range(1, plan.steps + 1)]
    assert events[0]["data"] == {"step": 1, "nan": None}


async def test_a_reinforcement_step_is_told_with_its_episodes_and_validation(
    store: SqlStore, peek: SimpleNamespace, rft_plan: Callable[..., RftPlan]
) -> None:
    told = Told()
    plan = rft_plan(steps=4, eval_interval=2)
    learner = peek.warm(peek.learner())
    log = RunLog(store, "ftjob-t", tell=told)
    await rft_loop.train(plan, learner, peek.agent(learner), peek.grader, log)
    assert [figures.step for figures in told.figures] == [1, 2, 3, 4]
    for figures in told.figures:
        is_due = figures.step % 2 == 0
        assert {record.episode.step for record in figures.train} == {figures.step}
        assert len(figures.train) >= plan.batch_size * plan.group_size
        assert ("valid_reward_mean" in figures.metrics) == is_due
        assert len(figures.validation) == (len(plan.validation) * plan.eval_samples if is_due else 0)
        assert {record.phase for record in figures.validation} <= {"validation"}
    assert len(metrics_events(store)) == 4


async def test_what_openais_clients_read_comes_of_a_real_step(
    store: SqlStore, peek: SimpleNamespace, rft_plan: Callable[..., RftPlan]
) -> None:
    grader = {"type": "python", "name": "digit", "source": "def grade(sample, item):\n    return 1.0"}
    method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
    spec = JobSpec.model_validate({"model": "m", "method": method, "data": {"train": "t.jsonl"}})
    learner = peek.warm(peek.learner())
    log = RunLog(store, "ftjob-t", tell=teller(spec, "reinforcement"))
    plan = rft_plan(steps=2, eval_interval=2)
    await rft_loop.train(plan, learner, peek.agent(learner), peek.grader, log)
    first, second = metrics_events(store)
    reward = {entry["step"]: entry["metrics"] for entry in store.list_metrics("ftjob-t")}
    assert first["message"] == f"Step 1/2 , train mean reward={reward[1]['reward_mean']:.2f}"
    assert second["data"]["full_valid_mean_reward"] == reward[2]["valid_reward_mean"]
    assert second["data"]["timing"]["step"]["eval"] == reward[2]["valid_s"]
    (tool,) = second["data"]["tools"]
    assert tool["name"] == "p"
    assert tool["train_calls_per_rollout_mean"] > 0
    counted = second["data"]["errors"]["graders"][0]["train_other_error_count"]
    assert counted == sum(record.phase == "train" for record in store.list_episodes("ftjob-t", step=2, limit=10_000))


async def test_without_someone_to_tell_there_are_no_events(
    store: SqlStore, peek: SimpleNamespace, sft_plan: Callable[..., SftPlan], log: RunLog
) -> None:
    await sft_loop.train(sft_plan(), peek.learner(), log)
    assert metrics_events(store) == []
