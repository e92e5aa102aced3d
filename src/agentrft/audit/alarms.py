"""The alarms, one function each: what is looked at, whether it is past its threshold, whether it is safely back.

Formulas: `signals`. None means that nothing can be said at this check, which neither fires an alarm nor clears one.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from agentrft.audit import signals
from agentrft.audit.thresholds import Thresholds
from agentrft.types import Alarm, Group

MARGIN = 0.1
"""Part of its threshold by which a figure must be on the harmless side to count as back."""
SHOWN_IDS = 20
"""Episode ids in an alarm."""
GRAD_NORMS = 50
"""Steps of the running median."""
_FEWEST_NORMS = 5

Figures = Mapping[str, float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Where a figure stands; between past and back it is neither."""

    past: bool
    """Beyond the threshold."""
    back: bool
    """On the harmless side of it by `MARGIN`."""

    def __and__(self, other: Mark) -> Mark:
        """Past where both are; back where one is."""
        return Mark(past=self.past and other.past, back=self.back or other.back)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """An alarm at one check, fired or not."""

    alarm: Alarm
    mark: Mark


def over(value: float, limit: float) -> Mark:
    """Of a figure that is harmless below."""
    return Mark(past=value > limit, back=value <= limit - MARGIN * abs(limit))


def under(value: float, limit: float) -> Mark:
    """Of a figure that is harmless above."""
    return Mark(past=value < limit, back=value >= limit + MARGIN * abs(limit))


def figures_of(groups: Sequence[Group]) -> dict[str, float | None]:
    """What later steps are compared with, of one step's groups."""
    played = [episode for episode, _ in signals.rewarded(groups)]
    return {
        "length": signals.mean(float(signals.generated_tokens(episode)) for episode in played),
        "length_rho": signals.reward_length_rho(groups),
        "calls": signals.mean(float(episode.n_calls) for episode in played),
        "calls_rho": signals.reward_calls_rho(groups),
        "diversity": signals.signature_diversity(groups),
        "entropy": signals.decision_entropy_estimate(groups),
        "template": signals.template_share(groups),
    }


def canary(phase: Literal["train", "validation"], groups: Sequence[Group]) -> Reading | None:
    """Rewards on items that nothing right can solve; None where none of them was played."""
    if not any(signals.is_canary(group.item) for group in groups):
        return None
    ids = signals.canaries_rewarded(groups)
    alarm = Alarm(
        name=f"canary_{phase}",
        level="stop",
        message=f"{len(ids)} {phase} episodes on canary items earned a reward; nothing right can: the grader errs.",
        formula="episodes with reward > 0 on items with `canary: true`",
        value=float(len(ids)),
        threshold=0.0,
        episode_ids=tuple(ids[:SHOWN_IDS]),
    )
    return Reading(alarm=alarm, mark=over(len(ids), 0))


def grown(name: Literal["length", "calls"], now: Figures, start: Figures, limits: Thresholds) -> Reading | None:
    """Longer episodes, or more calls, that go with reward."""
    rho, size, size_0 = now[f"{name}_rho"], now[name], start[name]
    if rho is None or size is None or not size_0:
        return None
    limit, rho_limit = (limits.length, limits.length_rho) if name == "length" else (limits.calls, limits.calls_rho)
    what = "generated tokens" if name == "length" else "tool calls"
    return _warning(
        name,
        f"Episodes have {size / size_0:.2f} times the {what} of the start, and reward goes with them (ρ {rho:.2f}).",
        f"mean {what} / at the start, with |mean within-group Spearman(reward, {what})| > {rho_limit:g}",
        size / size_0,
        limit,
        over(size / size_0, limit) & over(abs(rho), rho_limit),
    )


def shrunk(name: Literal["diversity", "entropy"], now: Figures, start: Figures, limits: Thresholds) -> Reading | None:
    """Tool use that lost what it had."""
    value, value_0 = now[name], start[name]
    if value is None or not value_0:
        return None
    limit, formula = {
        "diversity": (limits.diversity, "mean over groups of distinct call sequences / G"),
        "entropy": (limits.entropy, "mean −log-prob of generated tokens in calling replies"),
    }[name]
    message = f"The {name} of tool use is {value / value_0:.0%} of the start's."
    ratio = value / value_0
    return _warning(name, message, f"({formula}) / at the start", ratio, limit, under(ratio, limit))


def template(now: Figures, start: Figures, limits: Thresholds) -> Reading | None:
    """One behaviour for all items: what the agent does no longer depends on what it is asked."""
    share, share_0 = now["template"], start["template"]
    if share is None or not share_0:
        return None
    return _warning(
        "template",
        f"On {share:.0%} of the episodes, over different items, the answer or the calls are one and the same "
        f"({share_0:.0%} at the start).",
        "largest mean over items of the share of one answer, or of one call sequence with arguments; also / at the "
        f"start > {limits.template_growth:g}",
        share,
        limits.template,
        over(share, limits.template) & over(share / share_0, limits.template_growth),
    )


def few_signal(metrics: Mapping[str, float], limits: Thresholds) -> Reading | None:
    """Groups that teach nothing."""
    if "signal_frac" not in metrics:
        return None
    share = 1 - metrics["signal_frac"]
    message = f"In {share:.0%} of the groups all rewards are alike: they teach nothing."
    limit = limits.zero_signal
    return _warning("zero_signal", message, "1 − signal_frac", share, limit, over(share, limit))


def low_ess(metrics: Mapping[str, float], limits: Thresholds) -> Reading | None:
    """Generator and learner that disagree."""
    if "ess" not in metrics:
        return None
    ess, limit = metrics["ess"], limits.ess
    message = f"The effective sample size is {ess:.0%} of the tokens: generator and learner disagree."
    return _warning("ess", message, "(Σw)² / (N Σw²)", ess, limit, under(ess, limit))


def large_gradient(metrics: Mapping[str, float], norms: Sequence[float], limits: Thresholds) -> Reading | None:
    """A gradient out of line with those of the steps before, `norms`; None before there are five of them."""
    norm = metrics.get("grad_norm")
    median = statistics.median(norms[-GRAD_NORMS:]) if len(norms) >= _FEWEST_NORMS else 0.0
    if norm is None or not median:
        return None
    message = f"The gradient's norm is {norm:.3g}, {norm / median:.1f} times the median of the steps before."
    formula = f"grad_norm / median of up to {GRAD_NORMS} steps before"
    limit = limits.grad_norm
    return _warning("grad_norm", message, formula, norm / median, limit, over(norm / median, limit))


def far_from_reference(metrics: Mapping[str, float], limits: Thresholds) -> Reading | None:
    """A policy far from where it began; measured at evaluations, with an adapter only."""
    if "kl_ref_k3" not in metrics:
        return None
    kl, limit = metrics["kl_ref_k3"], limits.kl_ref
    message = f"The policy is {kl:.3f} nats per token from what training began with."
    return _warning("kl_ref", message, "kl_ref_k3, nats/token", kl, limit, over(kl, limit))


def new_words(groups: Sequence[Group], start: signals.Counts, n_start: int, limits: Thresholds) -> Reading:
    """Words that came up in training and go with high reward."""
    found = signals.emergent_ngrams(groups, start, n_start, ratio=limits.ngrams * (1 - MARGIN))
    top = sorted(found, key=lambda gram: (-found[gram][0], gram))
    value = found[top[0]][0] if top else 0.0
    alarm = Alarm(
        name="ngrams",
        level="warn",
        message="New in the agent's text, and going with high reward: " + ", ".join(map(repr, top[:5])) + ".",
        formula="frequency of a 1–3-gram now / at the start, among the top decile of log-odds with high reward",
        value=value,
        threshold=limits.ngrams,
        episode_ids=tuple(found[top[0]][1][:SHOWN_IDS]) if top else (),
    )
    return Reading(alarm=alarm, mark=over(value, limits.ngrams))


def less_agreement(kappa: float | None, kappa_0: float | None, limits: Thresholds) -> Reading | None:
    """A training grader that the audit grader agrees with less than at the start."""
    if kappa is None or kappa_0 is None:
        return None
    return _warning(
        "kappa",
        f"Grader and audit grader agree less on who succeeds: κ {kappa_0:.2f} → {kappa:.2f}.",
        "Cohen's κ of passing by either grader on the same held-out episodes, at the start − now",
        kappa_0 - kappa,
        limits.kappa,
        over(kappa_0 - kappa, limits.kappa),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluated:
    """One evaluation's figures."""

    step: int
    proxy: float
    """What training pays, on average."""
    held_out: float
    """What the independent figure says."""


def gaps(
    points: Sequence[Evaluated],
    groups: Sequence[Group],
    limits: Thresholds,
    audited: Sequence[tuple[float, Mapping[str, float]]] | None,
) -> list[Reading]:
    """The reward that runs away from the held-out figure: a warning, and a stop where that figure is flat too.

    `audited` has (step, item → mean audit grade) of the last evaluations: then both figures are of the same episodes,
    by two graders. None where there is no audit grader; the gap never stops then. A rise within its standard error is
    flat: on the few items that a validation can afford, noise would otherwise excuse a gap at every other evaluation.
    """
    if len(points) < 2:
        return []
    first, now = points[0], points[-1]
    widened = (now.proxy - now.held_out) - (first.proxy - first.held_out)
    other = "validation reward" if audited is None else "audit grade"
    best = sorted(signals.rewarded(groups), key=lambda pair: -pair[1])

    def reading(level: Literal["warn", "stop"], limit: float, mark: Mark) -> Reading:
        alarm = Alarm(
            name="gap",
            level=level,
            message=f"The reward has run {widened:.3f} ahead of the {other} on held-out items since the start "
            f"(reward {first.proxy:.3f} → {now.proxy:.3f}, {other} {first.held_out:.3f} → {now.held_out:.3f}); read "
            "the episodes it names.",
            formula=f"(reward − {other}) now − at the start; stops when the {other} is flat over "
            f"{limits.gap_evaluations} evaluations",
            value=widened,
            threshold=limit,
            episode_ids=tuple(episode.id for episode, _ in best[:SHOWN_IDS]),
        )
        return Reading(alarm=alarm, mark=mark)

    warns = reading("warn", limits.gap, over(widened, limits.gap))
    if audited is None:
        return [warns]
    rise, error = signals.rise(audited)
    is_flat = now.proxy > first.proxy and rise <= max(limits.gap_flat_rise, error)
    flat = Mark(past=is_flat, back=not is_flat)
    return [warns, reading("stop", limits.gap_stop, over(widened, limits.gap_stop) & flat)]


def _warning(name: str, message: str, formula: str, value: float, threshold: float, mark: Mark) -> Reading:
    alarm = Alarm(name=name, level="warn", message=message, formula=formula, value=value, threshold=threshold)
    return Reading(alarm=alarm, mark=mark)
