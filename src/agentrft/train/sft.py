"""Supervised fine-tuning on demonstrations.

The order of demonstrations is a function of the seed and the step, and everything else is in the checkpoint: a killed
job ends with the same weights, bit for bit, on the same machine, build and number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from agentrft.clock import SYSTEM_CLOCK
from agentrft.losses.spec import SupervisedLoss
from agentrft.protocols import Clock, Learner
from agentrft.train.checkpoint import Checkpoints
from agentrft.train.demos import normalised
from agentrft.train.log import RunLog, StepDone
from agentrft.train.loss_state import LossState, Saves
from agentrft.train.metrics import update_metrics
from agentrft.train.order import stream
from agentrft.train.plan import SftPlan, TrainResult
from agentrft.train.result import result_of
from agentrft.train.schedule import rate_at
from agentrft.train.stop import ShouldStop, as_stop


async def train(
    plan: SftPlan,
    learner: Learner,
    log: RunLog,
    *,
    should_stop: ShouldStop = lambda: None,
    clock: Clock = SYSTEM_CLOCK,
) -> TrainResult:
    """Train for `plan.steps` steps, or until `should_stop`, asked after whole steps, gives a reason.

    A `should_stop` that is a Stop is obeyed at once: where a gradient does not end in time, Stopped is raised.
    """
    stop = as_stop(should_stop)
    checkpoints = Checkpoints(plan.folder / "checkpoints", keep=plan.keep_checkpoints, bundle=plan.bundle)
    saves = Saves(checkpoints, learner, log, metric="valid_nll")
    state = await saves.resume()
    if _owes_validation(plan, state):
        state, metrics = await stop.finish(_validate(plan, state, learner, {}))
        log.step(StepDone(step=state.step, steps=plan.steps, metrics=metrics))
        await saves.save(state)
    stopped = None
    while state.step < plan.steps and not stopped:
        step, started = state.step + 1, clock.monotonic()
        batch = stream(len(plan.rows), plan.seed, state.step * plan.batch_size, plan.batch_size)
        rows_R = normalised([plan.rows[index] for index in batch])
        rate = rate_at(
            step, peak=plan.learning_rate, warmup_steps=plan.warmup_steps, total_steps=plan.steps, decay="linear"
        )
        report = await stop.finish(learner.forward_backward(rows_R, SupervisedLoss()))
        optim = await learner.optim_step(rate)
        metrics = update_metrics(rows_R, report, optim, rate) | {"learn_s": clock.monotonic() - started}
        state = replace(state, step=step)
        stopped = should_stop()
        if (due := _is_due(plan, step)) and not stop.asked:
            state, metrics = await stop.finish(_validate(plan, state, learner, metrics))
        log.step(StepDone(step=step, steps=plan.steps, metrics=metrics))
        if due or stopped:
            await saves.save(state)
    by_loss = sorted(state.validations, key=lambda point: point[1])
    ended = stopped if state.step < plan.steps else None
    return result_of(checkpoints, state.step, [step for step, _ in by_loss], state.validations, ended, log)


def _is_due(plan: SftPlan, step: int) -> bool:
    return step % plan.checkpoint_interval == 0 or step == plan.steps


def _owes_validation(plan: SftPlan, state: LossState) -> bool:
    """The step was saved when a stop left no time for its validation."""
    return bool(plan.validation_rows) and state.step > 0 and _is_due(plan, state.step) and not state.is_validated


async def _validate(
    plan: SftPlan, state: LossState, learner: Learner, metrics: Mapping[str, float]
) -> tuple[LossState, Mapping[str, float]]:
    """State and metrics with the loss on held-out demonstrations; unchanged where there are none."""
    if not plan.validation_rows:
        return state, metrics
    log_probs_R_T = await learner.log_probs(plan.validation_rows)
    tokens = sum(sum(row.trained) for row in plan.validation_rows)
    nll = -math.fsum(log_prob for log_probs_T in log_probs_R_T for log_prob in log_probs_T) / tokens
    return replace(state, validations=(*state.validations, (state.step, nll))), {**metrics, "valid_nll": nll}
