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

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentrft.jobs.load import load_job
from agentrft.ladder import find_example
from agentrft.store import open_store
from harness.arms import ARMS, Study, run_control, run_rft
from harness.result import machine, table, warn_when_busy

TASKS = {"filenav": ("test", "new_names"), "units": ("test", "harder"), "shopdb": ("test", "harder")}
"""Task → the splits it is measured on, the headline first."""
KEPT = ("train", "validation", "demonstrations")
"""Rows of the example itself; all others are generated afresh."""


def fresh_task(task: str, folder: Path, test_seed: int) -> Path:
    """The task's job file in a copy whose held-out rows come from `test_seed`; made once, returned ever after."""
    copy = folder / "tasks" / f"{task}-test{test_seed}"
    if not (copy / "job.yaml").exists():
        source = find_example(task).parent
        draft = copy.with_name(f".tmp-{copy.name}")
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(source, draft, ignore=shutil.ignore_patterns("__pycache__", "data"))
        generate = [sys.executable, "generate.py", "--seed", str(test_seed), "--out", "data"]
        subprocess.run(generate, cwd=draft, check=True)
        for name in KEPT:
            shutil.copy2(source / "data" / f"{name}.jsonl", draft / "data")
        draft.rename(copy)
    return copy / "job.yaml"


def study_of(task: str, seed: int, options: argparse.Namespace) -> Study:
    """What one task and seed train and measure."""
    spec, base_dir = load_job(fresh_task(task, options.folder, options.test_seed))
    changes: dict[str, Any] = {"seed": seed}
    if options.model:
        changes["model"] = options.model
    if options.steps:
        changes["training"] = spec.training.model_copy(update={"steps": options.steps})
    return Study(
        task=task,
        spec=spec.model_copy(update=changes),
        base_dir=base_dir,
        splits=TASKS[task],
        n_items=options.items,
        samples=options.samples,
        validation_items=options.validation_items,
    )


def file_of(folder: Path, task: str, seed: int, arm: str) -> Path:
    """Where a run's result is."""
    return folder / f"{task}-seed{seed}-{arm}.json"


def run(task: str, seed: int, arm: str, options: argparse.Namespace) -> dict[str, Any]:
    """The run's result: read when it is there, made otherwise; controls make their rft run first."""
    path = file_of(options.folder, task, seed, arm)
    if path.exists():
        return json.loads(path.read_text(encoding="utf-8"))
    rft_run = None if arm == "rft" else run(task, seed, "rft", options)
    print(f"  {task}, seed {seed}, {arm}", flush=True)
    study = study_of(task, seed, options)
    store = open_store()
    try:
        if rft_run is None:
            document = asyncio.run(run_rft(study, store))
        else:
            document = asyncio.run(run_control(study, arm, store, rft_run, path.with_suffix(".job")))
    finally:
        store.close()
    sizes = {"items": options.items, "samples": options.samples, "test_seed": options.test_seed}
    document = {"task": task, "seed": seed, "arm": arm, **sizes, **document, "machine": machine()}
    draft = path.with_name(f".{path.name}.tmp")
    draft.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)
    return document


def merged(folder: Path) -> list[dict[str, Any]]:
    """All finished runs, by task, seed and arm."""
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*-seed*-*.json")]
    return sorted(runs, key=lambda one: (one["task"], one["seed"], ARMS.index(one["arm"])))


def cases_of(runs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
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


def rows_of(runs: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
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


def listed(text: str) -> list[str]:
    return text.split(",")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=listed, default=[], help=f"of {', '.join(TASKS)}; commas between several")
    parser.add_argument("--seed", type=listed, default=["0"], help="commas between several")
    parser.add_argument("--arm", type=listed, default=["rft"], help=f"of {', '.join(ARMS)}, or all")
    parser.add_argument("--folder", type=Path, default=Path("results/learning"), help="results and training state")
    parser.add_argument("--test-seed", type=int, default=1, help="of the fresh held-out rows; never 0, the example's")
    parser.add_argument("--items", type=int, default=100, help="of each held-out split")
    parser.add_argument("--samples", type=int, default=2, help="episodes an item")
    parser.add_argument("--validation-items", type=int, default=50)
    parser.add_argument("--steps", type=int, help="of reinforcement, instead of the job file's")
    parser.add_argument("--model", help="instead of the job file's")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    unknown = [*({*options.task} - TASKS.keys()), *({*options.arm} - {*ARMS, "all"})]
    if unknown or options.test_seed == 0:
        parser.error(f"unknown task or arm: {', '.join(unknown)}" if unknown else "--test-seed 0 is the example's own")
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    # Jobs, checkpoints and episodes of this study stay together, apart from the user's own.
    os.environ["AGENTRFT_HOME"] = str(options.folder / "home")
    if options.task:
        warn_when_busy()
    for task in options.task:
        for seed in options.seed:
            for arm in ARMS if "all" in options.arm else options.arm:
                run(task, int(seed), arm, options)
    runs = merged(options.folder)
    print("\n" + table(rows_of(runs)))
    if options.json:
        document = {"cases": cases_of(runs), "speedup": None, "runs": runs}
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
