"""Which search finds what helps, for how many episodes: halving single edits, or gepa, in simulated worlds.

    python benchmarks/search.py --json search.json                    # about ten minutes
    python benchmarks/search.py --budgets 800 --seeds 10              # a quick look

A world has 16 edits, most of which do nothing (`harness/effects.py`); budgets count all episodes, those of the baseline
and of the confirmation among them. For both searches: how often something is adopted, and the true gain of what is, 0
where nothing is. `evidence`: failed episodes speak for the edit that helps (0.6 of them) and for two others (0.3).
`misled`: they speak for five others, and not for the one that helps. In the last two worlds nothing helps, and each
adoption is a mistake.

Stands behind `OptimisePlan.evolve_from`, `optimise.search.PRIOR_SLOTS` and `PRIOR_GAIN` (decision 0017).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from harness.effects import PLAN, World, search_in
from harness.result import table

N_EDITS = 16
SEARCHES = {"halving": 1 << 30, "evolution": 0}
"""By the number of episodes from which on gepa searches."""
ONE = {"e9": 0.2}
WORLDS: Mapping[str, tuple[Mapping[str, float], Mapping[str, float]]] = {
    "one +20": (ONE, {}),
    "one +20, evidence": (ONE, {"e9": 0.6, "e2": 0.3, "e4": 0.3}),
    "one +20, misled": (ONE, dict.fromkeys(("e1", "e2", "e3", "e4", "e5"), 0.6)),
    "+10 +8 −10": ({"e3": 0.1, "e7": 0.08, "e1": -0.1}, {}),
    "seven": ({"e0": 0.1, "e2": 0.07, "e4": 0.05, "e6": 0.08, "e8": -0.07, "e10": -0.1, "e12": 0.06}, {}),
    "nothing": ({}, {}),
    "nothing, evidence": ({}, {"e9": 0.6, "e2": 0.3}),
}
"""Effects and shares of the failed episodes, by edit."""


async def measure(name: str, budget: int, seeds: int) -> dict[str, Any]:
    """One world and budget: for each search the adopted share, and the mean true gain."""
    effects, shares = WORLDS[name]
    found: dict[str, Any] = {"world": name, "budget": budget}
    for search, smallest in SEARCHES.items():
        plan = replace(PLAN, budget=budget, evolve_from=smallest)
        adopted, gains = 0, 0.0
        for seed in range(seeds):
            world = World(seed, effects)
            with tempfile.TemporaryDirectory() as folder:
                outcome = await search_in(world, Path(folder), N_EDITS, plan, shares)
            adopted += outcome.verdict == "adopted"
            gains += world.gain(outcome)
        found[search] = {"adopted": adopted / seeds, "gain": gains / seeds}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budgets", default="800,1200,1700,2400,3600")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    budgets = [int(budget) for budget in options.budgets.split(",")]
    found = [asyncio.run(measure(name, budget, options.seeds)) for budget in budgets for name in WORLDS]
    rows = [
        [
            str(one["budget"]),
            one["world"],
            *(f"{one[s]['adopted']:.2f} {100 * one[s]['gain']:+.1f}" for s in SEARCHES),
        ]
        for one in found
    ]
    print(table([["episodes", "world", *SEARCHES], *rows]))
    print("adopted, and true gain in points; the mean over seeds")
    if options.json:
        options.json.write_text(json.dumps({"seeds": options.seeds, "cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
