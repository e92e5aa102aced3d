"""Benchmarks that train: one task, seed and arm at a time, each finished run a file that is never made again.

An interrupted run goes on, and every call merges and prints what there is. Rows to train on are the example's own; the
held-out rows are fresh ones from its generator with --test-seed, which nobody has tuned anything on.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentrft.jobs.load import load_job
from agentrft.ladder import find_example
from agentrft.store import SqlStore, open_store
from harness.note import Note, write_json
from harness.result import machine, warn_when_busy
from harness.study import Study

TASKS = {"filenav": ("test", "new_names"), "units": ("test", "harder"), "shopdb": ("test", "harder")}
"""Task → the splits it is measured on, the headline first."""
KEPT = ("train", "validation", "demonstrations")
"""Rows of the example itself; all others are generated afresh."""
SIZES = ("items", "samples", "test_seed", "steps", "model")
"""Options that figures depend on: runs that differ in them are not compared."""

Run = dict[str, Any]
"""A finished run, as its file has it."""
Make = Callable[[Study, str, SqlStore, Run | None, Note], Awaitable[Run]]
"""(study, arm, store, the first arm's run or None for that arm itself, note) → what the run found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """Which runs a benchmark has, and how one is made."""

    description: str
    tasks: Mapping[str, Sequence[str]]
    """Task → its splits."""
    arms: Sequence[str]
    """In the order in which they are shown; the first is what all others start from, and is made before them."""
    default: Sequence[str]
    """Arms of a call that names none."""
    folder: Path
    make: Make
    validation_items: int | None = None
    """By default; None where no checkpoint is chosen on validation."""

    def options(self) -> argparse.Namespace:
        """What was asked for; ends the program where that cannot be."""
        parser = argparse.ArgumentParser(
            description=self.description, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        arms = f"of {', '.join(self.arms)}, or all; by default {','.join(self.default)}"
        parser.add_argument("--task", type=_listed, default=[], help=f"of {', '.join(self.tasks)}; commas between")
        parser.add_argument("--seed", type=_listed, default=["0"], help="commas between several")
        parser.add_argument("--arm", type=_listed, default=list(self.default), help=arms)
        parser.add_argument("--folder", type=Path, default=self.folder, help="results and training state")
        parser.add_argument(
            "--test-seed", type=int, default=1, help="of the fresh held-out rows; never 0, the example's"
        )
        parser.add_argument("--items", type=int, default=100, help="of each held-out split")
        parser.add_argument("--samples", type=int, default=2, help="episodes an item")
        parser.add_argument("--steps", type=int, help="of reinforcement, instead of the job file's")
        parser.add_argument("--model", help="instead of the job file's")
        parser.add_argument("--json", type=Path)
        parser.set_defaults(validation_items=0)
        if self.validation_items is not None:
            parser.add_argument("--validation-items", type=int, default=self.validation_items)
        options = parser.parse_args()
        unknown = [*({*options.task} - self.tasks.keys()), *({*options.arm} - {*self.arms, "all"})]
        if unknown:
            parser.error(f"unknown task or arm: {', '.join(unknown)}")
        if options.test_seed == 0:
            parser.error("--test-seed 0 is the example's own")
        return options

    def sit(self, options: argparse.Namespace) -> list[Run]:
        """Make what was asked for and is missing; all finished runs, earlier ones included."""
        options.folder = own_folder(options.folder)
        if options.task:
            warn_when_busy()
        for task in options.task:
            for seed in options.seed:
                for arm in self.arms if "all" in options.arm else options.arm:
                    self.run(task, int(seed), arm, options)
        return self.merged(options.folder)

    def run(self, task: str, seed: int, arm: str, options: argparse.Namespace) -> Run:
        """The run's result: read when it is there, made otherwise, after the first arm's."""
        path = file_of(options.folder, task, seed, arm)
        sizes = {name: getattr(options, name) for name in SIZES}
        if path.exists():
            return of_sizes(path, sizes)
        before = None if arm == self.arms[0] else self.run(task, seed, self.arms[0], options)
        print(f"  {task}, seed {seed}, {arm}", flush=True)
        study = self.study(task, seed, options)
        store = open_store()
        try:
            found = asyncio.run(self.make(study, arm, store, before, Note(path.with_suffix(".note"))))
        finally:
            store.close()
        document = {"task": task, "seed": seed, "arm": arm, **sizes, **found, "machine": machine()}
        write_json(path, document)
        return document

    def study(self, task: str, seed: int, options: argparse.Namespace) -> Study:
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
            splits=self.tasks[task],
            n_items=options.items,
            samples=options.samples,
            validation_items=options.validation_items,
        )

    def merged(self, folder: Path) -> list[Run]:
        """All finished runs, by task, seed and arm."""
        runs = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*-seed*-*.json")]
        return sorted(runs, key=lambda one: (one["task"], one["seed"], self.arms.index(one["arm"])))


def own_folder(folder: Path) -> Path:
    """The folder, made; jobs, checkpoints and episodes of this benchmark stay in it, apart from the user's own."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ["AGENTRFT_HOME"] = str(folder / "home")
    return folder


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


def file_of(folder: Path, task: str, seed: int, arm: str) -> Path:
    """Where a run's result is."""
    return folder / f"{task}-seed{seed}-{arm}.json"


def write_runs(path: Path | None, runs: Sequence[Run], cases: Sequence[Mapping[str, Any]]) -> None:
    """The merged runs and their cases as JSON, where the user asked for it."""
    if path is not None:
        write_json(path, {"cases": cases, "speedup": None, "runs": runs})


def of_sizes(path: Path, sizes: Mapping[str, Any]) -> Run:
    """The finished run; ends the program when it was made with other sizes than are asked for."""
    found = json.loads(path.read_text(encoding="utf-8"))
    other = [f"{name}={found[name]}, not {asked}" for name, asked in sizes.items() if found.get(name, asked) != asked]
    if other:
        raise SystemExit(f"{path} was made with {'; '.join(other)}. Give the same sizes, or another --folder")
    return found


def _listed(text: str) -> list[str]:
    return text.split(",")
