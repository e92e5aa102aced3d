"""Preference optimisation: DPO and its kin on pairs, KTO on rated conversations.

The order of units is a function of the seed and the step, the reference is computed once and kept, and everything else
is in the checkpoint: a killed job ends with the same weights, bit for bit, on the same machine, build and threads.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agentrft.clock import SYSTEM_CLOCK
from agentrft.losses import KtoLoss, KtoStepLoss, SimpoLoss, mean_row_kl
from agentrft.losses.margins import StepLoss, unit_losses
from agentrft.protocols import Clock, Learner
from agentrft.train.checkpoint import Checkpoints
from agentrft.train.dpo_plan import DpoPlan, PreferenceLoss, PreferenceUnit
from agentrft.train.log import RunLog, StepDone
from agentrft.train.loss_state import LossState, Saves
from agentrft.train.metrics import update_metrics
from agentrft.train.order import stream
from agentrft.train.plan import TrainResult
from agentrft.train.reference import with_reference
from agentrft.train.result import result_of
from agentrft.train.schedule import rate_at
from agentrft.train.stop import ShouldStop, as_stop
from agentrft.types import Row


async def train(
    plan: DpoPlan,
    learner: Learner,
    log: RunLog,
    *,
    should_stop: ShouldStop = lambda: None,
    clock: Clock = SYSTEM_CLOCK,
) -> TrainResult:
    """Train for `plan.steps` steps, until patience ends, or until `should_stop`, asked after whole steps, says why.

    A `should_stop` that is a Stop is obeyed at once: where a gradient does not end in time, Stopped is raised.
    """
    stop = as_stop(should_stop)
    checkpoints = Checkpoints(plan.folder / "checkpoints", keep=plan.keep_checkpoints, bundle=plan.bundle)
    saves = Saves(checkpoints, learner, log, metric="valid_loss")
    state = await saves.resume()
    units, validation_units = await stop.finish(_referenced(plan, learner, state))
    if _owes_validation(plan, state):
        state, metrics = await stop.finish(_validate(plan.loss, validation_units, state, learner, {}))
        log.step(StepDone(step=state.step, steps=plan.steps, metrics=metrics))
        await saves.save(state)
    stopped = None
    while not _is_done(plan, state) and not stopped:
        step, started = state.step + 1, clock.monotonic()
        batch = [units[i] for i in stream(len(units), plan.seed, state.step * plan.batch_size, plan.batch_size)]
        rows_R = weighted(batch)
        loss = await stop.finish(_step_loss(plan.loss, batch, learner))
        rate = rate_at(
            step, peak=plan.learning_rate, warmup_steps=plan.warmup_steps, total_steps=plan.steps, decay="linear"
        )
        report = await stop.finish(learner.forward_backward(rows_R, loss))
        optim = await learner.optim_step(rate)
        report = replace(report, metrics=_per_unit(report.metrics, loss))
        metrics = update_metrics(rows_R, report, optim, rate) | {"learn_s": clock.monotonic() - started}
        state = replace(state, step=step)
        stopped = should_stop()
        if (due := _is_due(plan, step)) and not stop.asked:
            state, metrics = await stop.finish(_validate(plan.loss, validation_units, state, learner, metrics))
        log.step(StepDone(step=step, steps=plan.steps, metrics=metrics))
        if due or stopped:
            await saves.save(state)
    if state.step < plan.steps and _is_done(plan, state):
        log.notice(f"The held-out loss has not fallen for {plan.patience} validations: training ends here.")
    by_loss = sorted(state.validations, key=lambda point: point[1])
    ended = None if _is_done(plan, state) else stopped
    return result_of(checkpoints, state.step, [step for step, _ in by_loss], state.validations, ended, log)


def weighted(units: Sequence[PreferenceUnit]) -> list[Row]:
    """The rows of one optimiser step, each token with credit 1 / units: a mean over units, once summed."""
    weight = 1 / len(units)
    return [
        # Named by place: where one pass ends and the next begins, a step may hold the same unit twice.
        replace(row, credit=[weight if trained else 0.0 for trained in row.trained], unit=f"{row.unit}/{place}")
        for place, unit in enumerate(units)
        for row in unit.rows
    ]


async def _referenced(
    plan: DpoPlan, learner: Learner, state: LossState
) -> tuple[Sequence[PreferenceUnit], Sequence[PreferenceUnit]]:
    """Training and validation units with the reference in their rows; as they are for a loss that needs none."""
    if isinstance(plan.loss, SimpoLoss):
        return plan.units, plan.validation_units
    units = [*plan.units, *plan.validation_units]
    filled = await with_reference(units, learner, plan.folder / "reference.json", has_begun=state.step > 0)
    return filled[: len(plan.units)], filled[len(plan.units) :]


async def _step_loss(loss: PreferenceLoss, units: Sequence[PreferenceUnit], learner: Learner) -> StepLoss:
    """The loss with what it needs to know of all units at once: KTO's z₀, which costs one more forward pass."""
    if not isinstance(loss, KtoLoss):
        return loss
    rows_R = [unit.mismatched for unit in units if unit.mismatched is not None]
    policy_R_T = await learner.log_probs(rows_R) if rows_R else []
    return KtoStepLoss.of(loss, mean_row_kl(policy_R_T, [row.reference_log_probs for row in rows_R]))


def _per_unit(metrics: Mapping[str, float], loss: StepLoss) -> dict[str, float]:
    """The learner's means over tokens as means over units."""
    names = {"preferred": "preferred_frac", "margin": "margin", "nll_preferred": "nll_preferred"}
    found = {names[name]: value / metrics["units"] for name, value in metrics.items() if name in names}
    return found | ({"reference_kl": loss.reference_kl} if isinstance(loss, KtoStepLoss) else {})


def _is_done(plan: DpoPlan, state: LossState) -> bool:
    """True after the last step, and once `patience` validations in a row have not been better."""
    since_best = sum(step > state.best_step for step, _ in state.validations)
    return state.step >= plan.steps or (plan.patience is not None and since_best >= plan.patience)


def _is_due(plan: DpoPlan, step: int) -> bool:
    return step % plan.checkpoint_interval == 0 or step == plan.steps


def _owes_validation(plan: DpoPlan, state: LossState) -> bool:
    """The step was saved when a stop left no time for its validation."""
    return bool(plan.validation_units) and state.step > 0 and _is_due(plan, state.step) and not state.is_validated


async def _validate(
    loss: PreferenceLoss,
    units: Sequence[PreferenceUnit],
    state: LossState,
    learner: Learner,
    metrics: Mapping[str, float],
) -> tuple[LossState, Mapping[str, float]]:
    """State and metrics with loss, margin and accuracy on held-out units; unchanged where there are none."""
    if not units:
        return state, metrics
    rows_R = [row for unit in units for row in unit.rows]
    found = unit_losses(await _step_loss(loss, units, learner), rows_R, await learner.log_probs(rows_R))
    valid_loss = math.fsum(one.loss for one in found) / len(found)
    figures = {
        "valid_loss": valid_loss,
        "valid_margin": math.fsum(one.margin for one in found) / len(found),
        "valid_preferred_frac": sum(one.margin > 0 for one in found) / len(found),
    }
    return replace(state, validations=(*state.validations, (state.step, valid_loss))), {**metrics, **figures}
