"""Reinforcement fine-tuning: play groups of episodes, grade them, assign credit, update, validate, checkpoint.

A killed job resumes from its newest good checkpoint and replays the episodes in its journal. With an engine in exact
mode and deterministic tools and graders the result is the same, bit for bit, as without the kill.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from agentrft.credit import CREDIT, RewardScale
from agentrft.errors import StoreFault
from agentrft.protocols import Clock, EpisodeRecord, Grader, Learner, Monitor
from agentrft.rollout import Agent, row_of, trained_tokens
from agentrft.train.checkpoint import Checkpoint, Checkpoints, checkpoint_name
from agentrft.train.evaluate import EvalPlan, evaluate
from agentrft.train.journal import Journal
from agentrft.train.log import RunLog, StepDone
from agentrft.train.metrics import credit_metrics, has_signal, kl_k3, rewards_of, rollout_metrics, update_metrics
from agentrft.train.outage import MAX_VALIDATION_FAULT_FRAC, check_faults
from agentrft.train.plan import RftPlan, TrainResult
from agentrft.train.refill import Draw, Played, draw_groups
from agentrft.train.schedule import rate_at
from agentrft.types import Group, Row

Audit = Callable[[Sequence[Group]], Awaitable[None]]
"""Looks at the grader once, before step 1, with the episodes of the first validation; raises UserError to refuse it."""

KL_ROWS = 32
"""Rows of a step on which the KL to the reference is measured."""


async def train(
    plan: RftPlan,
    learner: Learner,
    agent: Agent,
    grader: Grader,
    log: RunLog,
    *,
    should_stop: Callable[[], str | None] = lambda: None,
    monitor: Monitor | None = None,
    audit: Audit | None = None,
) -> TrainResult:
    """Train until `plan.steps`, or until `should_stop` or `monitor` gives a reason; both are asked after whole steps.

    The agent's actor must play with the learner's current weights. The starting weights are validated and saved as
    step 0, so the result is never worse on validation than what training began with. `audit` comes between the two.
    Raises UserError when the grader keeps failing (`grader_failing`) or nothing can be graded (`nothing_graded`), and
    BoundaryError when the engine, the tools or the disk are down: call it again, with the same folder, to go on.
    """
    checkpoints = Checkpoints(plan.folder / "checkpoints", keep=plan.keep_checkpoints)
    with Journal(plan.folder / "journal.jsonl", job_id=log.job_id) as journal:
        state, stopped = await _resume(checkpoints, learner, monitor, log), None
        if state is None:
            state, groups, stopped = await _validate(plan, RftState(), agent, grader, monitor, log)
            if audit:
                await audit(groups)
            await _save(checkpoints, learner, state, journal, log)
        while state.step < plan.steps and not stopped:
            step = state.step + 1
            draw = await draw_groups(plan, step, agent, grader, journal, log)
            advantages_I_G, scale = assign_credit(plan.credit, draw.live, state.scale)
            rows_R = rows_of(draw.live, advantages_I_G)
            learned = await _learn(plan, step, learner, rows_R, agent.clock)
            state = replace(state, step=step, scale=scale, idle_steps=state.idle_steps + (not rows_R))
            metrics = {
                **rollout_metrics([one.group for one in draw.played], draw.wall_s, plan.pass_threshold),
                **credit_metrics(rows_R, advantages_I_G, scale),
                **learned,
            }
            if due := step % plan.eval_interval == 0 or step == plan.steps:
                metrics |= await _kl_to_reference(plan, learner, rows_R)
            _record(plan, step, draw, advantages_I_G, metrics, log)
            stopped = _watch(monitor, step, metrics, draw, log) or should_stop()
            state = replace(state, monitor=monitor.state() if monitor else {})
            if due:
                state, _, alarmed = await _validate(plan, state, agent, grader, monitor, log)
                stopped = stopped or alarmed
            if due or stopped:
                await _save(checkpoints, learner, state, journal, log)
        return _result(checkpoints, state, stopped if state.step < plan.steps else None, log)


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


def assign_credit(name: str, played: Sequence[Played], scale: RewardScale) -> tuple[list[list[float]], RewardScale]:
    """The advantage of every member, and the scale after this step."""
    rewards_I_G = [rewards_of(one.group) for one in played]
    credit_I_G = [CREDIT[name](rewards_G) for rewards_G in rewards_I_G]
    scale = scale.updated(rewards_I_G, credit_I_G)
    return [scale.advantages(credit_G) for credit_G in credit_I_G], scale


def rows_of(played: Sequence[Played], advantages_I_G: Sequence[Sequence[float]]) -> list[Row]:
    """The graded episodes as rows, by (seat, member); each token's credit is its advantage / tokens of the step.

    The token mean over the whole optimiser step: long episodes count by their length, and the loss stays a plain sum.
    """
    credited = [
        (f"{one.seat.item.id}#{one.seat.attempt}", episode, advantage)
        for one, advantages_G in zip(played, advantages_I_G, strict=True)
        for episode, reward, advantage in zip(one.group.episodes, rewards_of(one.group), advantages_G, strict=True)
        if reward is not None
    ]
    tokens = sum(trained_tokens(episode) for _, episode, _ in credited)
    return [row_of(episode, advantage / tokens, group=group) for group, episode, advantage in credited]


async def _learn(plan: RftPlan, step: int, learner: Learner, rows_R: Sequence[Row], clock: Clock) -> dict[str, float]:
    """One update on all rows; nothing happens without rows."""
    if not rows_R:
        return {}
    started = clock.monotonic()
    rate = rate_at(
        step, peak=plan.learning_rate, warmup_steps=plan.warmup_steps, total_steps=plan.steps, decay="constant"
    )
    report = await learner.forward_backward(rows_R, plan.loss)
    optim = await learner.optim_step(rate)
    return update_metrics(rows_R, report, optim, rate) | {"learn_s": clock.monotonic() - started}


async def _kl_to_reference(plan: RftPlan, learner: Learner, rows_R: Sequence[Row]) -> dict[str, float]:
    """How far the policy that played this step is from the model without its adapter: one more pass over some rows."""
    if not plan.measure_kl or not rows_R:
        return {}
    some_R = rows_R[:KL_ROWS]
    return {"kl_ref_k3": kl_k3(some_R, await learner.log_probs(some_R, reference=True))}


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
    state = RftState.from_json(newest.state)
    if monitor:
        monitor.restore(state.monitor)
    _tell(newest, state, log)  # a kill may have come between saving it and telling
    return state


async def _save(checkpoints: Checkpoints, learner: Learner, state: RftState, journal: Journal, log: RunLog) -> None:
    checkpoint = await checkpoints.save(learner, state.step, asdict(state), keep_steps={state.best_step})
    journal.clear()
    _tell(checkpoint, state, log)


def _tell(checkpoint: Checkpoint, state: RftState, log: RunLog) -> None:
    """List the checkpoint; telling the same one again changes nothing."""
    validated = dict(state.validations)
    metrics = {"valid_reward_mean": validated[state.step]} if state.step in validated else {}
    log.checkpoint(checkpoint, metrics, is_best=state.best_step == state.step)


def _record(
    plan: RftPlan,
    step: int,
    draw: Draw,
    advantages_I_G: Sequence[Sequence[float]],
    metrics: Mapping[str, float],
    log: RunLog,
) -> None:
    """Episodes with what training made of them, and the step's metrics."""
    advantages = iter(advantages_I_G)
    records = []
    for one in draw.played:
        records += _records(log.job_id, one.group, next(advantages) if has_signal(one.group) else None)
    log.episodes(records)
    log.step(StepDone(step=step, steps=plan.steps, metrics=metrics))
    if not draw.live:
        log.notice(f"Step {step}: in each of {len(draw.played)} groups all rewards were alike; no update.", "warn")


def _records(job_id: str, group: Group, advantages_G: Sequence[float] | None) -> list[EpisodeRecord]:
    return [
        EpisodeRecord(
            job_id=job_id,
            phase="train",
            stage="rft",
            episode=episode,
            grade=group.grades[member],
            reward=reward,
            advantage=advantages_G[member] if advantages_G and reward is not None else None,
        )
        for member, (episode, reward) in enumerate(zip(group.episodes, rewards_of(group), strict=True))
    ]


def _result(checkpoints: Checkpoints, state: RftState, stopped: str | None, log: RunLog) -> TrainResult:
    last = checkpoints.at(state.step)
    by_reward = sorted(state.validations, key=lambda point: -point[1])
    best = checkpoints.first_good(step for step, _ in by_reward) or last
    if last is None or best is None:
        raise StoreFault(f"a checkpoint in {checkpoints.folder} was damaged while the job ran; resume the job")
    if best.step != state.best_step:
        log.notice(
            f"The checkpoint of step {state.best_step} is damaged; the result is that of step {best.step}.", "warn"
        )
    return TrainResult(best=best, last=last, stopped=stopped, validations=state.validations)
