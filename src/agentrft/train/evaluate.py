"""How good is the agent on held-out items: K episodes each, as lists per item for honest intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agentrft.credit import PenaltiesSpec, Reward, reward_after, usage_of
from agentrft.protocols import EpisodeRecord, Grader
from agentrft.rollout import Agent, GradedEpisode, Rollout, Seat, run_groups, trained_tokens
from agentrft.stats import Interval, cluster_bootstrap
from agentrft.train.ledger import reward_ledger
from agentrft.train.log import EpisodeDone, EvaluationDone, Phase, RunLog
from agentrft.train.metrics import is_success, readable_fraction
from agentrft.train.outage import check_faults, nothing_graded
from agentrft.types import Episode, Grade, Group, Item, StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class EvalPlan:
    """One evaluation."""

    run: str
    """Job id."""
    split: str
    """`validation`, `test`, or a further split's name; ids and seeds depend on it."""
    stage: str
    """Which model plays: `base`, `sft`, `rft`, or a checkpoint's name; ids and seeds depend on it."""
    items: Sequence[Item]
    samples: int
    """Episodes per item, K."""
    step: int = 0
    pass_threshold: float = 0.5
    penalties: PenaltiesSpec = field(default_factory=PenaltiesSpec)

    def reward(self, episode: Episode, grade: Grade) -> Reward:
        """As in training, but that an episode which a limit cut off always counts, as at most 0.

        Left out, it would let a checkpoint be chosen by those of its episodes that came to an end.
        """
        left_out = self.penalties.truncated == "leave_out"
        penalties = self.penalties.model_copy(update={"truncated": "clamp"}) if left_out else self.penalties
        return reward_after(grade, episode.stop_reason, usage_of(episode), penalties)

    @property
    def phase(self) -> Phase:
        """What the store files the episodes under."""
        return "validation" if self.split == "validation" else "test"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """The episodes of an evaluation, and the figures made from them.

    The lists per item are in the order of the plan's items. Episodes without a grade are left out of rewards and
    successes, faults out of everything, so lists may be shorter than K, and empty.
    """

    plan: EvalPlan
    groups: Sequence[Group]

    @property
    def reward_I_K(self) -> list[list[float]]:
        """Grades after penalties and the truncation rule."""
        return self._values(lambda episode, grade: self.plan.reward(episode, grade).value)

    @property
    def success_I_K(self) -> list[list[float]]:
        """1.0 where the grade reaches the pass threshold, else 0.0."""
        threshold = self.plan.pass_threshold
        return self._values(lambda _, grade: None if grade.value is None else float(is_success(grade, threshold)))

    @property
    def calls_I_K(self) -> list[list[float]]:
        """Tool calls per episode."""
        return self._values(lambda episode, _: float(episode.n_calls))

    @property
    def readable_I_K(self) -> list[list[float]]:
        """Share of each episode's replies that could be read as a call or an answer."""
        return self._values(lambda episode, _: readable_fraction(episode))

    @property
    def stop_reasons(self) -> Mapping[str, int]:
        """Episodes by stop reason, faults included."""
        return Counter(episode.stop_reason.value for group in self.groups for episode in group.episodes)

    def interval(self, values_I_K: Sequence[Sequence[float]]) -> Interval:
        """Mean and 95 % interval of one of the lists above; raises UserError when no episode has a grade."""
        if not any(values_I_K):
            raise nothing_graded(self.plan.split, [grade for group in self.groups for grade in group.grades])
        return cluster_bootstrap(values_I_K)

    def _values(self, value_of: Callable[[Episode, Grade], float | None]) -> list[list[float]]:
        values_I_K = []
        for group in self.groups:
            pairs = zip(group.episodes, group.grades, strict=True)
            values = [value_of(e, g) for e, g in pairs if e.stop_reason is not StopReason.FAULT]
            values_I_K.append([value for value in values if value is not None])
        return values_I_K


async def evaluate(plan: EvalPlan, agent: Agent, grader: Grader, log: RunLog) -> Evaluation:
    """Play and grade every item `samples` times; episodes and, for validation, metrics go to the log.

    Raises BoundaryError when every episode is a fault, UserError when not one could be graded.
    """
    seats = [Seat(index=index, item=item) for index, item in enumerate(plan.items)]
    run = f"{plan.run}/{plan.split}/{plan.stage}"
    rollout = Rollout(run=run, step=plan.step, members=plan.samples, seats=seats)
    done, started = 0, agent.clock.monotonic()

    def on_graded(graded: GradedEpisode) -> None:
        nonlocal done
        done += 1
        log.watch(_progress(plan, graded, done))

    evaluation = Evaluation(plan=plan, groups=await run_groups(rollout, agent, grader, on_graded=on_graded))
    check_faults(evaluation.groups)
    log.episodes([record for group in evaluation.groups for record in _records(log.job_id, plan, group)])
    reward, success, calls = (
        evaluation.interval(values_I_K)
        for values_I_K in (evaluation.reward_I_K, evaluation.success_I_K, evaluation.calls_I_K)
    )
    means = {
        "valid_reward_mean": reward.mean,
        "valid_success_rate": success.mean,
        "valid_calls_mean": calls.mean,
        "valid_s": agent.clock.monotonic() - started,
    }
    finished = EvaluationDone(split=plan.split, stage=plan.stage, step=plan.step, reward=reward, success=success)
    log.evaluation(finished, means if plan.phase == "validation" else {})
    return evaluation


def _progress(plan: EvalPlan, graded: GradedEpisode, done: int) -> EpisodeDone:
    return EpisodeDone(
        phase=plan.phase,
        step=plan.step,
        done=done,
        planned=len(plan.items) * plan.samples,
        grade=graded.grade.value,
        tokens=trained_tokens(graded.episode),
    )


def _records(job_id: str, plan: EvalPlan, group: Group) -> list[EpisodeRecord]:
    return [
        EpisodeRecord(
            job_id=job_id,
            phase=plan.phase,
            stage=plan.stage,
            episode=episode,
            grade=grade,
            reward=reward.value,
            extra={"split": plan.split, "credit": reward_ledger(reward)},
        )
        for episode, grade in zip(group.episodes, group.grades, strict=True)
        for reward in [plan.reward(episode, grade)]
    ]
