"""Go or no-go for reinforcement: the first rule that holds, with its numbers. Thresholds are uncalibrated defaults.

Source: the learnability questions of docs/diagnose.md; for binary rewards headroom and pass@k bound what sharpening the
agent's own behaviour can give.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from agentrft.diagnose.figures import Figures
from agentrft.diagnose.repeat import Agreement, Repeatability

Go = Literal["go", "no-go", "unsure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """When the rules hold."""

    min_items: int = 10
    min_samples: int = 4
    max_faults: float = 0.05
    max_no_grade: float = 0.2
    min_icc: float = 0.8
    min_rho: float = 0.8
    max_unreadable: float = 0.2
    max_truncated: float = 0.3
    solved: float = 0.9
    min_headroom: float = 0.05
    min_ever: float = 0.05
    """Of items that at least one episode solves."""
    good_signal: float = 0.4
    good_headroom: float = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the rules look at."""

    figures: Figures
    samples: int
    repeat: Repeatability
    agreement: Agreement | None = None
    fooled_by: tuple[str, ...] | None = None
    """Probes of the grader audit that failed; None when it did not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """The verdict."""

    go: Go
    rule: str
    """Name of the rule that fired."""
    why: str
    next_step: str
    numbers: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)


def rule(evidence: Evidence, bounds: Bounds | None = None) -> Ruling:
    """The first of `RULES` that holds."""
    bounds = bounds or Bounds()
    for one in RULES:
        ruling = one(evidence, bounds)
        if ruling is not None:
            return ruling
    raise AssertionError("unreachable: the last rule always holds")


def _too_few(e: Evidence, b: Bounds) -> Ruling | None:
    n = e.figures.reward.n_items
    if n >= b.min_items and e.samples >= b.min_samples:
        return None
    return Ruling(
        go="unsure",
        rule="too_few",
        why=f"{n} items with {e.samples} episodes each say too little; {b.min_items} × {b.min_samples} is the least",
        next_step="give more items, or more --samples",
        numbers={"n_items": n, "samples": e.samples},
    )


def _faulty(e: Evidence, b: Bounds) -> Ruling | None:
    share = e.figures.faults.mean
    if share <= b.max_faults:
        return None
    return Ruling(
        go="no-go",
        rule="faults",
        why=f"{share:.0%} of the episodes broke on a tool or the engine, more than {b.max_faults:.0%}",
        next_step="mend the tools first: training would learn around their faults",
        numbers={"faults": share},
    )


def _grader(e: Evidence, b: Bounds) -> Ruling | None:
    icc, rho = e.repeat.icc, e.agreement.rho if e.agreement else None
    if e.fooled_by:
        why = f"the grader can be fooled: {', '.join(e.fooled_by[:3])}"
    elif e.figures.no_grade > b.max_no_grade:
        why = f"{e.figures.no_grade:.0%} of the episodes got no grade, more than {b.max_no_grade:.0%}"
    elif icc is not None and icc < b.min_icc:
        why = f"the same episode gets other grades the second time: ICC {icc:.2f}, below {b.min_icc:.2f}"
    elif rho is not None and rho < b.min_rho:
        why = f"the grader and `audit.grader` disagree: rank correlation {rho:.2f}, below {b.min_rho:.2f}"
    else:
        return None
    numbers = {"no_grade": e.figures.no_grade, "icc": icc, "rho": rho}
    return Ruling(
        go="no-go",
        rule="grader",
        why=why,
        next_step="mend the grader before anything else: `agentrft audit` and `agentrft grade --repeat 3` show more",
        numbers={name: value for name, value in numbers.items() if value is not None},
    )


def _solved(e: Evidence, b: Bounds) -> Ruling | None:
    reward, headroom = e.figures.pass_at[1].wilson.mean, e.figures.headroom.mean
    if reward < b.solved and (headroom >= b.min_headroom or e.figures.never.mean > 0.5):
        return None
    solved = reward >= b.solved
    return Ruling(
        go="no-go",
        rule="little_to_gain",
        why=f"pass@1 is {reward:.2f}: nearly solved"
        if solved
        else f"the best of {e.samples} episodes earns only {headroom:.3f} more than the mean, below {b.min_headroom}",
        next_step="take harder items, or make it cheaper: fewer tokens and calls",
        numbers={"pass_at_1": reward, "headroom": headroom},
    )


def _unreadable(e: Evidence, b: Bounds) -> Ruling | None:
    if e.figures.unreadable <= b.max_unreadable:
        return None
    return Ruling(
        go="no-go",
        rule="unreadable",
        why=f"{e.figures.unreadable:.0%} of the replies could not be read as a call or an answer, "
        f"more than {b.max_unreadable:.0%}",
        next_step="another call format or fewer tools, or a short supervised start, until nine of ten can be read",
        numbers={"unreadable": e.figures.unreadable},
    )


def _truncated(e: Evidence, b: Bounds) -> Ruling | None:
    if e.figures.truncated <= b.max_truncated:
        return None
    return Ruling(
        go="no-go",
        rule="truncated",
        why=f"{e.figures.truncated:.0%} of the episodes ran into a limit, more than {b.max_truncated:.0%}",
        next_step="raise `agent.limits`, shorten tool outputs, or start with supervised fine-tuning",
        numbers={"truncated": e.figures.truncated},
    )


def _out_of_reach(e: Evidence, b: Bounds) -> Ruling | None:
    ever = 1 - e.figures.never.mean
    if ever >= b.min_ever:
        return None
    return Ruling(
        go="no-go",
        rule="out_of_reach",
        why=f"{ever:.0%} of the items were solved even once in {e.samples} tries, fewer than {b.min_ever:.0%}",
        next_step="supervised fine-tuning on demonstrations first, easier items, or a grader that pays for parts",
        numbers={"ever": ever, "signal": e.figures.signal.mean},
    )


def _go(e: Evidence, b: Bounds) -> Ruling | None:
    signal, headroom = e.figures.signal.mean, e.figures.headroom.mean
    if signal < b.good_signal or headroom < b.good_headroom:
        return None
    most = max(e.figures.pass_at)
    ceiling = e.figures.pass_at[most].wilson.mean
    return Ruling(
        go="go",
        rule="learnable",
        why=f"rewards differ on {signal:.0%} of the items; the best episode earns {headroom:.2f} more than the mean",
        next_step=f"expect {0.3 * headroom:.2f} to {0.7 * headroom:.2f} of that early; pass@{most} {ceiling:.2f} is "
        "the usual ceiling",
        numbers={"signal": signal, "headroom": headroom, f"pass_at_{most}": ceiling},
    )


def _sparse(e: Evidence, b: Bounds) -> Ruling | None:
    signal, headroom = e.figures.signal.mean, e.figures.headroom.mean
    return Ruling(
        go="no-go",
        rule="sparse",
        why=f"rewards differ on {signal:.0%} of the items, the best episode earns {headroom:.2f} more than the mean; "
        f"{b.good_signal:.0%} and {b.good_headroom} make learning comfortable",
        next_step="a grader that pays for parts, items of middling difficulty, or a supervised start; reinforcement "
        "will drop and refill groups without signal, at their cost",
        numbers={"signal": signal, "headroom": headroom},
    )


RULES: tuple[Callable[[Evidence, Bounds], Ruling | None], ...] = (
    _too_few,
    _faulty,
    _grader,
    _solved,
    _unreadable,
    _truncated,
    _out_of_reach,
    _go,
    _sparse,
)
"""In this order."""
