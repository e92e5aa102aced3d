"""Does it learn, and is it the reward that teaches it? The ladder and its controls on one example task and seed.

    python benchmarks/learning.py --task filenav --seed 0                    # the ladder (arm rft)
    python benchmarks/learning.py --task filenav --seed 0 --arm lr0          # one control; runs rft first if missing
    python benchmarks/learning.py --task filenav --seed 0,1,2 --arm all --json learning.json
    python benchmarks/learning.py                                            # only merge and print what there is

Arms (harness/arms.py): rft, lr0 (learning rate 0), permuted (rewards permuted within groups), more_sft (supervised
training for the same wall time). Every finished run is one JSON file under --folder; finished runs are not repeated,
interrupted ones go on. Rows to train on are the example's own; the test rows are fresh ones from its generator with
--test-seed, which nobody has tuned anything on.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentrft.store import SqlStore
from harness.arms import ARMS, run_control, run_rft
from harness.grid import TASKS, Grid, Run, write_runs
from harness.note import Note
from harness.result import table
from harness.study import Study


async def make(study: Study, arm: str, store: SqlStore, rft_run: Run | None, note: Note) -> Run:
    """The ladder, or a control beside it."""
    return await (run_rft(study, store) if rft_run is None else run_control(study, arm, store, rft_run, note))


GRID = Grid(
    description=__doc__,
    tasks=TASKS,
    arms=ARMS,
    default=("rft",),
    folder=Path("results/learning"),
    make=make,
    validation_items=50,
)


def cases_of(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Paired gains over the warm-up: rft's beside each control's, by task, seed and split; a gain has no speedup."""
    gains = {(r["task"], r["seed"], r["arm"]): r["gain_over_sft"] for r in runs}
    return [
        {
            "name": f"{task} seed {seed} {split}: gain of rft beside {arm}",
            "unit": "reward",
            "ours": round(gains[task, seed, "rft"][split]["mean"], 4),
            "peer": round(gain["mean"], 4),
            "speedup": None,
        }
        for (task, seed, arm), by_split in gains.items()
        if arm != "rft" and (task, seed, "rft") in gains
        for split, gain in by_split.items()
    ]


def rows_of(runs: Sequence[Run]) -> list[tuple[str, ...]]:
    """The printed table: one line for each run and split."""
    rows: list[tuple[str, ...]] = [
        ("run", "split", "base", "sft", "after", "gain over sft", "calls", "shorter than shown")
    ]
    for one in runs:
        arm = one["arm"]
        for split, gain in one["gain_over_sft"].items():
            base = one["stages"].get("base")
            after = one["stages"][arm]["splits"][split]
            counts = one["strategies"][arm][split]
            rows.append(
                (
                    f"{one['task']} seed {one['seed']} {arm}",
                    split,
                    "" if base is None else f"{base['splits'][split]['reward']['mean']:.3f}",
                    f"{one['stages']['sft']['splits'][split]['reward']['mean']:.3f}",
                    f"{after['reward']['mean']:.3f}",
                    f"{gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]",
                    f"{after['calls']['mean']:.2f}",
                    f"{counts['shorter_than_shown']}/{counts['episodes']}",
                )
            )
    return rows


def main() -> None:
    options = GRID.options()
    runs = GRID.sit(options)
    print("\n" + table(rows_of(runs)))
    write_runs(options.json, runs, cases_of(runs))


if __name__ == "__main__":
    main()
