"""Every metric that training logs: its unit, its meaning, and how it is computed. Names elsewhere are these.

`frac` is a fraction from 0 to 1; `nats` are natural-log units.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from agentrft.credit import RewardScale
from agentrft.protocols import BackwardReport, OptimReport
from agentrft.rollout import trained_tokens
from agentrft.train.played import Played
from agentrft.types import Episode, Grade, Row, StopReason


@dataclass(frozen=True, slots=True)
class Metric:
    """What a number means."""

    unit: str
    meaning: str


METRICS: dict[str, Metric] = {
    # Episodes of a step, groups that were dropped for lack of signal included.
    "reward_mean": Metric("reward", "mean reward of the graded episodes"),
    "success_rate": Metric("frac", "graded episodes whose grade reaches the pass threshold"),
    "calls_mean": Metric("calls", "tool calls per episode, unreadable ones included"),
    "tool_error_frac": Metric("frac", "tool results that told the model of a mistake of its own"),
    "tool_call_s": Metric("s", "mean time of a call that was made, all tries and waits included"),
    "interventions_mean": Metric("rules", "guardrail objections per episode, enforced or noted"),
    "readable_frac": Metric("frac", "replies that could be read as a call or an answer"),
    "trunc_frac": Metric("frac", "episodes that a limit cut off"),
    "fault_frac": Metric("frac", "episodes that an outside part broke; out of the loss"),
    "no_grade_frac": Metric("frac", "episodes without a fault that the grader gave no number; out of the loss"),
    "clipped_frac": Metric("frac", "of the grades that judges took part in, those with a number outside `range`"),
    "substituted_frac": Metric("frac", "of the grades of a `multi` grader, those that are its `invalid_grade`"),
    "judge_tokens": Metric("tokens", "tokens that judges took, prompts and unreadable replies included"),
    "groups": Metric("groups", "groups played"),
    "signal_frac": Metric("frac", "groups played whose rewards differ"),
    "tokens_generated": Metric("tokens", "tokens the policy generated"),
    "rollout_s": Metric("s", "wall time of playing and grading"),
    # What was trained on.
    "adv_rms": Metric("1", "root mean square of the advantages, each episode's turns averaged"),
    "reward_scale": Metric("reward", "the run-wide scale that advantages were divided by"),
    "entropy": Metric("nats/token", "mean −log-prob of the generated tokens: a sampled estimate of the entropy"),
    "tokens_trained": Metric("tokens", "tokens in the loss; what it is normalised by"),
    "tokens_rows": Metric("tokens", "tokens of all rows"),
    "tokens_unique": Metric("tokens", "tokens computed after sharing prefixes"),
    "micro_batches": Metric("batches", "pieces the learner cut the step into"),
    "credit_s": Metric("s", "wall time of the passes that credit needs (information gain, a KL in the reward)"),
    "learn_s": Metric("s", "wall time of forward, backward and update"),
    "measure_s": Metric("s", "at evaluations: wall time of the passes that only measure"),
    # The update.
    "loss": Metric(
        "nats", "supervised: mean over trained tokens; preference: mean over units; reinforcement: no meaning"
    ),
    "learning_rate": Metric("1", "of the optimiser step"),
    "grad_norm": Metric("1", "before clipping"),
    "nll": Metric("nats/token", "mean −log-prob of the demonstrated tokens"),
    "token_accuracy": Metric("frac", "supervised: trained tokens that no other token is likelier than"),
    "preferred_frac": Metric("frac", "preference: units of the step with a margin above 0, before the update"),
    "margin": Metric("nats", "preference: mean logit of the step's units: how far preferred is above rejected"),
    "nll_preferred": Metric("nats/token", "preference: mean over pairs of the preferred row's mean −log-prob"),
    "reference_kl": Metric("nats/row", "kto: z₀ of the step, the KL to the reference on mismatched answers"),
    "masked_frac": Metric("frac", "trained tokens that the trust region dropped"),
    "ess": Metric("frac", "effective sample size over trained tokens, (Σw)² / (N Σw²)"),
    "kl_mu_k3": Metric("nats/token", "KL from generator to learner on the generated tokens, k3 estimator"),
    "kl_ref_k3": Metric("nats/token", "at evaluations: KL from the policy to what training began with, k3"),
    "log_prob_gap_max": Metric("nats", "largest |learner − generator| log-prob of a trained token"),
    # Validation, at its step.
    "valid_reward_mean": Metric("reward", "mean over validation items of their mean reward"),
    "valid_success_rate": Metric("frac", "success on validation items, item mean"),
    "valid_calls_mean": Metric("calls", "tool calls per validation episode, item mean"),
    "valid_s": Metric("s", "wall time of playing and grading the validation"),
    "valid_nll": Metric("nats/token", "mean −log-prob of held-out demonstrations"),
    "valid_pass_at_k": Metric("frac", "supervised with `early_stop`: validation items that one of K episodes solves"),
    "valid_readable_frac": Metric("frac", "supervised with `early_stop`: readable replies on validation items"),
    "valid_shortfall": Metric("frac", "of a checkpoint with `early_stop`: unsolved items plus unreadable replies"),
    "valid_loss": Metric("nats", "mean preference loss of held-out units"),
    "valid_margin": Metric("nats", "mean logit of held-out units"),
    "valid_preferred_frac": Metric("frac", "held-out units with a margin above 0"),
}


def rollout_metrics(played: Sequence[Played], wall_s: float, pass_threshold: float) -> dict[str, float]:
    """Of the episodes of a step, dropped groups included; a mean over nothing is left out."""
    pairs = [pair for one in played for pair in zip(one.group.episodes, one.group.grades, strict=True)]
    rewards = [reward for one in played for reward in one.rewards_G]
    graded = [grade.value for _, grade in pairs if grade.value is not None]
    sound = [episode for episode, _ in pairs if episode.stop_reason is not StopReason.FAULT]
    readable = [fraction for episode in sound if (fraction := readable_fraction(episode)) is not None]
    means = {
        "reward_mean": _mean(reward for reward in rewards if reward is not None),
        "success_rate": _mean(value >= pass_threshold for value in graded),
        "calls_mean": _mean(episode.n_calls for episode in sound),
        **_of_tools(sound),
        "readable_frac": _mean(readable),
        "trunc_frac": _mean(episode.stop_reason.is_truncated for episode, _ in pairs),
        "fault_frac": 1 - len(sound) / len(pairs),
        "no_grade_frac": (len(sound) - len(graded)) / len(pairs),
        "signal_frac": _mean(one.has_signal for one in played),
    }
    totals = {
        "rollout_s": wall_s,
        "groups": float(len(played)),
        "tokens_generated": float(sum(trained_tokens(episode) for episode, _ in pairs)),
    }
    hidden = _hidden_by_grades([grade for _, grade in pairs])
    return {name: value for name, value in (means | hidden | totals).items() if value is not None}


def _of_tools(episodes: Sequence[Episode]) -> dict[str, float | None]:
    """None where no tool was called."""
    results = [result for episode in episodes for turn in episode.turns for result in turn.results]
    if not results:
        return {}
    return {
        "tool_error_frac": _mean(result.is_error for result in results),
        "tool_call_s": _mean(result.wall_s for result in results if result.tries),
        "interventions_mean": sum(len(result.interventions) for result in results) / len(episodes),
    }


def _hidden_by_grades(grades: Sequence[Grade]) -> dict[str, float | None]:
    """What numbers do not show; None where no judge, or no `multi` grader, took part."""
    judged = [grade for grade in grades if grade.token_usage or grade.clipped]
    joined = [grade for grade in grades if grade.value is not None and (grade.sub_grades or grade.substituted)]
    tokens = [usage.total_tokens for grade in grades for usage in grade.token_usage.values()]
    return {
        "clipped_frac": _mean(bool(grade.clipped) for grade in judged),
        "substituted_frac": _mean(grade.substituted is not None for grade in joined),
        "judge_tokens": float(sum(tokens)) if tokens else None,
    }


def credit_metrics(
    rows: Sequence[Row], advantages_I_G_K: Sequence[Sequence[Sequence[float]]], scale: RewardScale
) -> dict[str, float]:
    """Of what a step will be trained on; empty without rows."""
    if not rows:
        return {}
    squares = [
        math.fsum(advantage**2 for advantage in advantages_K) / max(len(advantages_K), 1)
        for advantages_G_K in advantages_I_G_K
        for advantages_K in advantages_G_K
    ]
    log_probs = [lp for row in rows for lp, trained in zip(row.log_probs, row.trained, strict=True) if trained]
    return {
        "adv_rms": math.sqrt(math.fsum(squares) / len(squares)),
        "reward_scale": scale.rms,
        "entropy": -math.fsum(log_probs) / len(log_probs),
    }


def update_metrics(
    rows: Sequence[Row], report: BackwardReport, optim: OptimReport, learning_rate: float
) -> dict[str, float]:
    """Of one forward_backward and the optimiser step after it."""
    metrics = dict(report.metrics)
    weight, weight_sq = metrics.pop("weight", None), metrics.pop("weight_sq", None)
    if weight is not None and weight_sq:
        metrics["ess"] = weight**2 / weight_sq
        metrics["log_prob_gap_max"] = _largest_gap(rows, report)
    return metrics | {
        "loss": report.loss,
        "learning_rate": learning_rate,
        "grad_norm": optim.grad_norm,
        "tokens_trained": float(sum(sum(row.trained) for row in rows)),
        "tokens_rows": float(report.row_tokens),
        "tokens_unique": float(report.unique_tokens),
        "micro_batches": float(report.micro_batches),
    }


def kl_k3(rows: Sequence[Row], reference: Sequence[Sequence[float]]) -> float:
    """KL from the generator to the reference on the generated tokens (nats/token), from `reference` log-probs.

    The k3 estimator: mean of exp(−d) + d − 1 with d = log p_generator − log p_reference, clamped to ±20. Source:
    Schulman 2020, "Approximating KL divergence".
    """
    gaps = [
        min(max(lp - ref, -20.0), 20.0)
        for row, reference_T in zip(rows, reference, strict=True)
        for lp, ref, trained in zip(row.log_probs, reference_T, row.trained, strict=True)
        if trained
    ]
    return math.fsum(math.exp(-gap) + gap - 1.0 for gap in gaps) / len(gaps)


def is_success(grade: Grade, pass_threshold: float) -> bool:
    """True when there is a grade and it reaches the threshold."""
    return grade.value is not None and grade.value >= pass_threshold


def readable_fraction(episode: Episode) -> float | None:
    """The share of replies that were a call or an answer; a reply cut off is neither. None without replies."""
    if not episode.turns:
        return None
    last = episode.turns[-1]
    cut_off = episode.stop_reason in (StopReason.MAX_REPLY_TOKENS, StopReason.MAX_EPISODE_TOKENS) and not last.results
    unreadable = sum(turn.malformed is not None for turn in episode.turns) + cut_off
    return 1 - unreadable / len(episode.turns)


def _largest_gap(rows: Sequence[Row], report: BackwardReport) -> float:
    pairs = zip(rows, report.log_probs, strict=True)
    return max(abs(a - b) for row, log_probs in pairs for a, b in zip(row.log_probs, log_probs, strict=True))


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else None


def without_timing(metrics: Mapping[str, float]) -> dict[str, float]:
    """What must be equal when a run is repeated exactly: everything but wall times."""
    return {name: value for name, value in metrics.items() if METRICS[name].unit != "s"}
