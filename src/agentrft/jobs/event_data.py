"""What a training step comes to in the words of OpenAI's `metrics` events: a line to read, and `data`.

`data` has the keys of OpenAI's supervised and reinforcement events, nested ones and the older ones on top, and for
tools those of Agent RFT's charts (`tools`). A mean over nothing is null, its count 0. What is counted how:
docs/openai-api.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agentrft.graders import AnySpec, LabelModelSpec, MultiSpec, ScoreModelSpec
from agentrft.jobs.spec import JobSpec
from agentrft.jobs.tool_figures import tool_figures
from agentrft.protocols import EpisodeRecord
from agentrft.rollout import trained_tokens
from agentrft.train.log import StepFigures
from agentrft.types import Grade, GradeError, StopReason, TokenUsage

Figures = Mapping[str, float | None]
Told = tuple[str, dict[str, Any]]
"""(line, data) of one event."""

_EVERY = {"sample_parse_error": GradeError.SAMPLE_PARSE, "invalid_variable_error": GradeError.INVALID_VARIABLE}
_PYTHON = {
    "python_grader_server_error": GradeError.PYTHON_SERVER,
    "python_grader_runtime_error": GradeError.PYTHON_RUNTIME,
}
_MODEL = {
    "model_grader_server_error": GradeError.MODEL_SERVER,
    "model_grader_refusal_error": GradeError.MODEL_REFUSAL,
    "model_grader_parse_error": GradeError.MODEL_PARSE,
}
_ENDPOINT = {"unresponsive_reward_error": GradeError.UNRESPONSIVE_REWARD}
_OF_TYPE = {"python": _PYTHON, "score_model": _MODEL, "label_model": _MODEL, "endpoint": _ENDPOINT}


def teller(spec: JobSpec, kind: str) -> Callable[[StepFigures], Told]:
    """What a job of that kind tells about each step."""
    reinforcement = spec.method.reinforcement
    if kind != "reinforcement" or reinforcement is None:
        return lambda figures: loss_event(kind, figures)
    graders = _graders(reinforcement.grader)
    return lambda figures: reward_event(graders, figures)


def loss_event(kind: str, figures: StepFigures) -> Told:
    """Of a step of a supervised or `dpo` job."""
    losses = loss_figures(kind, figures.metrics)
    shown = {
        "training loss": losses["train_loss"],
        "validation loss": losses["valid_loss"],
        "full validation loss": losses["full_valid_loss"],
    }
    data = {"step": figures.step, "total_steps": figures.steps, **losses}
    if kind == "dpo":
        names = ("preferred_frac", "margin")
        data |= {f"train_{name}": figures.metrics.get(name) for name in names}
        data |= {f"full_valid_{name}": figures.metrics.get(f"valid_{name}") for name in names}
    return f"Step {figures.step}/{figures.steps}: {_shown(shown)}", data


def loss_figures(kind: str, metrics: Figures) -> dict[str, float | None]:
    """OpenAI's losses and token accuracies of a step or checkpoint.

    Every validation is of the whole file, so `valid_…` is `full_valid_…`. Null are the losses of reinforcement, which
    have no meaning, and accuracies of validations and preferences, which nothing measures.
    """
    if kind == "reinforcement":
        metrics = {}
    valid_loss = metrics.get("valid_loss" if kind == "dpo" else "valid_nll")
    return {
        "train_loss": metrics.get("loss"),
        "valid_loss": valid_loss,
        "full_valid_loss": valid_loss,
        "train_mean_token_accuracy": metrics.get("token_accuracy"),
        "valid_mean_token_accuracy": None,
        "full_valid_mean_token_accuracy": None,
    }


def reward_figures(metrics: Figures) -> dict[str, float | None]:
    """The rewards of a step or checkpoint of a reinforcement job."""
    return {
        "train_mean_reward": metrics.get("reward_mean"),
        "full_valid_mean_reward": metrics.get("valid_reward_mean"),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Grader:
    """One grader of the job: the only one, or a part of `multi`."""

    key: str | None
    """Its name among the parts; None for the only one."""
    name: str
    type: str
    model: str | None

    def grade(self, whole: Grade) -> Grade | None:
        """Its own grade in the job's; None where it gave none, because the episode never got so far."""
        return whole if self.key is None else whole.parts.get(self.key)

    @property
    def errors(self) -> Mapping[str, GradeError]:
        """The kinds that have a name of their own in OpenAI's events, by that name."""
        return _EVERY | _OF_TYPE.get(self.type, {})


def _graders(spec: AnySpec) -> list[_Grader]:
    parts: Iterable[tuple[str | None, AnySpec]] = (
        spec.graders.items() if isinstance(spec, MultiSpec) else [(None, spec)]
    )
    return [
        _Grader(
            key=key,
            name=part.name if key is None else key,
            type=part.type,
            model=part.model if isinstance(part, ScoreModelSpec | LabelModelSpec) else None,
        )
        for key, part in parts
    ]


def reward_event(graders: Sequence[_Grader], figures: StepFigures) -> Told:
    """Of a step of a reinforcement job."""
    sides = {"train": figures.train, "valid": figures.validation}
    metrics, rewards = figures.metrics, reward_figures(figures.metrics)
    parse_error = _frac(figures.validation, GradeError.SAMPLE_PARSE)
    shown = {
        "train mean reward": rewards["train_mean_reward"],
        "full validation mean reward": rewards["full_valid_mean_reward"],
        "full validation mean parse error": parse_error,
    }
    data = {
        "step": figures.step,
        "total_steps": figures.steps,
        "usage": {
            "graders": [_usage(grader, sides) for grader in graders if grader.model],
            "samples": _by_side(sides, "reasoning_tokens", lambda record: trained_tokens(record.episode)),
        },
        "errors": {"graders": [_errors(grader, sides) for grader in graders]},
        "scores": {
            "graders": [_rewards(grader, sides) for grader in graders],
            "train_reward_mean": rewards["train_mean_reward"],
            "valid_reward_mean": rewards["full_valid_mean_reward"],
        },
        "timing": {"step": _seconds(metrics), "graders": [_latency(grader, sides) for grader in graders]},
        "tools": tool_figures(sides),
        **rewards,
        "full_valid_mean_parse_error": parse_error,
        "mean_unresponsive_rewards": _frac(figures.train, GradeError.UNRESPONSIVE_REWARD),
        "reasoning_tokens_mean": _mean(trained_tokens(record.episode) for record in _sound(figures.train)),
        "completion_tokens_mean": _mean(trained_tokens(record.episode) for record in _sound(figures.train)),
        "valid_reasoning_tokens_mean": _mean(trained_tokens(record.episode) for record in _sound(figures.validation)),
        "model_graders_token_usage": _tokens_by_model(sides),
    }
    return f"Step {figures.step}/{figures.steps} , {_shown(shown)}", data


def _seconds(metrics: Figures) -> dict[str, float | None]:
    parts = {"eval": "valid_s", "sampling": "rollout_s", "training": "learn_s"}
    seconds = {name: metrics.get(metric) for name, metric in parts.items()}
    known = [value for value in (*seconds.values(), metrics.get("measure_s")) if value is not None]
    return {**seconds, "full_iteration": math.fsum(known) if known else None}


def _grades(grader: _Grader, records: Sequence[EpisodeRecord]) -> list[Grade]:
    found = (grader.grade(record.grade) for record in _sound(records))
    return [grade for grade in found if grade is not None]


def _sides(grader: _Grader, sides: Mapping[str, Sequence[EpisodeRecord]]) -> dict[str, list[Grade]]:
    return {side: _grades(grader, records) for side, records in sides.items()}


def _usage(grader: _Grader, sides: Mapping[str, Sequence[EpisodeRecord]]) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": grader.name, "type": grader.type, "model": grader.model}
    for side, grades in _sides(grader, sides).items():
        used = [sum(grade.token_usage.values(), TokenUsage()) for grade in grades if grade.token_usage]
        for kind in ("prompt_tokens", "completion_tokens"):
            entry |= _mean_and_count(f"{side}_{kind}", [getattr(usage, kind) for usage in used])
    return entry


def _errors(grader: _Grader, sides: Mapping[str, Sequence[EpisodeRecord]]) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": grader.name, "type": grader.type}
    for side, grades in _sides(grader, sides).items():
        for name, kind in grader.errors.items():
            entry |= _mean_and_count(f"{side}_{name}", [grade.error is kind for grade in grades])
        named = set(grader.errors.values())
        others = [grade.value is None and grade.error not in named for grade in grades]
        entry |= _mean_and_count(f"{side}_other_error", others)
    return entry


def _rewards(grader: _Grader, sides: Mapping[str, Sequence[EpisodeRecord]]) -> dict[str, Any]:
    means = {
        f"{side}_reward_mean": _mean(grade.value for grade in grades if grade.value is not None)
        for side, grades in _sides(grader, sides).items()
    }
    return {"name": grader.name, "type": grader.type, **means}


def _latency(grader: _Grader, sides: Mapping[str, Sequence[EpisodeRecord]]) -> dict[str, Any]:
    means = {
        f"{side}_execution_latency_mean": _mean(grade.wall_s for grade in grades)
        for side, grades in _sides(grader, sides).items()
    }
    return {"name": grader.name, "type": grader.type, **means}


def _tokens_by_model(sides: Mapping[str, Sequence[EpisodeRecord]]) -> dict[str, dict[str, int]]:
    """Sums, by judge; OpenAI's older form calls validation `eval`."""
    totals: dict[str, dict[str, int]] = {}
    for side, prefix in (("train", "train"), ("valid", "eval")):
        used = [pair for record in sides[side] for pair in record.grade.token_usage.items()]
        for model in dict.fromkeys(model for model, _ in used):
            usage = sum((one for name, one in used if name == model), TokenUsage())
            counts = {name: getattr(usage, name) for name in ("prompt_tokens", "completion_tokens", "cached_tokens")}
            totals.setdefault(model, {}).update({f"{prefix}_{name}": count for name, count in counts.items()})
    return totals


def _by_side(
    sides: Mapping[str, Sequence[EpisodeRecord]], name: str, value_of: Callable[[EpisodeRecord], float]
) -> dict[str, Any]:
    entry: dict[str, Any] = {}
    for side, records in sides.items():
        entry |= _mean_and_count(f"{side}_{name}", [value_of(record) for record in _sound(records)])
    return entry


def _sound(records: Sequence[EpisodeRecord]) -> list[EpisodeRecord]:
    """Without faults: no grader saw those."""
    return [record for record in records if record.episode.stop_reason is not StopReason.FAULT]


def _frac(records: Sequence[EpisodeRecord], kind: GradeError) -> float | None:
    return _mean(record.grade.error is kind for record in _sound(records))


def _mean_and_count(name: str, values: Sequence[float]) -> dict[str, Any]:
    return {f"{name}_mean": _mean(values), f"{name}_count": len(values)}


def _mean(values: Iterable[float]) -> float | None:
    listed = list(values)
    return math.fsum(listed) / len(listed) if listed else None


def _shown(values: Figures) -> str:
    """`training loss=0.15, validation loss=0.27`: what there is, to two places."""
    return ", ".join(f"{name}={value:.2f}" for name, value in values.items() if value is not None)
