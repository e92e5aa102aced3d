"""Reinforcement fine-tuning: play groups of episodes, grade them, assign credit, update, validate, checkpoint.

A killed job resumes from its newest good checkpoint and replays the episodes in its journal. With an engine in exact
mode and deterministic tools and graders the result is the same, bit for bit, as without the kill. A job that is stopped
in the middle of a step, or that something outside fails, saves its whole steps first; what has been played of the next
one stays in the journal.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, TypeVar

from agentrft.credit import GroupView, RewardScale
from agentrft.protocols import BackwardReport, Clock, EpisodeRecord, Grader, Learner, Monitor
from agentrft.rollout import Agent
from agentrft.train.assign import Assigned, assign_credit, rows_of, views_of
from agentrft.train.checkpoint import Checkpoint, Checkpoints, checkpoint_name
from agentrft.train.evaluate import EvalPlan, evaluate
from agentrft.train.journal import Journal
from agentrft.train.ledger import Update, ledgers_of, reward_ledger
from agentrft.train.log import RunLog, StepDone
from agentrft.train.metrics import credit_metrics, kl_k3, rollout_metrics, update_metrics
from agentrft.train.outage import MAX_VALIDATION_FAULT_FRAC, check_faults
from agentrft.train.plan import RftPlan, TrainResult
from agentrft.train.refill import Draw, draw_groups
from agentrft.train.result import result_of
from agentrft.train.schedule import rate_at
from agentrft.train.stop import ShouldStop, as_stop, saving
from agentrft.types import Group, Row

T = TypeVar("T")

Audit = Callable[[Sequence[Group]], Awaitable[None]]
"""Looks at the grader once, before step 1, with the episodes of the first validation; raises UserError to refuse it."""

MEASURED_ROWS = 32
"""Rows of a step on which is measured what takes another pass: the KL to the reference, what the update moved."""


async def train(
    plan: RftPlan,
    learner: Learner,
    agent: Agent,
    grader: Grader,
    log: RunLog,
    *,
    should_stop: ShouldStop = lambda: None,
    monitor: Monitor | None = None,
    audit: Audit | None = None,
) -> TrainResult:
    """Train until `plan.steps`, or until `should_stop` or `monitor` gives a reason; both are asked after whole steps.

    A `should_stop` that is a Stop is obeyed at once: Stopped is raised, whole steps saved.

    The agent's actor must play with the learner's current weights. The starting weights are validated and saved as
    step 0, so the result is never worse on validation than what training began with. `audit` comes between the two.
    Raises UserError when the grader keeps failing (`grader_failing`), nothing can be graded (`nothing_graded`) or the
    user's own credit cannot be used (`invalid_credit`), and BoundaryError when the engine, the tools or the disk are
    down: call it again, with the same folder, to go on.
    """
    checkpoints = Checkpoints(plan.folder / "checkpoints", keep=plan.keep_checkpoints, bundle=plan.bundle)
    stop = as_stop(should_stop)
    with Journal(plan.folder / "journal.jsonl", job_id=log.job_id) as journal:
        state, stopped = await _resume(checkpoints, learner, monitor, log), None
        saves = _Saves(checkpoints, learner, journal, log, saved_step=None if state is None else state.step)
        if state is None:
            state, groups, stopped = await stop.cut(_validate(plan, RftState(), agent, grader, monitor, log))
            if audit:
                await stop.cut(audit(groups))
            plan.credit.check(groups, plan.penalties)
            await saves.save(state)
        elif _owes_validation(plan, state):
            state, _, stopped = await stop.cut(_validate(plan, state, agent, grader, monitor, log))
            await saves.save(state)
        while state.step < plan.steps and not stopped:
            step = state.step + 1
            draw = await saves.before(state, stop.cut(draw_groups(plan, step, agent, grader, journal, log)))
            views, credit_s = await stop.finish(_views(plan, learner, draw, agent.clock))
            assigned = assign_credit(plan.loss, plan.credit.function, views, state.scale)
            rows_R = rows_of(plan.loss, draw.live, assigned.advantages_I_G_K)
            learned, updates = await stop.finish(_learn(plan, step, learner, rows_R, agent.clock))
            state = replace(state, step=step, scale=assigned.scale, idle_steps=state.idle_steps + (not rows_R))
            metrics = {
                **rollout_metrics(draw.played, draw.wall_s, plan.pass_threshold),
                **credit_metrics(rows_R, assigned.advantages_I_G_K, assigned.scale),
                **(credit_s | learned),
            }
            _record(plan, step, draw, assigned, updates, metrics, log)
            stopped = _watch(monitor, step, metrics, draw, log) or should_stop()
            state = replace(state, monitor=monitor.state() if monitor else {})
            if due := _is_due(plan, step):
                validating = stop.cut(_validate(plan, state, agent, grader, monitor, log))
                state, _, alarmed = await saves.before(state, validating)
                stopped = stopped or alarmed
            if due or stopped:
                await saves.save(state)
        by_reward = sorted(state.validations, key=lambda point: -point[1])
        ended = stopped if state.step < plan.steps else None
        return result_of(checkpoints, state.step, [step for step, _ in by_reward], state.validations, ended, log)


@dataclass(frozen=True, slots=True, kw_only=True)
class RftState:
    """What a resume needs beside the weights, the optimiser and the journal."""

    step: int = 0
    """Steps done; every order and seed follows from it."""
    scale: RewardScale = field(default_factory=RewardScale)
    validations: tuple[tuple[int, float], ...] = ()
    """(step, mean validation reward), in order."""
    idle_steps: int = 0
    """Steps without an update, because no group had signal."""
    monitor: Mapping[str, Any] = field(default_factory=dict)
    """What the monitor remembers, as its `state` gave it."""

    @property
    def best_step(self) -> int:
        """The earliest step with the highest validation reward; the last step where there is no validation."""
        return max(self.validations, key=lambda point: point[1])[0] if self.validations else self.step

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> RftState:
        """What `asdict` made, after JSON."""
        validations = tuple((step, reward) for step, reward in document["validations"])
        return cls(**{**document, "scale": RewardScale(**document["scale"]), "validations": validations})


class _Saves:
    """Saves what whole steps have come to."""

    def __init__(
        self, checkpoints: Checkpoints, learner: Learner, journal: Journal, log: RunLog, *, saved_step: int | None
    ) -> None:
        self._checkpoints = checkpoints
        self._learner = learner
        self._journal = journal
        self._log = log
        self._saved_step = saved_step

    async def save(self, state: RftState) -> None:
        """A checkpoint of the state; the journal keeps the episodes of later steps only."""
        checkpoint = await self._checkpoints.save(
            self._learner, state.step, asdict(state), keep_steps={state.best_step}
        )
        self._saved_step = state.step
        self._journal.clear(through=state.step)
        _tell(checkpoint, state, self._log)

    async def before(self, state: RftState, played: Awaitable[T]) -> T:
        """What `played` gives; where that is stopped, or something outside fails, the state is saved first."""

        async def save() -> None:
            if self._saved_step != state.step:
                await self.save(state)

        return await saving(played, save)


def _is_due(plan: RftPlan, step: int) -> bool:
    return step % plan.eval_interval == 0 or step == plan.steps


def _owes_validation(plan: RftPlan, state: RftState) -> bool:
    """The step was saved when its validation was stopped."""
    is_validated = bool(state.validations) and state.validations[-1][0] == state.step
    return bool(plan.validation) and state.step > 0 and _is_due(plan, state.step) and not is_validated


async def _views(
    plan: RftPlan, learner: Learner, draw: Draw, clock: Clock
) -> tuple[Sequence[GroupView], dict[str, float]]:
    """What credit sees of each group, and as a metric what that took where it takes passes of the learner."""
    started = clock.monotonic()
    views = await views_of(plan.loss, learner, draw.live, plan.reference)
    takes_passes = plan.reference is not None or bool(plan.loss.reward_kl_coef)
    return views, {"credit_s": clock.monotonic() - started} if takes_passes else {}


async def _learn(
    plan: RftPlan, step: int, learner: Learner, rows_R: Sequence[Row], clock: Clock
) -> tuple[dict[str, float], dict[str, Update]]:
    """One update on all rows, with its metrics and what it did to each row, by unit; nothing happens without rows."""
    if not rows_R:
        return {}, {}
    started = clock.monotonic()
    rate = rate_at(
        step, peak=plan.learning_rate, warmup_steps=plan.warmup_steps, total_steps=plan.steps, decay="constant"
    )
    report = await learner.forward_backward(rows_R, plan.loss)
    optim = await learner.optim_step(rate)
    metrics = update_metrics(rows_R, report, optim, rate) | {"learn_s": clock.monotonic() - started}
    updates = {
        row.unit: Update(row=row, gradient_T=gradient_T)
        for row, gradient_T in zip(rows_R, report.gradients, strict=True)
    }
    if _is_due(plan, step):
        more, moved = await _measure(plan, learner, rows_R[:MEASURED_ROWS], report, clock)
        metrics |= more
        updates |= {unit: replace(updates[unit], moved_T=moved_T) for unit, moved_T in moved.items()}
    return metrics, updates


async def _measure(
    plan: RftPlan, learner: Learner, rows: Sequence[Row], report: BackwardReport, clock: Clock
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """What costs more passes over some rows: how far the policy that played this step is from what training began
    with, and by unit how the update moved each token's log-prob."""
    started = clock.monotonic()
    metrics: dict[str, float] = {}
    if plan.measure_kl:
        metrics["kl_ref_k3"] = kl_k3(rows, await learner.log_probs(rows, reference=True))
    after_R_T = await learner.log_probs(rows)
    moved = {
        row.unit: [now - before for now, before in zip(after_T, before_T, strict=True)]
        for row, after_T, before_T in zip(rows, after_R_T, report.log_probs, strict=False)
    }
    return metrics | {"measure_s": clock.monotonic() - started}, moved


def _watch(monitor: Monitor | None, step: int, metrics: Mapping[str, float], draw: Draw, log: RunLog) -> str | None:
    """The monitor's reason to stop after a step; what alarmed it is logged."""
    if monitor is None:
        return None
    verdict = monitor.observe(step, metrics, [one.group for one in draw.played])
    log.alarms(step, verdict.alarms)
    return verdict.stop


async def _validate(
    plan: RftPlan, state: RftState, agent: Agent, grader: Grader, monitor: Monitor | None, log: RunLog
) -> tuple[RftState, Sequence[Group], str | None]:
    """The state with one more validation point, what was played, and the monitor's reason to stop.

    The state unchanged, and nothing played, where the plan has no validation items.

    Raises BoundaryError when too many episodes are faults for the point to mean anything.
    """
    if not plan.validation:
        return state, (), None
    evaluation = await evaluate(
        EvalPlan(
            run=plan.run,
            split="validation",
            stage=checkpoint_name(state.step),
            items=plan.validation,
            samples=plan.eval_samples,
            step=state.step,
            pass_threshold=plan.pass_threshold,
            penalties=plan.penalties,
        ),
        agent,
        grader,
        log,
    )
    check_faults(evaluation.groups, most=MAX_VALIDATION_FAULT_FRAC)
    reward = evaluation.interval(evaluation.reward_I_K).mean
    state = replace(state, validations=(*state.validations, (state.step, reward)))
    if monitor is None:
        return state, evaluation.groups, None
    verdict = await monitor.validated(state.step, evaluation.groups)
    log.alarms(state.step, verdict.alarms)
    return replace(state, monitor=monitor.state()), evaluation.groups, verdict.stop


async def _resume(checkpoints: Checkpoints, learner: Learner, monitor: Monitor | None, log: RunLog) -> RftState | None:
    """The state of the newest good checkpoint, its weights loaded; None where there is none."""
    newest = checkpoints.newest()
    if newest is None:
        return None
    await learner.load(newest.path)
    log.notice(f"Resuming after step {newest.step}.")
    if newest.bundle != checkpoints.bundle:
        log.notice("Prompt, tools, limits or guardrails have changed since that step was played.", "warn")
    state = RftState.from_json(newest.state)
    if monitor:
        monitor.restore(state.monitor)
    _tell(newest, state, log)  # a kill may have come between saving it and telling
    return state


def _tell(checkpoint: Checkpoint, state: RftState, log: RunLog) -> None:
    """List the checkpoint; telling the same one again changes nothing."""
    validated = dict(state.validations)
    metrics = {"valid_reward_mean": validated[state.step]} if state.step in validated else {}
    log.checkpoint(checkpoint, metrics, is_best=state.best_step == state.step)


def _record(
    plan: RftPlan,
    step: int,
    draw: Draw,
    assigned: Assigned,
    updates: Mapping[str, Update],
    metrics: Mapping[str, float],
    log: RunLog,
) -> None:
    """Episodes with what training made of them, and the step's metrics."""
    ledgers = ledgers_of(draw.live, assigned, updates)
    records = []
    for one in draw.played:
        for episode, grade, reward in zip(one.group.episodes, one.group.grades, one.rewards, strict=True):
            advantage, ledger = ledgers.get(episode.id, (None, reward_ledger(reward)))
            records.append(
                EpisodeRecord(
                    job_id=log.job_id,
                    phase="train",
                    stage="rft",
                    episode=episode,
                    grade=grade,
                    reward=reward.value,
                    advantage=advantage,
                    extra={"credit": ledger},
                )
            )
    log.episodes(records)
    follows = bool(plan.validation) and _is_due(plan, step)
    log.step(StepDone(step=step, steps=plan.steps, metrics=metrics, validation_follows=follows))
    nothing = f"in each of {len(draw.played)} groups all rewards were alike; no update"
    for note in assigned.credited.notes if draw.live else [nothing]:
        log.notice(f"Step {step}: {note}.", "warn")
