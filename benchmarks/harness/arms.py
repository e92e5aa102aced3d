"""The arms of the learning benchmark: the ladder itself and the controls beside it.

    rft        base → supervised warm-up → reinforcement: what `agentrft quickstart` does
    lr0        reinforcement at learning rate 0 from the same warm-up: what choosing a checkpoint alone brings
    permuted   rewards permuted within each group: what updates without information bring
    more_sft   supervised training for the time that warm-up and reinforcement took together, with a schedule of its
               own length; the best of its checkpoints on validation, as reinforcement has it

The controls start from what the rft arm of the same task and seed left behind, and are measured on the same items.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from agentrft import build
from agentrft.credit import Credited, CreditFunction, GroupView
from agentrft.jobs.models import find_weights
from agentrft.jobs.rows import demonstrations_of, items_of
from agentrft.jobs.service import StoredJob, create_job, stored_job
from agentrft.jobs.spec import JobSpec
from agentrft.ladder import LadderPlan, LadderResult, climb
from agentrft.ladder.measure import Measured
from agentrft.store import SqlStore
from agentrft.train import rft, sft
from agentrft.train.checkpoint import Checkpoint, Checkpoints
from agentrft.train.evaluate import EvalPlan, evaluate
from agentrft.train.log import Progress, RunLog
from harness.note import Note
from harness.strategies import count, fewest_calls
from harness.study import ALL_EPISODES, Study, as_lists, figures, from_lists, gains, say

ARMS = ("rft", "lr0", "permuted", "more_sft")
SFT_CHECKPOINTS = 6
"""Of the longer supervised training, evenly spaced; the best on validation is measured."""


async def run_rft(study: Study, store: SqlStore) -> dict[str, Any]:
    """Climb the ladder (goes on where an interrupted climb was) and count strategies."""
    result = await climb(_climb_of(study), store, open_watch=lambda title, steps: _Saying(title))
    document = result.to_json()
    return {
        "stages": document["stages"],
        "gain_over_sft": document["rft_gain_by_split"],
        "gain_over_base": gains(_measured(result, "base"), _measured(result, "rft")),
        "train_s": {stage.name: stage.train_s for stage in result.stages},
        "wall_s": document["wall_s"],
        "jobs": document["jobs"],
        "ladder": str(result.folder),
        "strategies": {
            "shown": {"fewest_calls": fewest_calls(demonstrations_of(study.spec, study.base_dir))},
            "base": _strategies(study, store, result.jobs["sft"].id, "base"),
            "sft": _strategies(study, store, result.jobs["sft"].id, "sft"),
            "rft": _strategies(study, store, result.jobs["rft"].id, "rft"),
            "rft_training_by_step": _strategies_by_step(study, store, result.jobs["rft"].id),
        },
        "measured": {stage.name: as_lists(stage.measured) for stage in result.stages},
    }


def _climb_of(study: Study) -> LadderPlan:
    return LadderPlan(
        task=study.task,
        spec=study.spec,
        base_dir=study.base_dir,
        splits=study.splits,
        n_items=study.n_items,
        samples=study.samples,
        validation_items=study.validation_items,
    )


async def run_control(
    study: Study, arm: str, store: SqlStore, rft_run: Mapping[str, Any], note: Note
) -> dict[str, Any]:
    """One control arm, measured beside the warm-up of the rft arm that it belongs to.

    `note` keeps the id of the job while it runs, so that an interrupted arm goes on with it.
    """
    is_sft = arm == "more_sft"
    spec = _control_spec(study.spec, arm)
    job = _control_job(study, spec, store, rft_run, note, is_sft=is_sft)
    weights = find_weights(job.model, base_dir=study.base_dir)
    async with build.open_job(spec, study.base_dir, weights, training=True) as live:
        log = RunLog(store, job.id, watch=say)
        with note.timed("train_s"):
            if is_sft:
                best = await _longer_sft(study, live, job, log, rft_run["train_s"])
            else:
                best = await _reinforce(study, live, job, log, permute=arm == "permuted")
        await live.engine.learner.load_weights(best.path)
        measured = {}
        for split in study.splits:
            evaluation = await evaluate(_eval_plan(study, job, split, arm), live.agent, live.graded(), log)
            measured[split] = Measured.of(evaluation, best_step=best.step)
    return {
        "stages": {"sft": rft_run["stages"]["sft"], arm: {"splits": figures(measured), "step": best.step}},
        "gain_over_sft": gains(from_lists(rft_run["measured"]["sft"]), measured),
        "train_s": {arm: note.known["train_s"]},
        "jobs": {arm: job.id},
        "strategies": {arm: _strategies(study, store, job.id, arm)},
        "measured": {arm: as_lists(measured)},
    }


def _control_job(
    study: Study, spec: JobSpec, store: SqlStore, rft_run: Mapping[str, Any], note: Note, *, is_sft: bool
) -> StoredJob:
    """The arm's job: the one that `note` names where it was interrupted, else a new one, noted there."""
    if "job" in note.known:
        return stored_job(store, note.known["job"])
    kind = "supervised" if is_sft else "reinforcement"
    start_from = None if is_sft else store.get_job(rft_run["jobs"]["sft"])["fine_tuned_model"]
    job = create_job(store, spec, study.base_dir, kind=kind, start_from=start_from)
    note.keep(job=job.id)
    return job


def _control_spec(spec: JobSpec, arm: str) -> JobSpec:
    """The job with the arm's name in its metadata (another job id, hence other draws) and, for lr0, no learning."""
    method = spec.method
    if arm == "lr0":
        assert method.reinforcement is not None
        still = method.reinforcement.hyperparameters.model_copy(update={"learning_rate": 0.0})
        method = method.model_copy(
            update={"reinforcement": method.reinforcement.model_copy(update={"hyperparameters": still})}
        )
    return spec.model_copy(update={"metadata": {**spec.metadata, "arm": arm}, "method": method})


async def _reinforce(study: Study, live: build.Live, job: StoredJob, log: RunLog, *, permute: bool) -> Checkpoint:
    plan = build.rft_plan(live, run=job.id, folder=job.folder, validation=study.items("validation"))
    if permute:
        function = permuted(plan.credit.function, seed=study.spec.seed)
        plan = replace(plan, credit=replace(plan.credit, function=function))
    result = await rft.train(plan, live.engine.learner, live.agent, live.graded(), log)
    return result.best


def permuted(credit: CreditFunction, *, seed: int) -> CreditFunction:
    """`credit` after shuffling the rewards among the graded members of each group: right size, no information."""
    draw = random.Random(seed)

    def shuffled(group: GroupView) -> GroupView:
        graded = [reward for reward in group.rewards_G if reward is not None]
        draw.shuffle(graded)
        rest = iter(graded)
        return replace(group, rewards_G=tuple(None if reward is None else next(rest) for reward in group.rewards_G))

    def credited(groups: Sequence[GroupView]) -> Credited:
        return credit([shuffled(group) for group in groups])

    return credited


async def _longer_sft(
    study: Study, live: build.Live, job: StoredJob, log: RunLog, train_s: Mapping[str, float]
) -> Checkpoint:
    """Supervised training for the rft arm's whole training time; its best checkpoint on validation."""
    plan = build.sft_plan(live, run=job.id, folder=job.folder)
    longer = 1 + train_s["rft"] / train_s["sft"]
    plan = replace(plan, n_epochs=plan.n_epochs * longer)
    interval = -(-plan.steps // SFT_CHECKPOINTS)
    plan = replace(plan, checkpoint_interval=interval, keep_checkpoints=SFT_CHECKPOINTS + 1)
    print(f"    {plan.steps} supervised steps, {longer:.1f} times the warm-up's time", flush=True)
    await sft.train(plan, live.engine.learner, log)
    checkpoints = Checkpoints(plan.folder / "checkpoints", keep=plan.keep_checkpoints)
    found = [checkpoints.at(step) for step in range(1, plan.steps + 1)]
    scored = []
    for checkpoint in (one for one in found if one is not None):
        await live.engine.learner.load_weights(checkpoint.path)
        eval_plan = replace(_eval_plan(study, job, "validation", checkpoint.name), step=checkpoint.step)
        evaluation = await evaluate(eval_plan, live.agent, live.graded(), log)
        scored.append((evaluation.interval(evaluation.reward_I_K).mean, checkpoint))
    return max(scored, key=lambda pair: pair[0])[1]


def _eval_plan(study: Study, job: StoredJob, split: str, stage: str) -> EvalPlan:
    return EvalPlan(
        run=job.id,
        split=split,
        stage=stage,
        items=study.items(split),
        samples=study.samples,
        pass_threshold=study.pass_threshold,
        penalties=study.spec.training.penalties,
    )


class _Saying:
    """Prints what the climb is about to do, then its progress."""

    def __init__(self, title: str) -> None:
        print(f"    {title}", flush=True)

    def __enter__(self) -> Callable[[Progress], None]:
        return say

    def __exit__(self, *_: object) -> None:
        return None


def _measured(result: LadderResult, stage: str) -> Mapping[str, Measured]:
    return next(one.measured for one in result.stages if one.name == stage)


def _strategies(study: Study, store: SqlStore, job_id: str, stage: str) -> dict[str, dict[str, int]]:
    """Counts by split for one measured stage."""
    records = [r for r in store.list_episodes(job_id, limit=ALL_EPISODES) if r.stage == stage and r.phase == "test"]
    return {
        split: _count(study, [r for r in records if r.extra.get("split") == split], split) for split in study.splits
    }


def _strategies_by_step(study: Study, store: SqlStore, job_id: str) -> dict[str, dict[str, int]]:
    """Counts over the training episodes of each step: when a strategy first appeared, if it did."""
    records = [r for r in store.list_episodes(job_id, limit=ALL_EPISODES) if r.phase == "train"]
    steps = sorted({r.episode.step for r in records})
    return {str(step): _count(study, [r for r in records if r.episode.step == step], "train") for step in steps}


def _count(study: Study, records: Sequence[Any], split: str) -> dict[str, int]:
    fields = {item.id: item.fields for item in items_of(study.spec, study.base_dir, split)}
    return count(
        records,
        fewest_shown=fewest_calls(demonstrations_of(study.spec, study.base_dir)),
        pass_threshold=study.pass_threshold,
        fields_by_item=fields,
    )
