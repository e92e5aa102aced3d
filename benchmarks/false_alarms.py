"""Do audit and alarms leave honest training alone? The three honest examples, several seeds, to the end.

    python benchmarks/false_alarms.py --task filenav,units,shopdb --seed 0,1,2 --json false_alarms.json
    python benchmarks/false_alarms.py                                   # only print what there is

For each task and seed: the audit of the job's grader; the supervised warm-up; reinforcement from it as the job file has
it, on the first --validation-items of its validation rows, with every alarm on. The job files name no audit grader, and
without one a gap only warns. So that the alarm that stops is tried, each run has one of another kind, `string_check`
for exactly the right answer, which knows nothing of tools, partial credit or the price of calls.

False is a failed audit, and a run that ends before its last step. Warnings are counted. Finished runs are one JSON file
each under --folder and are not repeated; those of other --validation-items are refused.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agentrft.graders import parse_grader
from agentrft.jobs.load import load_job
from agentrft.jobs.rows import items_of
from agentrft.jobs.spec import Audit, JobSpec
from agentrft.ladder import find_example
from agentrft.store import SqlStore, open_store
from harness import watched
from harness.grid import of_sizes, own_folder
from harness.note import write_json
from harness.result import machine, table, warn_when_busy

TASKS = ("filenav", "units", "shopdb")
EXACT = {
    "type": "string_check",
    "name": "exact",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
}


async def honest_run(task: str, seed: int, validation_items: int, store: SqlStore) -> dict[str, Any]:
    """Audit, warm-up and reinforcement of one task and seed."""
    spec, base_dir = load_job(find_example(task))
    spec = spec.model_copy(update={"seed": seed, "audit": Audit(grader=parse_grader(EXACT))})
    failed = await watched.failed_checks(spec, base_dir)
    print(f"    audit: {', '.join(failed) or 'passed'}", flush=True)
    model = await watched.warm_up(spec, base_dir, store)
    validation = items_of(spec, base_dir, "validation")[:validation_items]
    job_id, outcome = await watched.reinforced(spec, base_dir, store, model, validation=validation)
    return {
        "audit_failed": failed,
        "stopped": outcome.stopped,
        "last_step": outcome.result.last.step,
        "steps": _steps(spec),
        "reward": _reward(store, job_id),
        "alarms": watched.alarms_of(store, job_id),
    }


def _steps(spec: JobSpec) -> int:
    assert spec.training.steps is not None
    return spec.training.steps


def _reward(store: SqlStore, job_id: str) -> list[float]:
    """Mean training reward of the first and the last step."""
    found = [m["reward_mean"] for step in store.list_metrics(job_id) if "reward_mean" in (m := step["metrics"])]
    return [found[0], found[-1]]


def rows_of(runs: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The printed table."""
    rows: list[tuple[str, ...]] = [("run", "audit", "ended", "reward, first → last step", "warnings")]
    for one in runs:
        first, last = one["reward"]
        warned = Counter(alarm["name"] for alarm in one["alarms"])
        rows.append(
            (
                f"{one['task']} seed {one['seed']}",
                ", ".join(one["audit_failed"]) or "passed",
                f"step {one['last_step']} of {one['steps']}" + (f": {one['stopped']}" if one["stopped"] else ""),
                f"{first:.2f} → {last:.2f}",
                ", ".join(f"{name} {count}" for name, count in sorted(warned.items())) or "none",
            )
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", type=_listed, default=[], help=f"of {', '.join(TASKS)}; commas between")
    parser.add_argument("--seed", type=_listed, default=["0"], help="commas between several")
    parser.add_argument("--validation-items", type=int, default=50)
    parser.add_argument("--folder", type=Path, default=Path("results/false_alarms"), help="results and training state")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if unknown := {*options.task} - {*TASKS}:
        parser.error(f"unknown task: {', '.join(sorted(unknown))}")
    options.folder = own_folder(options.folder)
    if options.task:
        warn_when_busy()
    for task in options.task:
        for seed in map(int, options.seed):
            path = options.folder / f"{task}-seed{seed}.json"
            sizes = {"validation_items": options.validation_items}
            if path.exists():
                of_sizes(path, sizes)
                continue
            print(f"  {task}, seed {seed}", flush=True)
            store = open_store()
            try:
                found = asyncio.run(honest_run(task, seed, options.validation_items, store))
            finally:
                store.close()
            write_json(path, {"task": task, "seed": seed, **sizes, **found, "machine": machine()})
    files = sorted(options.folder.glob("*-seed*.json"))
    runs = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    print("\n" + table(rows_of(runs)))
    if options.json:
        write_json(options.json, {"cases": [], "speedup": None, "runs": runs})


def _listed(text: str) -> list[str]:
    return text.split(",")


if __name__ == "__main__":
    main()
