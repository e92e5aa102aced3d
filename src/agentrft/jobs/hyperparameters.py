"""OpenAI's hyperparameters: their bounds, what "auto" means here, and what each one sets in a job.

`HYPERPARAMETERS` is the table that `docs/openai-api.md` shows; a value that could not take effect is refused.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agentrft.errors import UserError
from agentrft.jobs.spec import (
    DpoHyperparameters,
    ReinforcementHyperparameters,
    SupervisedHyperparameters,
    Training,
)

MethodType = Literal["supervised", "dpo", "reinforcement"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameter:
    """One of OpenAI's hyperparameters, for one method."""

    method: MethodType
    name: str
    low: float = 1
    high: float | None = None
    is_whole: bool = True
    auto: str
    """What "auto" (or leaving it out) means."""
    effect: str
    """What it sets in the job document, and how."""

    @property
    def expected(self) -> str:
        """Its bounds in words."""
        if self.name == "reasoning_effort":
            return '"default"'
        kind = "a whole number" if self.is_whole else "a number"
        if self.is_whole:
            bound = f"from {self.low:g} to {self.high:g}" if self.high else f"of at least {self.low:g}"
        else:
            bound = f"above {self.low:g}" + (f", at most {self.high:g}" if self.high else "")
        return f'"auto", or {kind} {bound}'


@dataclass(frozen=True, slots=True)
class _Auto:
    """How one method chooses for "auto"."""

    batch_size: int
    steps: int
    """"n_epochs": passes are added until there are as many steps."""
    most_epochs: int
    rate: float


_AUTO: dict[MethodType, _Auto] = {
    "supervised": _Auto(SupervisedHyperparameters().batch_size, 30, 10, SupervisedHyperparameters().learning_rate),
    "dpo": _Auto(DpoHyperparameters().batch_size, 30, 3, DpoHyperparameters().learning_rate),
    "reinforcement": _Auto(
        ReinforcementHyperparameters().batch_size, Training().steps, 10, ReinforcementHyperparameters().learning_rate
    ),
}
_LARGEST_AUTO_BATCH = 32
_MOST_AUTO_VALIDATIONS = 20
_GROUP_SIZE = (2, 256)
_MOST_EVAL_SAMPLES = 64
_REASONING = "reasoning_effort"


def _shared(method: MethodType) -> tuple[Hyperparameter, ...]:
    """The three that every method has."""
    auto, unit = _AUTO[method], {"supervised": "demonstrations", "dpo": "pairs", "reinforcement": "items"}[method]
    steps = (
        "`training.steps` = ⌈n_epochs × items ÷ batch_size⌉" if method == "reinforcement" else "passes over the file"
    )
    return (
        Hyperparameter(
            method=method,
            name="batch_size",
            high=256,
            auto=f"rows ÷ 100, within {auto.batch_size} and {_LARGEST_AUTO_BATCH}, and no more than there are rows",
            effect=f"{unit} per optimiser step",
        ),
        Hyperparameter(
            method=method,
            name="learning_rate_multiplier",
            low=0,
            is_whole=False,
            auto="1",
            effect=f"`learning_rate` = this × {auto.rate:g}",
        ),
        Hyperparameter(
            method=method,
            name="n_epochs",
            high=50,
            auto=f"the fewest passes that make {auto.steps} steps, at most {auto.most_epochs}",
            effect=steps,
        ),
    )


HYPERPARAMETERS: tuple[Hyperparameter, ...] = (
    *_shared("supervised"),
    *_shared("dpo"),
    Hyperparameter(
        method="dpo",
        name="beta",
        low=0,
        high=2,
        is_whole=False,
        auto="the loss's own default",
        effect="`loss.beta`: higher stays nearer to the reference",
    ),
    *_shared("reinforcement"),
    Hyperparameter(
        method="reinforcement",
        name="compute_multiplier",
        low=1e-5,
        high=10,
        is_whole=False,
        auto="1",
        effect="episodes per item: `training.group_size` (8) × this, rounded; refused outside 2 to 256",
    ),
    Hyperparameter(
        method="reinforcement",
        name="eval_interval",
        auto=f"4, or what makes {_MOST_AUTO_VALIDATIONS} validations where that is more",
        effect="steps between validations, each with a checkpoint",
    ),
    Hyperparameter(
        method="reinforcement",
        name="eval_samples",
        auto="2",
        effect=f"episodes per validation item; refused above {_MOST_EVAL_SAMPLES}",
    ),
    Hyperparameter(
        method="reinforcement",
        name=_REASONING,
        auto="`default`",
        effect="none: how long a model reasons is bounded by `agent.limits.max_reply_tokens`; other values are refused",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What hyperparameters come to in a job document."""

    hyperparameters: dict[str, Any]
    """Ours, for `method.<type>.hyperparameters`."""
    training: dict[str, Any] = field(default_factory=dict)
    """What they set under `training`."""
    shown: dict[str, Any] = field(default_factory=dict)
    """OpenAI's, "auto" where nothing was given."""
    notes: tuple[str, ...] = ()
    """What a person should know of the numbers that were chosen."""


def translate(
    method: MethodType, given: Mapping[str, Any], *, rows: int, training: Mapping[str, Any], param: str
) -> Settings:
    """What `given`, OpenAI's hyperparameters at the place `param`, mean for a training file of `rows` rows.

    `training` is that section of the same body; it may set steps and group size itself. Ours beside OpenAI's is
    `learning_rate`, in place of the multiplier. Raises UserError with the place of what is wrong.
    """
    known = {one.name: one for one in HYPERPARAMETERS if one.method == method}
    check_known(given, [*known, "learning_rate"], param)
    values = {name: _value(given.get(name), one, f"{param}.{name}") for name, one in known.items()}
    shown = {name: "auto" if value is None else value for name, value in values.items()}
    batch_size = values["batch_size"] or auto_batch_size(rows, _AUTO[method].batch_size)
    n_epochs = values["n_epochs"] or auto_n_epochs(method, rows, batch_size)
    rate = _learning_rate(method, given, values["learning_rate_multiplier"], param)
    if given.get("learning_rate") is not None:
        shown["learning_rate"] = rate
    ours = {"batch_size": batch_size, "learning_rate": rate}
    if method != "reinforcement":
        beta = {"beta": values["beta"]} if values.get("beta") is not None else {}
        note = f"{n_epochs} passes in batches of {batch_size}, learning rate {rate:g}"
        return Settings(hyperparameters=ours | beta | {"n_epochs": n_epochs}, shown=shown, notes=(note,))
    _refuse_effort(given.get(_REASONING), f"{param}.{_REASONING}")
    steps = _steps(values["n_epochs"], n_epochs, rows, batch_size, training, param)
    group_size = _group_size(values["compute_multiplier"], training, param)
    samples = values["eval_samples"] or ReinforcementHyperparameters().eval_samples
    if samples > _MOST_EVAL_SAMPLES:
        raise _refused(f"{param}.eval_samples", samples, f"at most {_MOST_EVAL_SAMPLES} episodes per validation item")
    interval = values["eval_interval"] or max(4, -(-steps // _MOST_AUTO_VALIDATIONS) if isinstance(steps, int) else 4)
    return Settings(
        hyperparameters=ours | {"eval_interval": interval, "eval_samples": samples},
        training={"steps": steps, "group_size": group_size},
        shown=shown | {_REASONING: "default"},
        notes=(f"{steps} steps of {batch_size} items with {group_size} episodes each; validation every {interval}",),
    )


def as_openai(method: MethodType, spec: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of a stored job document under OpenAI's names, ours beside them.

    Passes are whole numbers there, so that a fraction is rounded up; those of reinforcement follow from the steps.
    """
    own = dict(spec["method"][method]["hyperparameters"])
    shown: dict[str, Any] = {**own, "learning_rate_multiplier": own["learning_rate"] / _AUTO[method].rate}
    if method == "reinforcement":
        multiplier = spec["training"]["group_size"] / Training().group_size
        return {**shown, "n_epochs": "auto", "compute_multiplier": multiplier, _REASONING: "default"}
    return {**shown, "n_epochs": math.ceil(own["n_epochs"])}


def auto_batch_size(rows: int, default: int) -> int:
    """A hundredth of the rows, but at least `default` and at most 32; never more than there are rows."""
    return max(1, min(rows, max(default, min(_LARGEST_AUTO_BATCH, rows // 100))))


def auto_n_epochs(method: MethodType, rows: int, batch_size: int) -> int:
    """The fewest whole passes that make a useful number of steps, within what does not yet wear the rows out."""
    auto = _AUTO[method]
    return min(auto.most_epochs, math.ceil(auto.steps * batch_size / max(rows, 1)))


def check_known(given: Mapping[str, Any], known: list[str], param: str) -> None:
    """Raise UserError for a key that is not known at this place of a body (`param` is empty at the top)."""
    for name in given:
        if name not in known:
            path = f"{param}.{name}" if param else name
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            advice = f"did you mean `{near[0]}`?" if near else "remove it, or see docs/openai-api.md"
            under = f" under `{param}`" if param else ""
            raise UserError(
                f"unknown key `{name[:100]}`{under}; expected some of {', '.join(known)}; {advice}",
                param=path[:200],
                code="unknown_parameter",
            )


def _value(given: Any, one: Hyperparameter, param: str) -> Any:
    """The number, or None for "auto"; raises UserError outside OpenAI's bounds."""
    if given is None or given == "auto" or one.name == _REASONING:
        return None
    is_number = isinstance(given, int) or (isinstance(given, float) and math.isfinite(given))
    if not is_number or isinstance(given, bool) or (one.is_whole and given != int(given)):
        raise _refused(param, given, one.expected)
    too_low = given < one.low if one.is_whole else given <= one.low
    if too_low or (one.high is not None and given > one.high):
        raise _refused(param, given, one.expected)
    return int(given) if one.is_whole else float(given)


def _learning_rate(method: MethodType, given: Mapping[str, Any], multiplier: float | None, param: str) -> float:
    own = given.get("learning_rate")
    if own is None:
        rate = _AUTO[method].rate * (multiplier if multiplier is not None else 1.0)
        if rate > 1:
            raise _refused(
                f"{param}.learning_rate_multiplier",
                multiplier,
                f"at most {1 / _AUTO[method].rate:g}, which is a rate of 1",
            )
        return rate
    if multiplier is not None:
        raise UserError(
            f"`{param}` has `learning_rate` and `learning_rate_multiplier`, which are the same setting; leave out one",
            param=f"{param}.learning_rate_multiplier",
            code="invalid_job",
        )
    if isinstance(own, bool) or not isinstance(own, int | float) or not 0 <= own <= 1:
        raise _refused(f"{param}.learning_rate", own, "a number from 0 to 1")
    return float(own)


def _steps(
    asked: int | None, n_epochs: int, rows: int, batch_size: int, training: Mapping[str, Any], param: str
) -> Any:
    own = training.get("steps")
    if own is None:
        return max(1, math.ceil(n_epochs * rows / batch_size))
    if asked is not None:
        raise UserError(
            f"`{param}.n_epochs` is {asked} and `training.steps` is {own!r}, which set the same; leave out one of them",
            param=f"{param}.n_epochs",
            code="invalid_job",
        )
    return own


def _group_size(multiplier: float | None, training: Mapping[str, Any], param: str) -> Any:
    base = training.get("group_size", Training().group_size)
    if multiplier is None or not isinstance(base, int) or not _GROUP_SIZE[0] <= base <= _GROUP_SIZE[1]:
        return base  # as it is, or for the job document to refuse
    size = math.floor(base * multiplier + 0.5)
    if not _GROUP_SIZE[0] <= size <= _GROUP_SIZE[1]:
        raise UserError(
            f"`{param}.compute_multiplier` is {multiplier:g}, which makes {size} episodes per item ({base} × "
            f"{multiplier:g}); expected {_GROUP_SIZE[0]} to {_GROUP_SIZE[1]}, because credit compares the episodes of "
            f"an item; use {1.5 / base:.3g} to {_GROUP_SIZE[1] / base:g}",
            param=f"{param}.compute_multiplier",
            code="unsupported_option",
        )
    return size


def _refuse_effort(given: Any, param: str) -> None:
    if given in (None, "default"):
        return
    raise UserError(
        f'`{param}` is {repr(given)[:60]}; expected "default": local models have no such setting. Leave it out, and '
        "bound how long the model reasons by `method.reinforcement.agent.limits.max_reply_tokens`",
        param=param,
        code="unsupported_option",
    )


def _refused(param: str, given: Any, expected: str) -> UserError:
    shown = repr(given) if isinstance(given, int | float | str) else type(given).__name__
    return UserError(
        f"`{param}` is {shown[:60]}; expected {expected}. Change it, or leave it out",
        param=param,
        code="invalid_value",
    )
