"""What a training report says, as plain data: the terminal table and the HTML page are made from the same object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentrft.stats import Interval
from agentrft.types import Episode


@dataclass(frozen=True, slots=True, kw_only=True)
class StageFigures:
    """One model on one held-out split."""

    reward: Interval
    success: Interval
    """Fraction of episodes whose grade reaches the pass threshold."""
    calls: Interval
    """Tool calls per episode."""
    parse_rate: Interval
    """Fraction of replies that could be read as a call or an answer."""
    stop_reasons: Mapping[str, int] = field(default_factory=dict)
    """Episodes by stop reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One rung of the ladder: a model, measured on the test split and on further ones."""

    name: str
    """`base`, `sft`, `rft`."""
    label: str
    """For people: "after supervised fine-tuning"."""
    figures: Mapping[str, StageFigures]
    """By split name; the first is the one that headlines quote."""
    wall_s: float = 0.0
    """Training time of the stage, evaluation not included; 0 for the base model."""

    @property
    def main(self) -> StageFigures:
        return next(iter(self.figures.values()))


@dataclass(frozen=True, slots=True, kw_only=True)
class RungLine:
    """What one rung of the whole ladder cost and brought, and what was decided on it."""

    name: str
    over: str | None = None
    """The rung that it started from; None for the first."""
    gain: Interval | None = None
    """Paired, in reward, over that rung."""
    episodes: int = 0
    """Played to make it: a search, or a training."""
    wall_s: float = 0.0
    decided: str = ""
    """The verdict in words; empty where none was made."""
    why: str = ""
    numbers: str = ""
    """What the rule compared."""
    sure: str = ""
    """Share of resamples with the same verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPoint:
    """One optimiser step as the curves show it."""

    step: int
    reward: float
    """Mean training reward of the step's episodes."""
    calls: float | None = None
    success: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationPoint:
    step: int
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One episode to read."""

    label: str
    episode: Episode
    reward: float | None
    credit: Sequence[str] = ()
    """What each turn earned, in words; empty where nothing was assigned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The same item before and after training."""

    question: str
    episodes: Sequence[Shown]


@dataclass(frozen=True, slots=True, kw_only=True)
class NextStep:
    """A command to type, and what it does."""

    what: str
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a training report shows. Absent parts are left out of the page."""

    kind: str
    """Line above the headline: "quickstart", "reinforcement fine-tuning"."""
    headline: str
    lede: str
    """One or two sentences under the headline: what was measured, and how surely."""
    facts: Sequence[tuple[str, str]] = ()
    """Label and value, shown in a row: model, task, seed, time."""
    stages: Sequence[Stage] = ()
    gains: Sequence[tuple[str, Interval]] = ()
    """Paired differences by label, for example "RFT over SFT, test"."""
    rungs: Sequence[RungLine] = ()
    """Of a climb of the whole ladder: cost and decision of each stage."""
    steps: Sequence[StepPoint] = ()
    validations: Sequence[ValidationPoint] = ()
    best_step: int | None = None
    comparisons: Sequence[Comparison] = ()
    next_steps: Sequence[NextStep] = ()
    notes: Sequence[str] = ()
    """What a reader must know to judge the figures: stopped early, reduced sizes."""
    settings: Sequence[tuple[str, str]] = ()
    versions: Sequence[tuple[str, str]] = ()
