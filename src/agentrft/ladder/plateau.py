"""Whether the prompt rung is exhausted: whether more edits of prompt and tools can be expected to help.

Absence of evidence is not a plateau: a search that could not have seen a gain says "too few", not "exhausted".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from statistics import NormalDist
from typing import Any, Literal

State = Literal["untried", "improving", "exhausted", "underpowered"]

_EPISODE_VARIANCE = 0.222
"""2 · E[p(1 − p)] of a paired comparison, for a mean p(1 − p) of 0.11."""
_POWER = 2.8
"""z(0.975) + z(0.8)."""
_Z80, _Z95 = NormalDist().inv_cdf(0.8), NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One search for better prompts and tools: a whole `agentrft optimise`, which searches, prunes and confirms."""

    proposals: int
    kinds: Sequence[str]
    """Of edits that were tried: prompt, tools, outputs, …"""
    best_low: float
    """Lower 80 % bound of its best candidate's gain on items that the search had not seen; 0 without a candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlateauRules:
    """When the rung counts as exhausted."""

    rounds: int = 1
    proposals: int = 15
    """Of each of these rounds, at least."""
    kinds: int = 3
    """Kinds of edits in them together."""
    smallest_gain: float = 0.05
    """A gain that nobody would miss (δ)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """Where the search stands."""

    state: State = "untried"
    upper: float | None = None
    """Upper bound (97.5 %) of the gain that the last candidate may still have."""
    why: str = "no search for better prompts and tools is recorded"
    episodes_needed: int | None = None
    """Per candidate, to see the smallest gain that matters four times in five; None where nothing is missing."""
    rules: PlateauRules = field(default_factory=PlateauRules)

    def to_json(self) -> dict[str, Any]:
        """Every field."""
        return asdict(self)


def plateau_of(rounds: Sequence[Round], upper: float | None, rules: PlateauRules | None = None) -> Plateau:
    """The state of the search after these rounds; `upper` bounds what its best candidate could still add."""
    rules = rules or PlateauRules()
    if not rounds:
        return Plateau(rules=rules)
    last = rounds[-rules.rounds :]
    best = max(one.best_low for one in last)
    if best > 0:
        why = f"the last search found edits that help, by {best:.1%} at least: `agentrft apply` them"
        return Plateau(state="improving", upper=upper, why=why, rules=rules)
    needed = episodes_needed(rules.smallest_gain)
    if missing := _missing(last, rules):
        why = f"nothing helped so far, but the search was short: {missing}; `--reflection` brings more"
        return Plateau(state="underpowered", upper=upper, why=why, episodes_needed=needed, rules=rules)
    if upper is None or upper > rules.smallest_gain:
        seen = "of any size" if upper is None else f"of up to {upper:.1%}"
        why = (
            f"nothing helped, but a gain {seen} cannot be excluded; {needed} episodes per "
            f"candidate would show {rules.smallest_gain:.0%}"
        )
        return Plateau(state="underpowered", upper=upper, why=why, episodes_needed=needed, rules=rules)
    tried = sum(one.proposals for one in last)
    why = f"none of {tried} edits helped, and more than {upper:.1%} can be excluded"
    return Plateau(state="exhausted", upper=upper, why=why, rules=rules)


def plateau_from(reports: Sequence[Mapping[str, Any]], rules: PlateauRules | None = None) -> Plateau:
    """From the reports of `agentrft optimise` about one bundle, oldest first."""
    if reports and reports[-1]["verdict"] == "nothing_to_try":
        why = "no proposer has an edit to try; a model that reflects (`--reflection`) may have"
        return Plateau(state="exhausted", upper=0.0, why=why, rules=rules or PlateauRules())
    tried = [report for report in reports if report["verdict"] != "nothing_to_try"]
    bounds = [report["confirmation"]["gain"]["high"] for report in tried[-1:] if report["confirmation"]]
    return plateau_of([_round(report) for report in tried], bounds[0] if bounds else None, rules)


def _round(report: Mapping[str, Any]) -> Round:
    kinds = sorted({edit["kind"] for edit in report["tried"]})
    gain = report["confirmation"]["gain"] if report["confirmation"] else None
    low = 0.0 if gain is None else _lower80(gain)
    # What was not adopted has not helped, whatever its bound: it was too dear, or too uncertain.
    best_low = low if report["verdict"] == "adopted" else min(low, 0.0)
    return Round(proposals=len(report["tried"]), kinds=kinds, best_low=best_low)


def _lower80(gain: Mapping[str, Any]) -> float:
    """The bound that the gain exceeds with 80 % confidence, from its 95 % interval as if it were normal."""
    if gain["low"] is None:
        return 0.0
    return gain["mean"] - (gain["mean"] - gain["low"]) * _Z80 / _Z95


def episodes_needed(gain: float) -> int:
    """Episodes of a candidate, and as many of what it is compared with, to see `gain` with 80 % power: 5 points, 696.

    0.222 · (2.8 / gain)², for items that both sides play.
    """
    return math.ceil(_EPISODE_VARIANCE * (_POWER / gain) ** 2)


def _missing(last: Sequence[Round], rules: PlateauRules) -> str:
    """What the rounds lack before they could be called a plateau; empty when they have it."""
    fewest = min(one.proposals for one in last)
    kinds = {kind for one in last for kind in one.kinds}
    lacks = []
    if len(last) < rules.rounds:
        lacks.append(f"{len(last)} of {rules.rounds} searches")
    if fewest < rules.proposals:
        lacks.append(f"{fewest} of {rules.proposals} edits tried")
    if len(kinds) < rules.kinds:
        lacks.append(f"{len(kinds)} of {rules.kinds} kinds of edits")
    return ", ".join(lacks)
