"""Which method next: the rule that fires, its numbers, how sure it is, and what would change it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agentrft.ladder.facts import Facts, ItemFacts, JobFacts, facts_of
from agentrft.ladder.rules import RULES, Condition, Rule, Thresholds, Verdict

SCHEMA = 1
"""Of the JSON document."""
SURE = 0.8
"""A verdict that fewer resamples of the items give is borderline."""
_RESAMPLES = 200
_NEAREST = 2
_BROKEN = frozenset({Verdict.TOO_LITTLE_DATA, Verdict.FIX_ENVIRONMENT, Verdict.FIX_GRADER})
"""Not what one would do instead: something has to be mended before anything can be said."""
_TRAINING = frozenset(Verdict) - {
    *_BROKEN,
    Verdict.DONE,
    Verdict.OPTIMISE,
    Verdict.COLLECT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """A rule that did not hold, and what it lacked."""

    rule: Rule
    missing: Sequence[Condition]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The verdict and what it stands on."""

    rule: Rule
    held: Sequence[Condition]
    """The conditions of the rule, with their numbers."""
    facts: Facts
    stability: Mapping[Verdict, float]
    """Verdict → share of resamples of the items that give it, most frequent first."""
    otherwise: Rule
    """What would decide if no rule with this verdict did."""
    nearest: Sequence[Near]
    warnings: Sequence[str]
    thresholds: Thresholds

    @property
    def verdict(self) -> Verdict:
        return self.rule.verdict

    @property
    def share(self) -> float:
        """Of the resamples that agree with the verdict."""
        return self.stability.get(self.verdict, 0.0)

    @property
    def is_borderline(self) -> bool:
        return self.share < SURE

    @property
    def says_too_little(self) -> bool:
        """Whether the data are too few: for any verdict, or to call the prompt rung exhausted."""
        return self.verdict is Verdict.TOO_LITTLE_DATA or (
            self.verdict in _TRAINING and self.facts.job.plateau.state == "underpowered"
        )

    def to_json(self) -> dict[str, Any]:
        """See docs/decide.md."""
        return {
            "schema": SCHEMA,
            "verdict": self.verdict.value,
            "rule": self.rule.number,
            "why": self.rule.why,
            "conditions": [_condition(one) for one in self.held],
            "stability": {
                "share": self.share,
                "borderline": self.is_borderline,
                "resamples": _RESAMPLES,
                "verdicts": {verdict.value: share for verdict, share in self.stability.items()},
            },
            "plateau": self.facts.job.plateau.to_json(),
            "otherwise": {"rule": self.otherwise.number, "verdict": self.otherwise.verdict.value},
            "nearest": [
                {
                    "rule": near.rule.number,
                    "verdict": near.rule.verdict.value,
                    "missing": [_condition(one) for one in near.missing],
                }
                for near in self.nearest
            ],
            "numbers": self.facts.numbers(),
            "warnings": list(self.warnings),
            "thresholds": asdict(self.thresholds),
        }


def decide(
    items: Sequence[ItemFacts], job: JobFacts, thresholds: Thresholds | None = None, *, seed: int = 0
) -> Decision:
    """The first of `RULES` that holds for these items, and for how many resamples of them it does."""
    t = thresholds or Thresholds()
    facts = facts_of(items, job)
    rule = first_rule(facts, t)
    return Decision(
        rule=rule,
        held=rule.conditions(facts, t),
        facts=facts,
        stability=_stability(items, job, t, seed),
        otherwise=_without(facts, t, rule.verdict),
        nearest=_nearest(facts, t, rule),
        warnings=warnings_of(facts, t, rule.verdict),
        thresholds=t,
    )


def first_rule(facts: Facts, thresholds: Thresholds) -> Rule:
    """The rule that decides; the last one always holds."""
    return next(rule for rule in RULES if all(one.holds for one in rule.conditions(facts, thresholds)))


def _without(facts: Facts, t: Thresholds, verdict: Verdict) -> Rule:
    others = [rule for rule in RULES if rule.verdict is not verdict]
    return next((rule for rule in others if all(one.holds for one in rule.conditions(facts, t))), RULES[-1])


def warnings_of(facts: Facts, t: Thresholds, verdict: Verdict) -> list[str]:
    """What a reader must know to judge the verdict."""
    job, said = facts.job, []
    if job.grader and (facts.n_items < t.good_items or facts.samples < t.good_samples):
        said.append(
            f"provisional: {facts.n_items} items × {facts.samples} episodes; {t.good_items} × {t.good_samples} say more"
        )
    if job.cut_replies >= t.format:
        said.append(
            f"{job.cut_replies:.0%} of the episodes end at `agent.limits.max_reply_tokens`: raise it first where good "
            "replies need more"
        )
    if verdict in _TRAINING:
        said += _about_training(facts, t, verdict)
    if verdict is Verdict.REINFORCEMENT and facts.pass_1 is not None and facts.pass_1 < 0.05:
        said.append("pass@1 is below 0.05: supervised fine-tuning on the agent's own successes first")
    if verdict is Verdict.DPO and job.pairs < t.good_pairs:
        said.append(f"{job.pairs} pairs are few; {t.good_pairs} are recommended. Test for a length bias")
    return said


def _about_training(facts: Facts, t: Thresholds, verdict: Verdict) -> list[str]:
    job, said = facts.job, []
    if job.plateau.state == "untried" and job.grader:
        said.append(f"prompt and tools have not been tried; no finding there promises {t.ceiling:.0%}")
    if job.plateau.state == "underpowered":
        said.append(f"the prompt rung is not proven exhausted: {job.plateau.why}")
    if not job.is_ours:
        said.append("a model behind an API played: diagnose the model that will be trained")
    if job.resettable is None and verdict is Verdict.REINFORCEMENT:
        said.append("nothing says that the tools start afresh for every episode; what one episode changes, others see")
    return said


def _stability(items: Sequence[ItemFacts], job: JobFacts, t: Thresholds, seed: int) -> dict[Verdict, float]:
    """What is not of the items (data, grader, search) is held fixed."""
    if not items:
        return {first_rule(facts_of(items, job), t).verdict: 1.0}
    rng = random.Random(seed)
    drawn = (rng.choices(items, k=len(items)) for _ in range(_RESAMPLES))
    counts = Counter(first_rule(facts_of(sample, job), t).verdict for sample in drawn)
    return {verdict: count / _RESAMPLES for verdict, count in counts.most_common()}


def _nearest(facts: Facts, t: Thresholds, fired: Rule) -> list[Near]:
    """Of rules with another verdict, those that lack least: fewest conditions first, then the smallest gap."""
    near: dict[Verdict, Near] = {}
    lacking = [
        Near(rule=rule, missing=[one for one in rule.conditions(facts, t) if not one.holds])
        for rule in RULES
        if rule.verdict is not fired.verdict and rule.verdict not in _BROKEN
    ]
    known = [one for one in lacking if one.missing and all(c.value is not None for c in one.missing)]
    for one in sorted(known, key=lambda one: (len(one.missing), max(c.gap for c in one.missing))):
        near.setdefault(one.rule.verdict, one)
    return list(near.values())[:_NEAREST]


def _condition(one: Condition) -> dict[str, Any]:
    return {
        "what": one.what,
        "value": one.value,
        "relation": one.relation,
        "bound": one.bound,
        "holds": one.holds,
        "text": one.text(),
    }
