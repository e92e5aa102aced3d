"""The ordered rules that choose a method: the first whose conditions all hold gives the verdict.

Thresholds are starting points, uncalibrated. Evidence for the order: supervised fine-tuning gives form and
reinforcement generalises (arXiv:2501.17161); the share of items with mixed outcomes predicts what reinforcement learns
(arXiv:2504.03380); pass@k of the start bounds it (arXiv:2504.13837); preference optimisation of trajectories needs a
supervised start (arXiv:2403.02502).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agentrft.ladder.facts import Facts


class Verdict(StrEnum):
    """What to do next."""

    TOO_LITTLE_DATA = "too_little_data"
    """Nothing can be said yet."""
    FIX_ENVIRONMENT = "fix_environment"
    FIX_GRADER = "fix_grader"
    DONE = "done"
    """The target is met: harder items, or make it cheaper."""
    OPTIMISE = "optimise"
    """Prompt, tools, outputs, guardrails."""
    COLLECT = "collect"
    """Demonstrations, pairs, easier items or a denser grader."""
    SUPERVISED = "supervised"
    SUPERVISED_THEN_REINFORCEMENT = "supervised_then_reinforcement"
    DPO = "dpo"
    REINFORCEMENT = "reinforcement"
    REJECTION_SAMPLING_OR_DPO = "rejection_sampling_or_dpo"
    """Supervised on the agent's own successes, or preferences between its own episodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Of the rules; printed with every verdict."""

    min_items: int = 10
    min_samples: int = 4
    good_items: int = 50
    """With fewer, or fewer than `good_samples`, a verdict is provisional."""
    good_samples: int = 8
    faults: float = 0.05
    no_grade: float = 0.2
    icc: float = 0.8
    rho: float = 0.8
    target: float = 0.9
    """pass@1 at which there is nothing left to train."""
    interface: float = 0.2
    ceiling: float = 0.03
    """What one finding must promise for a first search for better prompts."""
    format: float = 0.2
    never: float = 0.8
    half_never: float = 0.5
    mixed: float = 0.2
    good_mixed: float = 0.4
    headroom: float = 0.15
    demos: int = 50
    pairs: int = 200
    good_pairs: int = 500
    predictability: float = 0.8
    short: float = 2.0
    """Tool calls."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One comparison: `value` at least, more than, at most or less than `bound`."""

    what: str
    value: float | None
    """None is not known: the condition does not hold."""
    relation: str
    bound: float
    words: str = ""
    """What a condition that is no comparison says; empty for one that is."""

    @property
    def holds(self) -> bool:
        if self.value is None:
            return False
        return _RELATIONS[self.relation](self.value, self.bound)

    @property
    def gap(self) -> float:
        """How far it is from holding, relative to the bound; 0 where it holds, infinite where it is not known."""
        if self.holds:
            return 0.0
        return float("inf") if self.value is None else abs(self.value - self.bound) / max(abs(self.bound), 1e-9)

    def text(self) -> str:
        """`pass@1 0.31 < 0.90`, or its words."""
        if self.words:
            return self.words
        value = "unknown" if self.value is None else _number(self.value)
        return f"{self.what} {value} {self.relation} {_number(self.bound)}"


_RELATIONS: dict[str, Callable[[float, float], bool]] = {
    "≥": lambda value, bound: value >= bound,
    ">": lambda value, bound: value > bound,
    "≤": lambda value, bound: value <= bound,
    "<": lambda value, bound: value < bound,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Holds when all of its conditions do."""

    number: str
    verdict: Verdict
    why: str
    conditions: Callable[[Facts, Thresholds], Sequence[Condition]]


def _is(what: str, value: float | None, relation: str, bound: float) -> Condition:
    return Condition(what=what, value=value, relation=relation, bound=bound)


def _whether(words: str, holds: bool) -> Condition:
    return Condition(what=words, value=float(holds), relation="≥", bound=1.0, words=words)


def _no_grader(f: Facts) -> Condition:
    return _whether("the job has no grader", f.job.grader is None)


def _with_grader(f: Facts) -> Condition:
    return _whether("the job has a grader", f.job.grader is not None)


def _demos(f: Facts, t: Thresholds) -> Condition:
    return _is("demonstrations", f.job.demos, "≥", t.demos)


def _never(f: Facts, t: Thresholds) -> list[Condition]:
    return [_with_grader(f), _is("items never solved", f.never, "≥", t.never)]


def _silent(f: Facts, t: Thresholds) -> list[Condition]:
    return [
        _with_grader(f),
        _is("items with signal", f.mixed, "<", t.mixed),
        _is("items never solved", f.never, "≥", t.half_never),
    ]


def _state(f: Facts, *states: str) -> Condition:
    return _whether(f"the search for better prompts is {' or '.join(states)}", f.job.plateau.state in states)


def _reset(f: Facts) -> Condition:
    return _whether("tools start afresh for every episode", f.job.resettable is not False)


RULES: tuple[Rule, ...] = (
    Rule(
        number="0a",
        verdict=Verdict.TOO_LITTLE_DATA,
        why="too few items to say anything",
        conditions=lambda f, t: [_with_grader(f), _is("items", f.n_items, "<", t.min_items)],
    ),
    Rule(
        number="0b",
        verdict=Verdict.TOO_LITTLE_DATA,
        why="too few episodes per item to say anything",
        conditions=lambda f, t: [_with_grader(f), _is("episodes per item", f.samples, "<", t.min_samples)],
    ),
    Rule(
        number="1",
        verdict=Verdict.FIX_ENVIRONMENT,
        why="tools or engine break too many episodes: training would learn around the faults",
        conditions=lambda f, t: [_is("faults", f.faults, ">", t.faults)],
    ),
    Rule(
        number="2a",
        verdict=Verdict.FIX_GRADER,
        why="a deliberately bad output earns something",
        conditions=lambda f, t: [_with_grader(f), _is("probes that fool the grader", len(f.job.fooled_by), "≥", 1)],
    ),
    Rule(
        number="2b",
        verdict=Verdict.FIX_GRADER,
        why="the grader and `audit.grader` disagree",
        conditions=lambda f, t: [_with_grader(f), _is("rank correlation", f.job.rho, "<", t.rho)],
    ),
    Rule(
        number="2c",
        verdict=Verdict.FIX_GRADER,
        why="the grader does not repeat itself",
        conditions=lambda f, t: [_with_grader(f), _is("ICC of the grader", f.job.icc, "<", t.icc)],
    ),
    Rule(
        number="2d",
        verdict=Verdict.FIX_GRADER,
        why="too many episodes get no grade",
        conditions=lambda f, t: [_with_grader(f), _is("episodes without a grade", f.no_grade, ">", t.no_grade)],
    ),
    Rule(
        number="3",
        verdict=Verdict.DONE,
        why="the target is met or nearly so: take harder items, or save tokens and calls",
        conditions=lambda f, t: [_is("pass@1", f.pass_1, "≥", t.target)],
    ),
    Rule(
        number="4a",
        verdict=Verdict.OPTIMISE,
        why="failures remain that prompt, tools, outputs or limits own",
        conditions=lambda f, t: [
            _is("failures owned by the interface", f.interface_share, "≥", t.interface),
            _state(f, "untried", "improving", "underpowered"),
        ],
    ),
    Rule(
        number="4b",
        verdict=Verdict.OPTIMISE,
        why="the search for better prompts and tools is still improving",
        conditions=lambda f, t: [_state(f, "improving")],
    ),
    Rule(
        number="4c",
        verdict=Verdict.OPTIMISE,
        why="prompt and tools have not been tried, and a finding promises something there",
        conditions=lambda f, t: [
            _state(f, "untried"),
            _is("ceiling of the best finding", f.job.top_ceiling, "≥", t.ceiling),
        ],
    ),
    Rule(
        number="6",
        verdict=Verdict.DPO,
        why="no grader can tell good from bad, but people's pairs can",
        conditions=lambda f, t: [_no_grader(f), _is("preference pairs", f.job.pairs, "≥", t.pairs)],
    ),
    Rule(
        number="7a",
        verdict=Verdict.SUPERVISED,
        why="no grader, but demonstrations",
        conditions=lambda f, t: [_no_grader(f), _demos(f, t)],
    ),
    Rule(
        number="7b",
        verdict=Verdict.COLLECT,
        why="no grader, and too few pairs and demonstrations",
        conditions=lambda f, t: [_no_grader(f)],
    ),
    Rule(
        number="8",
        verdict=Verdict.SUPERVISED,
        why="failures are of form: a short supervised run until nine replies of ten can be read, then diagnose again",
        conditions=lambda f, t: [
            _is("failures of form", f.format_share, "≥", t.format),
            _is("demonstrations and own successes", f.job.demos + f.self_demos, "≥", t.demos),
        ],
    ),
    Rule(
        number="9a",
        verdict=Verdict.SUPERVISED_THEN_REINFORCEMENT,
        why="most items are never solved: no signal for reinforcement yet, demonstrations give it a start",
        conditions=lambda f, t: [*_never(f, t), _demos(f, t)],
    ),
    Rule(
        number="9b",
        verdict=Verdict.COLLECT,
        why="most items are never solved, rewards hardly differ and nothing shows how: demonstrations, easier items "
        "or a grader that pays for parts",
        conditions=lambda f, t: [*_never(f, t), _is("items with signal", f.mixed, "<", t.good_mixed)],
    ),
    Rule(
        number="9c",
        verdict=Verdict.SUPERVISED_THEN_REINFORCEMENT,
        why="rewards differ on too few items and half are never solved: demonstrations first",
        conditions=lambda f, t: [*_silent(f, t), _demos(f, t)],
    ),
    Rule(
        number="9d",
        verdict=Verdict.COLLECT,
        why="rewards differ on too few items, half are never solved and nothing shows how",
        conditions=_silent,
    ),
    Rule(
        number="10",
        verdict=Verdict.SUPERVISED,
        why="few calls and a predictable way: imitation is enough",
        conditions=lambda f, t: [
            _is("tool calls", f.horizon, "≤", t.short),
            _is("predictability", f.predictability, "≥", t.predictability),
            _demos(f, t),
        ],
    ),
    Rule(
        number="11",
        verdict=Verdict.REINFORCEMENT,
        why="outcomes are mixed and the agent's best is well above its mean: there is something to find, and signal",
        conditions=lambda f, t: [
            _reset(f),
            _is("items with signal", f.mixed, "≥", t.mixed),
            _is("headroom", f.headroom, "≥", t.headroom),
        ],
    ),
    Rule(
        number="12a",
        verdict=Verdict.REJECTION_SAMPLING_OR_DPO,
        why="own successes to imitate, too little signal or no way to replay: offline is cheaper",
        conditions=lambda f, t: [_with_grader(f), _is("own successes", f.self_demos, "≥", t.demos)],
    ),
    Rule(
        number="12b",
        verdict=Verdict.REJECTION_SAMPLING_OR_DPO,
        why="own episodes make pairs: offline is cheaper",
        conditions=lambda f, t: [_with_grader(f), _is("pairs of own episodes", f.rollout_pairs, "≥", t.pairs)],
    ),
    Rule(
        number="13a",
        verdict=Verdict.SUPERVISED_THEN_REINFORCEMENT,
        why="too little variation within items for reinforcement: demonstrations first",
        conditions=lambda f, t: [_demos(f, t)],
    ),
    Rule(
        number="13b",
        verdict=Verdict.COLLECT,
        why="too little variation within items for reinforcement, and nothing else to learn from",
        conditions=lambda f, t: [],
    ),
)
"""In this order; 5 is a warning (`decide.warnings_of`)."""


def _number(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and abs(value) >= 2 else f"{value:.2f}"
