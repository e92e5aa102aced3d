"""Whether the search for better prompts is exhausted, or merely too small to have seen anything."""

from __future__ import annotations

import pytest

from agentrft.ladder.plateau import Plateau, PlateauRules, Round, episodes_needed, plateau_from, plateau_of

KINDS = ("prompt", "tools", "outputs")


def nothing(n: int = 15, kinds: tuple[str, ...] = KINDS) -> Round:
    return Round(proposals=n, kinds=kinds, best_low=-0.01)


@pytest.mark.parametrize(
    ("rounds", "upper", "state", "words"),
    [
        ([], None, "untried", "no search"),
        ([nothing()], 0.04, "exhausted", "none of 15 edits helped, and more than 4.0% can be excluded"),
        ([nothing()], 0.13, "underpowered", "gain of up to 13.0% cannot be excluded; 697 episodes"),
        ([nothing()], None, "underpowered", "of any size"),
        ([nothing(4)], 0.01, "underpowered", "4 of 15 edits"),
        ([nothing(kinds=("prompt",))], 0.01, "underpowered", "1 of 3 kinds"),
        ([nothing(), Round(proposals=2, kinds=("prompt",), best_low=0.02)], 0.3, "improving", "2.0%"),
    ],
)
def test_states(rounds: list[Round], upper: float | None, state: str, words: str) -> None:
    plateau = plateau_of(rounds, upper)
    assert plateau.state == state
    assert words in plateau.why
    assert (plateau.episodes_needed is not None) == (state == "underpowered")


def test_an_old_success_does_not_count_as_improving() -> None:
    old = Round(proposals=15, kinds=KINDS, best_low=0.1)
    assert plateau_of([old, nothing()], 0.02).state == "exhausted"


def test_episodes_needed_by_hand() -> None:
    # 0.222 · (2.8 / 0.1)² = 174.05; for 5 points 696.2; for 3 points 1933.9
    assert [episodes_needed(gain) for gain in (0.1, 0.05, 0.03)] == [175, 697, 1934]


def test_rules_can_be_moved() -> None:
    rules = PlateauRules(rounds=2, proposals=1, kinds=1, smallest_gain=0.2)
    assert plateau_of([nothing(1, ("prompt",))] * 2, 0.13, rules).state == "exhausted"
    assert "1 of 2 searches" in plateau_of([nothing()], 0.13, rules).why


def report(verdict: str, gain: tuple[float, float, float] | None, tried: int = 20) -> dict:
    kinds = ["prompt", "tools", "outputs"]
    confirmation = None
    if gain is not None:
        low, mean, high = gain
        confirmation = {"gain": {"mean": mean, "low": low, "high": high, "n_items": 50, "n_episodes": 200}}
    return {
        "verdict": verdict,
        "tried": [{"kind": kinds[n % 3], "component": "-", "why": "-"} for n in range(tried)],
        "confirmation": confirmation,
    }


def test_from_what_optimise_keeps() -> None:
    assert plateau_from([]) == Plateau()
    assert plateau_from([report("no_reliable_change", (-0.02, 0.01, 0.04))]).state == "exhausted"
    assert plateau_from([report("no_reliable_change", (-0.02, 0.05, 0.12))]).state == "underpowered"
    # Nothing got as far as being confirmed: what it could have brought is not known.
    assert plateau_from([report("no_reliable_change", None)]).state == "underpowered"
    # 0.08 − 0.06 · 0.8416 / 1.96 = 0.0542
    adopted = plateau_from([report("adopted", (0.02, 0.08, 0.14))])
    assert (adopted.state, "5.4%" in adopted.why) == ("improving", True)
    assert plateau_from([report("nothing_to_try", None, 0)]).state == "exhausted"
