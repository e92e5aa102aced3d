"""What an optimisation's verdict is said to rest on, in the terminal and on the page."""

from __future__ import annotations

from typing import Any

import pytest

from agentrft.report.optimise import headline, lede, optimise_page


def found(verdict: str, low: float, mean: float, high: float) -> dict[str, Any]:
    """The report of an optimisation of 12 items that was confirmed with that gain."""
    side = {"reward": {"mean": 0.5, "low": 0.4, "high": 0.6}, "tokens": 9.0, "calls": 1.0}
    hunk = {"id": "h1", "component": "system:0", "why": "short", "evidence": [], "loss_without": 0.1, "n_slots": 4}
    return {
        "job": "job.yaml",
        "model": "small",
        "bundle": "0" * 64,
        "verdict": verdict,
        "budget": 300,
        "spent": 240,
        "tried": [{"component": "system:0", "kind": "prompt", "why": "short"}],
        "hunks": [hunk],
        "searched": 0.3,
        "confirmation": {
            "gain": {"mean": mean, "low": low, "high": high, "n_items": 12, "n_episodes": 48},
            "smallest_seen": 0.2,
            "wins": 8,
            "losses": ["row-3"],
            "ties": 3,
            "dearer": [],
            "before": {**side, "interventions": 0.0, "wall_s": 0.1},
            "after": {**side, "interventions": 0.0, "wall_s": 0.1},
        },
    }


@pytest.mark.parametrize(
    ("verdict", "gain", "begins", "says", "title"),
    [
        ("adopted", (0.05, 0.1, 0.15), "A better agent: +0.100 [+0.050, +0.150]", "Adopted: the", "What was adopted"),
        ("no_reliable_change", (-0.05, 0.1, 0.25), "No reliable", "Not adopted: the interval does", "and not adopted"),
        ("no_reliable_change", (0.05, 0.1, 0.15), "No reliable", "Not adopted: with the edits", "and not adopted"),
    ],
)
def test_it_says_whether_the_winner_was_adopted_and_why(
    verdict: str, gain: tuple[float, float, float], begins: str, says: str, title: str
) -> None:
    document = found(verdict, *gain)
    assert headline(document).startswith(begins)
    assert says in lede(document)
    page = optimise_page(document, None)
    assert says in page
    assert title in page


def test_what_a_better_agent_costs_is_said() -> None:
    document = found("adopted", 0.05, 0.1, 0.15)
    assert "costs more" not in lede(document)
    document["confirmation"]["dearer"] = ["calls"]
    document["confirmation"]["after"]["calls"] = 1.8
    assert "It costs more: 1.80 calls an episode instead of 1.00; apply it if that is worth it." in lede(document)
