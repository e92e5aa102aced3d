"""Supervised fine-tuning on demonstrations.

The order of demonstrations is a function of the seed and the step, and everything else is in the checkpoint: a killed
job ends with the same weights, bit for bit, on the same machine, build and number of threads.
"""

from __future__ import annotations

import math
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
from agentrft.train.rehearsal import Rehearsal
from agentrft.train.result import result_of
from agentrft.train.schedule import rate_at
from agentrft.train.stop import ShouldStop, as_stop


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
    saves = Saves(checkpoints, learner, log, metric="valid_unsolved_frac" if rehearsal else "valid_nll")
    state = await saves.resume()
    if _owes_validation(plan, state, rehearsal):
        state, metrics = await stop.finish(_validate(plan, state, learner, rehearsal, log))
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
        if (due := _is_due(plan, step)) and not stop.asked:
            state, validated = await stop.finish(_validate(plan, state, learner, rehearsal, log))
            metrics |= validated
        log.step(StepDone(step=step, steps=plan.steps, metrics=metrics))
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
    plan: SftPlan, state: LossState, learner: Learner, rehearsal: Rehearsal | None, log: RunLog
) -> tuple[LossState, dict[str, float]]:
    """The state with one more figure, and its metrics: of what is played, else the loss on held-out demonstrations.

    The state unchanged, and no metrics, where the job has neither.
    """
    metrics: dict[str, float] = {}
    if plan.validation_rows:
        log_probs_R_T = await learner.log_probs(plan.validation_rows)
        tokens = sum(sum(row.trained) for row in plan.validation_rows)
        nll = -math.fsum(log_prob for log_probs_T in log_probs_R_T for log_prob in log_probs_T) / tokens
        metrics["valid_nll"] = nll
    if rehearsal is not None:
        standing = await rehearsal.play(state.step, log)
        metrics |= {"valid_unsolved_frac": standing.unsolved_frac, "valid_readable_frac": standing.readable_frac}
        state = replace(state, is_enough=rehearsal.is_enough(standing))
    if not metrics:
        return state, metrics
    figure = metrics.get("valid_unsolved_frac", metrics.get("valid_nll", math.inf))
    return replace(state, validations=(*state.validations, (state.step, figure))), metrics
