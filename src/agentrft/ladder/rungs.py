"""The rungs of the whole ladder, and which of them a decision leads to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from agentrft.errors import UserError
from agentrft.jobs.service import Kind
from agentrft.jobs.spec import JobSpec
from agentrft.ladder.measure import Measured
from agentrft.ladder.rules import Verdict
from agentrft.stats import Interval

Method = Literal["supervised", "rejection", "dpo", "reinforcement"]
METHODS: tuple[Method, ...] = ("supervised", "rejection", "dpo", "reinforcement")

KINDS: Mapping[Method, Kind] = {
    "supervised": "supervised",
    "rejection": "supervised",
    "dpo": "dpo",
    "reinforcement": "reinforcement",
}
"""Which loop runs a method. Rejection sampling is supervised fine-tuning on the agent's own successes."""

LABELS: Mapping[str, str] = {
    "base": "the job as it is",
    "optimised": "with a better prompt, tools or guardrails",
    "supervised": "after supervised fine-tuning on demonstrations",
    "rejection": "after supervised fine-tuning on own successes",
    "dpo": "after preference optimisation on own episodes",
    "reinforcement": "after reinforcement fine-tuning",
}

_TRAINS: Mapping[Verdict, tuple[Method, ...]] = {
    Verdict.SUPERVISED: ("supervised",),
    Verdict.SUPERVISED_THEN_REINFORCEMENT: ("supervised", "reinforcement"),
    Verdict.DPO: ("dpo",),
    Verdict.REINFORCEMENT: ("reinforcement",),
}
_BY_PAIRS = "12b"
"""The rule of `rejection_sampling_or_dpo` that counts pairs; the other one counts own successes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One rung that was measured, and what was decided on it."""

    name: str
    spec: JobSpec
    """The job as this rung plays it: with the adopted edits, where there are any."""
    model: str | None
    """Name of its weights; None for the job's own model."""
    over: str | None
    """Name of the rung that it started from; None for the first."""
    job: str | None = None
    """The job that made it: an optimisation or a training; None for the first rung."""
    measured: Mapping[str, Measured] = field(default_factory=dict)
    """By split; the first is the one that headlines quote."""
    bundle: str
    """Hash of the agent that played."""
    episodes: int = 0
    """Played to make it; those that measured and diagnosed it are not among them."""
    wall_s: float = 0.0
    """What making it took."""
    decision: Mapping[str, Any] | None = None
    """What `decide` said of a diagnosis of this rung; None where none was made."""


def gain_of(rung: Rung, before: Rung, split: str | None = None) -> Interval:
    """The paired gain in reward over another rung, on the split that headlines quote unless another is named."""
    split = split or next(iter(rung.measured))
    return rung.measured[split].gain_over(before.measured[split])


def read_methods(given: Iterable[str]) -> tuple[Method, ...]:
    """The methods of these names; raises UserError for a name that is none's, or is given twice."""
    known: dict[str, Method] = {method: method for method in METHODS}
    names = list(given)
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names):
        got = f"{unknown[0]!r}" if unknown else "one of them twice"
        raise UserError(f"--methods names {got}, expected some of {', '.join(METHODS)}; mend it", param="--methods")
    return tuple(known[name] for name in names)


def ruling(decision: Mapping[str, Any], *, searched: bool) -> tuple[Verdict, str]:
    """The verdict and its rule; where edits have been searched for, what decides when that is left aside."""
    if searched and decision["verdict"] == Verdict.OPTIMISE:
        decision = decision["otherwise"]
    return Verdict(decision["verdict"]), decision["rule"]


def next_method(
    decision: Mapping[str, Any], *, searched: bool, done: Collection[str], only: Sequence[Method]
) -> Method | None:
    """The method that the decision leads to, of those not `done`; None where it leads to none.

    `only`, where it is not empty, is what may be trained: its first method stands in for another that is decided on.
    """
    verdict, rule = ruling(decision, searched=searched)
    if verdict is Verdict.REJECTION_SAMPLING_OR_DPO:
        ways: tuple[Method, ...] = ("dpo",) if rule == _BY_PAIRS else ("rejection",)
    else:
        ways = _TRAINS.get(verdict, ())
    if "supervised" in ways and _has_more_of_its_own(decision["numbers"]):
        ways = tuple("rejection" if way == "supervised" else way for way in ways)
    if ways and only:
        ways = tuple(only)
    return next((way for way in ways if way not in done), None)


def _has_more_of_its_own(numbers: Mapping[str, Any]) -> bool:
    """Rule 8 counts demonstrations and own successes together: then the larger part is imitated."""
    return (numbers.get("self_demos") or 0) > (numbers.get("demos") or 0)
