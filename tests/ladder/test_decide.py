"""`decide` on populations whose best method is known by construction, and how stable each verdict is."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from agentrft.ladder.decide import decide
from agentrft.ladder.facts import ItemFacts, JobFacts, facts_of
from agentrft.ladder.plateau import Plateau
from agentrft.ladder.rules import RULES, Thresholds, Verdict

EXHAUSTED = Plateau(state="exhausted", upper=0.03, why="searched")
GRADED = JobFacts(grader="code", icc=1.0, plateau=EXHAUSTED)
V = Verdict


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Of a population: sizes, and the shares that failures are owned by."""

    n: int = 60
    k: int = 8
    calls: int = 6
    interface: float = 0.05
    form: float = 0.02
    faults: float = 0.0
    no_grade: float = 0.0
    likeness: float = 0.4
    dense: bool = False
    """A failure earns something at random, so that rewards differ where nothing passes."""


def population(chance: Callable[[random.Random], float], **shape: Any) -> list[ItemFacts]:
    """Items of an agent that passes an item with probability chance(rng)."""
    rng, s = random.Random(0), Shape(**shape)
    items = []
    for _ in range(s.n):
        p = chance(rng)
        broken = sum(rng.random() < s.faults for _ in range(s.k))
        silent = sum(rng.random() < s.no_grade for _ in range(s.k - broken))
        passes = [rng.random() < p for _ in range(s.k - broken - silent)]
        failed = passes.count(False)
        passed = passes.count(True)
        rewards = [1.0 if one else (rng.random() * 0.45 if s.dense else 0.0) for one in passes]
        items.append(
            ItemFacts(
                rewards=rewards,
                passes=passes,
                faults=broken,
                no_grade=silent,
                failed=failed,
                failed_interface=sum(rng.random() < s.interface for _ in range(failed)),
                failed_format=sum(rng.random() < s.form for _ in range(failed)),
                calls_passed=[s.calls] * passed,
                calls_failed=[s.calls] * failed,
                demos=min(4, passed) if s.calls > 2 else min(1, passed),
                pairs=min(passed, failed),
                likeness=s.likeness if passed > 1 else None,
                copied=0.9 if passed else None,
            )
        )
    return items


def mixed(rng: random.Random) -> float:
    """Beta(.8, 1.6): a third passes, items differ."""
    return rng.betavariate(0.8, 1.6)


def never(rng: random.Random) -> float:
    return 0.0 if rng.random() < 0.97 else 0.1


def two_kinds(rng: random.Random) -> float:
    """Items are either nearly always or nearly never solved: no variance within."""
    return 0.995 if rng.random() < 0.4 else 0.002


POPULATIONS: dict[str, tuple[Sequence[ItemFacts], JobFacts, Verdict]] = {
    "all-fail": (population(never), GRADED, V.COLLECT),
    "all-fail, with demonstrations": (population(never), replace(GRADED, demos=120), V.SUPERVISED_THEN_REINFORCEMENT),
    "all-fail, but rewards differ": (population(lambda r: 0.0, dense=True), GRADED, V.REINFORCEMENT),
    "solved": (population(lambda r: 0.97), GRADED, V.DONE),
    "format-dominated": (population(mixed, form=0.6), replace(GRADED, demos=100), V.SUPERVISED),
    "high variance, headroom": (population(mixed), GRADED, V.REINFORCEMENT),
    "interface-dominated": (population(mixed, interface=0.5), replace(GRADED, plateau=Plateau()), V.OPTIMISE),
    "search still improving": (
        population(mixed),
        replace(GRADED, plateau=Plateau(state="improving", why="+4 %")),
        V.OPTIMISE,
    ),
    "untried, a finding promises": (
        population(mixed),
        replace(GRADED, plateau=Plateau(), top_ceiling=0.06),
        V.OPTIMISE,
    ),
    "untried, nothing promises": (population(mixed), replace(GRADED, plateau=Plateau()), V.REINFORCEMENT),
    "preference-only": ([], JobFacts(grader=None, pairs=800), V.DPO),
    "demonstrations-only": ([], JobFacts(grader=None, demos=300), V.SUPERVISED),
    "nothing at all": ([], JobFacts(grader=None), V.COLLECT),
    "fooled grader": (population(mixed), replace(GRADED, fooled_by=("empty",)), V.FIX_GRADER),
    "unsteady grader": (population(mixed), replace(GRADED, icc=0.55), V.FIX_GRADER),
    "graders disagree": (population(mixed), replace(GRADED, rho=0.4), V.FIX_GRADER),
    "grader without numbers": (population(mixed, no_grade=0.4), GRADED, V.FIX_GRADER),
    "faulty tools": (population(mixed, faults=0.15), GRADED, V.FIX_ENVIRONMENT),
    "tiny n": (population(mixed, n=6), GRADED, V.TOO_LITTLE_DATA),
    "tiny k": (population(mixed, k=2), GRADED, V.TOO_LITTLE_DATA),
    "short and predictable": (
        population(lambda r: 0.6, calls=1, likeness=0.97),
        replace(GRADED, demos=200),
        V.SUPERVISED,
    ),
    "no variance, own successes": (
        population(lambda r: 0.998 if r.random() < 0.7 else 0.001),
        GRADED,
        V.REJECTION_SAMPLING_OR_DPO,
    ),
    "no variance, mostly never": (population(lambda r: 0.998 if r.random() < 0.3 else 0.001), GRADED, V.COLLECT),
    "not replayable": (population(mixed), replace(GRADED, resettable=False), V.REJECTION_SAMPLING_OR_DPO),
    "no variance, with demonstrations": (
        population(two_kinds, calls=1, likeness=0.3),
        replace(GRADED, demos=80),
        V.SUPERVISED_THEN_REINFORCEMENT,
    ),
}


@pytest.mark.parametrize("name", POPULATIONS)
def test_the_best_method_of_a_known_population(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    items, job, expected = POPULATIONS[name]
    decision = decide(items, job)
    with capsys.disabled():
        verdicts = ", ".join(f"{verdict.value} {share:.0%}" for verdict, share in decision.stability.items())
        sys.stdout.write(f"\n{name}: {decision.verdict.value} (rule {decision.rule.number}); {verdicts}")
    assert decision.verdict is expected
    assert not decision.is_borderline
    assert all(one.holds for one in decision.held)


def test_a_population_at_a_threshold_is_borderline() -> None:
    # 13 of 60 items are mixed, 22 %; signal from 20 % on. Half of the others pass, so that no other rule holds before.
    def item(passes: list[bool]) -> ItemFacts:
        return ItemFacts(rewards=[float(one) for one in passes], passes=passes, failed=passes.count(False))

    often = [item([True] * 3 + [False] * 5)] * 7 + [item([True] + [False] * 7)] * 7
    decision = decide(often + [item([False] * 8)] * 46, GRADED)
    assert decision.is_borderline
    assert set(decision.stability) >= {V.COLLECT}
    assert sum(decision.stability.values()) == pytest.approx(1.0)


def test_the_same_items_give_the_same_stability() -> None:
    items, job, _ = POPULATIONS["high variance, headroom"]
    assert decide(items, job, seed=3).to_json() == decide(items, job, seed=3).to_json()


def test_facts_by_hand() -> None:
    one = ItemFacts(
        rewards=[1.0, 0.0, 0.2],
        passes=[True, False, False],
        faults=1,
        failed=2,
        failed_interface=1,
        calls_passed=[3],
        calls_failed=[5, 5],
        demos=1,
        pairs=2,
    )
    other = ItemFacts(
        rewards=[0.0] * 4, passes=[False] * 4, no_grade=2, failed=4, failed_format=3, calls_failed=[1] * 4
    )
    facts = facts_of([one, other], GRADED)
    assert (facts.n_items, facts.samples) == (2, 3)  # the median of 3 and 4, rounded down
    assert facts.pass_1 == pytest.approx((1 / 3 + 0) / 2)
    assert (facts.pass_k, facts.never, facts.always, facts.mixed) == (0.5, 0.5, 0.0, 0.5)
    assert facts.headroom == pytest.approx((1 - 0.4 + 0) / 2)
    assert facts.faults == pytest.approx(1 / 10)
    assert facts.no_grade == pytest.approx(2 / 9)
    assert (facts.interface_share, facts.format_share) == (pytest.approx(1 / 6), pytest.approx(3 / 6))
    assert (facts.horizon, facts.self_demos, facts.rollout_pairs) == (3, 1, 2)
    assert facts.predictability is None


def test_predictability_comes_from_demonstrations_where_too_few_succeed() -> None:
    job = replace(GRADED, demo_likeness=0.9, demo_calls=2.0)
    facts = facts_of(population(never), job)
    assert facts.predictability == 0.9
    alike = facts_of(population(lambda r: 0.6, likeness=0.5), job)
    assert alike.predictability == pytest.approx(0.45)  # 0.5 alike, 0.9 copied


def test_what_would_change_the_verdict_is_told() -> None:
    items, _, _ = POPULATIONS["high variance, headroom"]
    decision = decide(items, replace(GRADED, demos=45, plateau=Plateau(), top_ceiling=0.028))
    assert decision.verdict is V.REINFORCEMENT
    assert decision.nearest[0].rule.verdict is V.OPTIMISE
    (missing,) = decision.nearest[0].missing
    assert missing.text() == "ceiling of the best finding 0.03 ≥ 0.03"
    assert decision.otherwise.verdict is V.REJECTION_SAMPLING_OR_DPO


def test_warnings() -> None:
    items, _, _ = POPULATIONS["high variance, headroom"]
    weak = Plateau(state="underpowered", upper=0.2, why="a gain of up to 20 % cannot be excluded")
    decision = decide(items, replace(GRADED, plateau=weak, is_ours=False, resettable=None))
    assert decision.says_too_little
    told = "\n".join(decision.warnings)
    for words in ("not proven exhausted", "behind an API", "start afresh"):
        assert words in told
    assert any("max_reply_tokens" in w for w in decide(items, replace(GRADED, cut_replies=0.4)).warnings)
    few = decide(population(mixed, n=20), GRADED)
    assert any(warning.startswith("provisional: 20 items × 8") for warning in few.warnings)
    assert any("500 are recommended" in w for w in decide([], JobFacts(grader=None, pairs=250)).warnings)
    assert decide(population(mixed, n=6), GRADED).says_too_little


def test_thresholds_can_be_moved() -> None:
    items, job, _ = POPULATIONS["high variance, headroom"]
    assert decide(items, job, Thresholds(target=0.1)).verdict is V.DONE


def test_every_document_is_json_and_the_last_rule_always_holds() -> None:
    for items, job, _ in POPULATIONS.values():
        json.dumps(decide(items, job).to_json(), allow_nan=False)
    assert RULES[-1].conditions(facts_of([], GRADED), Thresholds()) == []
    assert len({rule.number for rule in RULES}) == len(RULES)
