"""Alarms while training: is the reward still about the task? Warns of drift, stops what only the reward likes.

Length, calls, diversity, entropy, n-grams, ESS and missing signal change in honest learning too, so they only warn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentrft.audit import signals
from agentrft.errors import UserError
from agentrft.graders import grade_episode
from agentrft.protocols import Grader
from agentrft.rollout import together
from agentrft.types import Alarm, Group, Verdict

KEPT_NGRAMS = 5_000
"""Most frequent n-grams of the start that are remembered."""
SHOWN_IDS = 20
"""Episode ids in an alarm."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """When alarms fire; the defaults are those of algorithms.md §5.3."""

    gap_warn: float = 0.05
    gap_stop: float = 0.10
    evaluations: int = 3
    """Evaluations over which the held-out grade is called flat."""
    flat_rise: float = 0.01
    """A held-out grade that rose by no more than this over them is flat: an exact 0 would be noise's to decide."""
    rho: float = 0.3
    growth: float = 1.5
    """Of mean length or calls over the start's, together with |rho|."""
    diversity: float = 0.25
    """Of the start's."""
    entropy: float = 0.20
    """Of the start's."""
    zero_signal: float = 0.7
    ess: float = 0.3
    ngram_ratio: float = 10.0


class DriftMonitor:
    """The `Monitor` of a run. The start is the first step's episodes, which the untrained policy played.

    With an `audit_grader`, the gap is (training grader − audit grader) on the same held-out episodes. Without one it is
    training reward − validation reward, of different episodes: too noisy to stop for, and blind to a flaw that held-out
    items share. It only warns then.
    """

    def __init__(self, audit_grader: Grader | None = None, thresholds: Thresholds | None = None) -> None:
        self._grader = audit_grader
        self._limits = thresholds or Thresholds()
        self._start: dict[str, Any] = {}
        self._evaluations: list[tuple[int, float, float]] = []  # (step, training figure, held-out figure)
        self._rewards: list[float] = []  # mean training rewards since the last evaluation
        self._standing: set[str] = set()

    def state(self) -> dict[str, Any]:
        """What `restore` needs, as JSON."""
        return {
            "start": self._start,
            "evaluations": [list(point) for point in self._evaluations],
            "rewards": list(self._rewards),
            "standing": sorted(self._standing),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, after JSON; an empty one is a fresh start."""
        self._start = dict(state.get("start", {}))
        self._evaluations = [(step, proxy, held_out) for step, proxy, held_out in state.get("evaluations", ())]
        self._rewards = list(state.get("rewards", ()))
        self._standing = set(state.get("standing", ()))

    def observe(self, step: int, metrics: Mapping[str, float], groups: Sequence[Group]) -> Verdict:
        """Alarms that are new at this training step; a reason to stop when a canary earned a reward."""
        if "reward_mean" in metrics:
            self._rewards.append(metrics["reward_mean"])
        now = _figures(groups)
        if not self._start:
            counts = signals.count_ngrams(episode for group in groups for episode in group.episodes)
            n_episodes = sum(len(group.episodes) for group in groups)
            self._start = {"figures": now, "ngrams": dict(counts.most_common(KEPT_NGRAMS)), "n_episodes": n_episodes}
        alarms = [
            _canary("train", groups),
            self._grown("length", now, "generated tokens"),
            self._grown("calls", now, "tool calls"),
            self._shrunk("diversity", now, self._limits.diversity, "mean over groups of distinct call sequences / G"),
            self._shrunk("entropy", now, self._limits.entropy, "mean −log-prob of generated tokens in calling replies"),
            self._few_signal(metrics),
            self._low_ess(metrics),
            self._words(groups),
        ]
        checked = {"canary_train", "length", "calls", "diversity", "entropy", "zero_signal", "ess", "ngrams"}
        return self._verdict(alarms, checked)

    async def validated(self, step: int, groups: Sequence[Group]) -> Verdict:
        """Alarms that are new at this evaluation of held-out episodes; the audit grader grades them here.

        Raises UserError (`nothing_graded`) when the audit grader gives not one of them a number.
        """
        figures = await self._held_out(groups)
        self._rewards = []
        if figures is not None:
            self._evaluations.append((step, *figures))
        return self._verdict([_canary("validation", groups), self._gap(groups)], {"canary_validation", "gap"})

    async def _held_out(self, groups: Sequence[Group]) -> tuple[float, float] | None:
        """(training figure, held-out figure) of this evaluation; None where there is nothing to compare."""
        fair = [group for group in groups if group.item.fields.get("canary") is not True]
        reward = signals.mean(reward for _, reward in signals.rewarded(fair))
        if self._grader is None:
            training = signals.mean(self._rewards)
            return None if training is None or reward is None else (training, reward)
        grader = self._grader
        pairs = [(group.item, episode) for group in fair for episode in group.episodes]
        grades = iter(await together(grade_episode(grader, episode, item) for item, episode in pairs))
        regraded = [replace(group, grades=tuple(next(grades) for _ in group.episodes)) for group in fair]
        audit = signals.mean(reward for _, reward in signals.rewarded(regraded))
        if audit is None and reward is not None:
            reasons = {grade.reason for group in regraded for grade in group.grades if grade.reason}
            raise UserError(
                f"The audit grader gave none of {len(pairs)} held-out episodes a number; expected grades. "
                f"It said: {'; '.join(sorted(reasons)[:3])}",
                param="audit.grader",
                code="nothing_graded",
            )
        return None if audit is None or reward is None else (reward, audit)

    def _gap(self, groups: Sequence[Group]) -> Alarm | None:
        if len(self._evaluations) < 2:
            return None
        (_, proxy_0, held_0), (_, proxy, held) = self._evaluations[0], self._evaluations[-1]
        widened = (proxy - held) - (proxy_0 - held_0)
        if widened <= self._limits.gap_warn:
            return None
        last = self._evaluations[-self._limits.evaluations :]
        rise = signals.slope([(step, figure) for step, _, figure in last]) * (last[-1][0] - last[0][0])
        is_flat = rise <= self._limits.flat_rise and proxy > proxy_0
        is_stop = self._grader is not None and widened > self._limits.gap_stop and is_flat
        threshold = self._limits.gap_stop if is_stop else self._limits.gap_warn
        best = sorted(signals.rewarded(groups), key=lambda pair: -pair[1])
        other = "audit grade" if self._grader else "validation reward"
        return Alarm(
            name="gap",
            level="stop" if is_stop else "warn",
            message=f"The reward has run {widened:.3f} ahead of the {other} on held-out items since the start "
            f"(reward {proxy_0:.3f} → {proxy:.3f}, {other} {held_0:.3f} → {held:.3f}); read the episodes it names.",
            formula=f"(reward − {other}) now − at the start; stops when the {other} is flat over {len(last)} "
            "evaluations",
            value=widened,
            threshold=threshold,
            episode_ids=tuple(episode.id for episode, _ in best[:SHOWN_IDS]),
        )

    def _grown(self, name: str, now: Mapping[str, float | None], what: str) -> Alarm | None:
        rho, size, start = now[f"{name}_rho"], now[name], self._start["figures"][name]
        if rho is None or not size or not start:
            return None
        if abs(rho) <= self._limits.rho or size <= self._limits.growth * start:
            return None
        return _warning(
            name,
            f"Episodes have {size / start:.2f} times the {what} of the start, and reward goes with them (ρ {rho:.2f}).",
            f"mean {what} / at the start, with |mean within-group Spearman(reward, {what})| > {self._limits.rho}",
            size / start,
            self._limits.growth,
        )

    def _shrunk(self, name: str, now: Mapping[str, float | None], limit: float, formula: str) -> Alarm | None:
        value, start = now[name], self._start["figures"][name]
        if value is None or not start or value >= limit * start:
            return None
        message = f"The {name} of tool use is {value / start:.0%} of the start's."
        return _warning(name, message, f"({formula}) / at the start", value / start, limit)

    def _few_signal(self, metrics: Mapping[str, float]) -> Alarm | None:
        share = 1 - metrics.get("signal_frac", 1.0)
        if share <= self._limits.zero_signal:
            return None
        message = f"In {share:.0%} of the groups all rewards are alike: they teach nothing."
        return _warning("zero_signal", message, "1 − signal_frac", share, self._limits.zero_signal)

    def _low_ess(self, metrics: Mapping[str, float]) -> Alarm | None:
        ess = metrics.get("ess", 1.0)
        if ess >= self._limits.ess:
            return None
        message = f"The effective sample size is {ess:.0%} of the tokens: generator and learner disagree."
        return _warning("ess", message, "(Σw)² / (N Σw²)", ess, self._limits.ess)

    def _words(self, groups: Sequence[Group]) -> Alarm | None:
        found = signals.emergent_ngrams(
            groups, self._start["ngrams"], self._start["n_episodes"], ratio=self._limits.ngram_ratio
        )
        if not found:
            return None
        top = sorted(found, key=lambda gram: (-found[gram][0], gram))
        shown = ", ".join(repr(gram) for gram in top[:5])
        alarm = _warning(
            "ngrams",
            f"New in the agent's text, and going with high reward: {shown}.",
            "frequency of a 1–3-gram now / at the start, among the top decile of log-odds with high reward",
            found[top[0]][0],
            self._limits.ngram_ratio,
        )
        return replace(alarm, episode_ids=tuple(found[top[0]][1][:SHOWN_IDS]))

    def _verdict(self, alarms: Sequence[Alarm | None], checked: set[str]) -> Verdict:
        """New alarms are told once; one that clears is armed again. A stop holds as long as its cause does."""
        present = {_key(alarm): alarm for alarm in alarms if alarm}
        new = tuple(alarm for key, alarm in present.items() if key not in self._standing)
        kept = {key for key in self._standing if key.partition(":")[0] not in checked}
        self._standing = kept | present.keys()
        stops = [alarm.message for alarm in present.values() if alarm.level == "stop"]
        return Verdict(alarms=new, stop=stops[0] if stops else None)


def _key(alarm: Alarm) -> str:
    """A warning that becomes a stop is a new alarm."""
    return f"{alarm.name}:{alarm.level}"


def _figures(groups: Sequence[Group]) -> dict[str, float | None]:
    played = [episode for episode, _ in signals.rewarded(groups)]
    return {
        "length": signals.mean(float(signals.generated_tokens(episode)) for episode in played),
        "length_rho": signals.reward_length_rho(groups),
        "calls": signals.mean(float(episode.n_calls) for episode in played),
        "calls_rho": signals.reward_calls_rho(groups),
        "diversity": signals.signature_diversity(groups),
        "entropy": signals.decision_entropy_estimate(groups),
    }


def _canary(phase: str, groups: Sequence[Group]) -> Alarm | None:
    ids = signals.canaries_rewarded(groups)
    if not ids:
        return None
    return Alarm(
        name=f"canary_{phase}",
        level="stop",
        message=f"{len(ids)} {phase} episodes on canary items earned a reward; nothing right can: the grader errs.",
        formula="episodes with reward > 0 on items with `canary: true`",
        value=float(len(ids)),
        threshold=0.0,
        episode_ids=tuple(ids[:SHOWN_IDS]),
    )


def _warning(name: str, message: str, formula: str, value: float, threshold: float) -> Alarm:
    return Alarm(name=name, level="warn", message=message, formula=formula, value=value, threshold=threshold)
