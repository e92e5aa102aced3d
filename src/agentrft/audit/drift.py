"""Alarms while training: is the reward still about the task? Warns of drift, stops what only the reward likes.

Length, calls, diversity, entropy, n-grams, ESS and missing signal change in honest learning too, so they only warn; so
do the gradient's norm, the distance to the reference, one template for all items and graders that part company.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, replace
from typing import Any

from agentrft.audit import alarms, signals
from agentrft.audit.alarms import Evaluated, Reading
from agentrft.audit.thresholds import Thresholds
from agentrft.errors import UserError
from agentrft.graders import grade_episodes
from agentrft.protocols import Grader
from agentrft.together import together
from agentrft.types import Group, Verdict

KEPT_NGRAMS = 5_000
"""Most frequent n-grams of the start that are remembered."""
REARM_CHECKS = 3
"""An alarm that has fired is quiet until its figure was back (`Mark.back`) this many checks in a row."""


class DriftMonitor:
    """The `Monitor` of a run. The start is the first step's episodes, which the untrained policy played.

    With an `audit_grader`, the gap is (training grader − audit grader) on the same held-out episodes. Without one it is
    training reward − validation reward, of different episodes: too noisy to stop for, and blind to a flaw that held-out
    items share. It only warns then. The steps between two evaluations were played by policies between theirs, so their
    mean reward is compared with the mean of both: a policy that learns fast would else seem to run ahead once it slows.

    Each alarm is told once per excursion: figures that tremble around a threshold would else fire at every other step.
    """

    def __init__(
        self,
        audit_grader: Grader | None = None,
        thresholds: Thresholds | None = None,
        *,
        pass_threshold: float = 0.5,
        audit_pass_threshold: float = 0.5,
    ) -> None:
        """The pass thresholds are those of the training grader and of `audit_grader`; κ compares who passes."""
        self._grader = audit_grader
        self._limits = thresholds or Thresholds()
        self._pass = (pass_threshold, audit_pass_threshold)
        self._start: dict[str, Any] = {}
        self._kappa_0: float | None = None
        self._evaluations: list[Evaluated] = []
        self._audited: list[tuple[float, dict[str, float]]] = []  # of the last: step, item → mean audit grade
        self._rewards: list[float] = []  # mean training rewards since the last evaluation
        self._validation: float | None = None  # mean reward of the last evaluation
        self._norms: list[float] = []
        self._standing: dict[str, int] = {}  # alarm → checks in a row at which it was back

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON."""
        return {
            "start": self._start,
            "kappa_0": self._kappa_0,
            "evaluations": [list(astuple(point)) for point in self._evaluations],
            "audited": [[step, dict(by_item)] for step, by_item in self._audited],
            "rewards": list(self._rewards),
            "validation": self._validation,
            "norms": list(self._norms),
            "standing": dict(self._standing),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, after JSON; an empty one is a fresh start."""
        self._start = dict(state.get("start", {}))
        self._kappa_0 = state.get("kappa_0")
        points = state.get("evaluations", ())
        self._evaluations = [Evaluated(step=step, proxy=proxy, held_out=held_out) for step, proxy, held_out in points]
        self._audited = [(step, dict(by_item)) for step, by_item in state.get("audited", ())]
        self._rewards = list(state.get("rewards", ()))
        self._validation = state.get("validation")
        self._norms = list(state.get("norms", ()))
        self._standing = dict(state.get("standing", {}))

    def observe(self, step: int, metrics: Mapping[str, float], groups: Sequence[Group]) -> Verdict:
        """Alarms that are new at this training step; a reason to stop when a canary earned a reward."""
        if "reward_mean" in metrics:
            self._rewards.append(metrics["reward_mean"])
        now = alarms.figures_of(groups)
        if not self._start:
            counts = signals.count_ngrams(episode for group in groups for episode in group.episodes)
            n_episodes = sum(len(group.episodes) for group in groups)
            self._start = {"figures": now, "ngrams": dict(counts.most_common(KEPT_NGRAMS)), "n_episodes": n_episodes}
        start, limits = self._start["figures"], self._limits
        readings = [
            alarms.canary("train", groups),
            alarms.grown("length", now, start, limits),
            alarms.grown("calls", now, start, limits),
            alarms.shrunk("diversity", now, start, limits),
            alarms.shrunk("entropy", now, start, limits),
            alarms.template(now, start, limits),
            alarms.few_signal(metrics, limits),
            alarms.low_ess(metrics, limits),
            alarms.large_gradient(metrics, self._norms, limits),
            alarms.far_from_reference(metrics, limits),
            alarms.new_words(groups, self._start["ngrams"], self._start["n_episodes"], limits),
        ]
        if "grad_norm" in metrics:
            self._norms = [*self._norms, metrics["grad_norm"]][-alarms.GRAD_NORMS :]
        return self._verdict(readings)

    async def validated(self, step: int, groups: Sequence[Group]) -> Verdict:
        """Alarms that are new at this evaluation of held-out episodes; the audit grader grades them here.

        Raises UserError (`nothing_graded`) when the audit grader gives not one of them a number.
        """
        fair = [group for group in groups if not signals.is_canary(group.item)]
        reward = signals.mean(reward for _, reward in signals.rewarded(fair))
        regraded = await self._regraded(self._grader, fair) if self._grader else None
        if regraded is None:
            ends = [end for end in (self._validation, reward) if end is not None]
            proxy, held_out = signals.mean(self._rewards), signals.mean(ends)
        else:
            proxy, held_out = reward, _mean(regraded)
            by_item = {one.item.id: grade for one in regraded if (grade := _mean([one])) is not None}
            self._audited = [*self._audited, (step, by_item)][-self._limits.gap_evaluations :]
        self._rewards, self._validation = [], reward
        if proxy is not None and held_out is not None:
            self._evaluations.append(Evaluated(step=step, proxy=proxy, held_out=held_out))
        kappa = None if regraded is None else signals.passing_kappa(fair, regraded, *self._pass)
        if self._kappa_0 is None:
            self._kappa_0 = kappa
        readings = [
            alarms.canary("validation", groups),
            *alarms.gaps(self._evaluations, groups, self._limits, None if regraded is None else self._audited),
            alarms.less_agreement(kappa, self._kappa_0, self._limits),
        ]
        return self._verdict(readings)

    async def _regraded(self, grader: Grader, groups: Sequence[Group]) -> list[Group]:
        """The groups with the audit grader's grades."""
        grades_I_G = await together(grade_episodes(grader, group.episodes, group.item) for group in groups)
        regraded = [replace(group, grades=tuple(grades)) for group, grades in zip(groups, grades_I_G, strict=True)]
        if _mean(regraded) is None and _mean(groups) is not None:
            reasons = {grade.reason for group in regraded for grade in group.grades if grade.reason}
            raise UserError(
                f"The audit grader gave none of {sum(map(len, grades_I_G))} held-out episodes a number; expected "
                f"grades. It said: {'; '.join(sorted(reasons)[:3])}",
                param="audit.grader",
                code="nothing_graded",
            )
        return regraded

    def _verdict(self, readings: Sequence[Reading | None]) -> Verdict:
        """New alarms, and the reason to stop, which holds as long as its cause does."""
        told = [reading for reading in readings if reading and self._is_new(reading)]
        stopping = {reading.alarm.name for reading in told if reading.alarm.level == "stop"}
        new = tuple(r.alarm for r in told if r.alarm.level == "stop" or r.alarm.name not in stopping)
        stops = [r.alarm.message for r in readings if r and r.mark.past and r.alarm.level == "stop"]
        return Verdict(alarms=new, stop=stops[0] if stops else None)

    def _is_new(self, reading: Reading) -> bool:
        """Whether the alarm fires now; one that fired before is armed again by `REARM_CHECKS` checks back in a row."""
        key = f"{reading.alarm.name}:{reading.alarm.level}"  # a warning that becomes a stop is a new alarm
        if key not in self._standing:
            if reading.mark.past:
                self._standing[key] = 0
            return reading.mark.past
        checks = self._standing[key] + 1 if reading.mark.back else 0
        self._standing[key] = checks
        if checks >= REARM_CHECKS:
            del self._standing[key]
        return False


def _mean(groups: Sequence[Group]) -> float | None:
    return signals.mean(reward for _, reward in signals.rewarded(groups))
