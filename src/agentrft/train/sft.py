"""Supervised fine-tuning on demonstrations.

The order of demonstrations is a function of the seed and the step, and everything else is in the checkpoint: a killed
job ends with the same weights, bit for bit, on the same machine, build and number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from functools import partial

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
from agentrft.train.rehearsal import Rehearsal
from agentrft.train.result import result_of
from agentrft.train.schedule import rate_at
from agentrft.train.stop import ShouldStop, as_stop, saving


async def train(
    plan: SftPlan,
    learner: Learner,
    log: RunLog,
    *,
    rehearsal: Rehearsal | None = None,
    should_stop: ShouldStop = lambda: None,
    clock: Clock = SYSTEM_CLOCK,
) -> TrainResult:
    """Train for `plan.steps` steps, until a `rehearsal` is enough, or `should_stop`, asked after whole steps, says why.

    Where the job rehearses, what is played chooses the checkpoint, and else the loss on held-out demonstrations.
    A `should_stop` that is a Stop is obeyed at once: where a gradient does not end in time, Stopped is raised.
    """
    stop = as_stop(should_stop)
    checkpoints = Checkpoints(plan.folder / "checkpoints", keep=plan.keep_checkpoints, bundle=plan.bundle)
    saves = Saves(checkpoints, learner, log, metric="valid_shortfall" if rehearsal else "valid_nll")
    state = await saves.resume()
    if _owes_validation(plan, state, rehearsal):
        if rehearsal is not None:
            state = await stop.cut(_rehearse(state, rehearsal, log))
        else:
            state, metrics = await stop.finish(_validate(plan, state, learner, {}))
            log.step(StepDone(step=state.step, steps=plan.steps, metrics=metrics))
        await saves.save(state)
    stopped = None
    while state.step < plan.steps and not state.is_enough and not stopped:
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
        due = _is_due(plan, step)
        rehearses = due and rehearsal is not None and not stopped
        if due and rehearsal is None and not stop.asked:
            state, metrics = await stop.finish(_validate(plan, state, learner, metrics))
        log.step(StepDone(step=step, steps=plan.steps, metrics=metrics, validation_follows=rehearses))
        if rehearsal is not None and rehearses:
            state = await saving(stop.cut(_rehearse(state, rehearsal, log)), partial(saves.save, state))
        if due or stopped:
            await saves.save(state)
    if state.is_enough and state.step < plan.steps:
        log.notice("The agent plays well enough to learn by itself: supervised training ends here.")
    by_figure = [step for step, _ in sorted(state.validations, key=lambda point: point[1])]
    ranked = [state.step, *by_figure] if state.is_enough else by_figure
    ended = None if state.is_enough or state.step >= plan.steps else stopped
    return result_of(checkpoints, state.step, ranked, state.validations, ended, log)


def _is_due(plan: SftPlan, step: int) -> bool:
    return step % plan.checkpoint_interval == 0 or step == plan.steps


def _owes_validation(plan: SftPlan, state: LossState, rehearsal: Rehearsal | None) -> bool:
    """The step was saved when a stop left no time for its validation."""
    validates = bool(plan.validation_rows) or rehearsal is not None
    return validates and state.step > 0 and _is_due(plan, state.step) and not state.is_validated


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


async def _rehearse(state: LossState, rehearsal: Rehearsal, log: RunLog) -> LossState:
    """The state with what its weights play like."""
    standing = await rehearsal.play(state.step, log)
    validations = (*state.validations, (state.step, standing.shortfall))
    return replace(state, validations=validations, is_enough=rehearsal.is_enough(standing))
