"""How many supervised steps a warm-up needs: the rule of docs/decisions/0010, applied to an example task.

    python benchmarks/warmup.py --task units --json warmup.json
    python benchmarks/warmup.py --task units --steps 8,16 --items 10 --samples 1      # try it out

For each number of steps, shortest first, the base model is trained on the task's demonstrations with a schedule of just
that length and then plays validation rows at temperature 1. The first length at which at least 90 % of replies can be
read and the mean reward is at least 0.20 is the warm-up; nothing longer is tried. Held-out rows are never touched.
A length that is done is one file under --folder and is not repeated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from agentrft import build
from agentrft.jobs.load import load_job
from agentrft.jobs.models import find_weights
from agentrft.jobs.rows import items_of
from agentrft.jobs.service import create_job
from agentrft.jobs.spec import JobSpec
from agentrft.ladder import find_example
from agentrft.ladder.measure import Measured
from agentrft.stats import Interval
from agentrft.store import open_store
from agentrft.train import sft
from agentrft.train.evaluate import EvalPlan, evaluate
from agentrft.train.log import RunLog
from harness.result import machine, table, warn_when_busy
from harness.study import say

MIN_READABLE = 0.90
MIN_REWARD = 0.20
TASKS = ("filenav", "units", "shopdb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """What a warm-up of `steps` gave on validation rows."""

    steps: int
    n_epochs: float
    readable: Interval
    reward: Interval

    @property
    def suffices(self) -> bool:
        """The rule: enough replies can be read and enough reward to learn from."""
        return self.readable.mean >= MIN_READABLE and self.reward.mean >= MIN_REWARD


async def measure(spec: JobSpec, base_dir: Path, steps: int, options: argparse.Namespace) -> Length:
    """Train for `steps` from the base model and play the validation rows."""
    store = open_store()
    try:
        job = create_job(store, spec, base_dir, kind="supervised")
        async with build.open_job(spec, base_dir, find_weights(job.model, base_dir=base_dir), training=True) as live:
            log = RunLog(store, job.id, watch=say)
            plan = build.sft_plan(live, run=job.id, folder=job.folder)
            plan = replace(plan, n_epochs=steps * plan.batch_size / len(plan.rows))
            await sft.train(plan, live.engine.learner, log)
            eval_plan = EvalPlan(
                run=job.id,
                split="validation",
                stage=f"warmup-{steps}",
                items=items_of(spec, base_dir, "validation")[: options.items],
                samples=options.samples,
                pass_threshold=build.pass_threshold_of(spec),
                penalties=spec.training.penalties,
            )
            figures = Measured.of(await evaluate(eval_plan, live.agent, live.graded(), log), best_step=steps).figures()
    finally:
        store.close()
    return Length(steps=steps, n_epochs=plan.n_epochs, readable=figures.parse_rate, reward=figures.reward)


def remembered(task: str, steps: int, options: argparse.Namespace) -> Length:
    """The length's result: read when it is there, made otherwise."""
    sizes = f"{options.items}x{options.samples}"
    path = options.folder / f"{task}-seed{options.seed}-{steps}steps-{sizes}.json"
    if path.exists():
        known = json.loads(path.read_text(encoding="utf-8"))
        return Length(**{**known, "readable": Interval(**known["readable"]), "reward": Interval(**known["reward"])})
    spec, base_dir = load_job(find_example(task))
    print(f"  {task}, seed {options.seed}, {steps} steps", flush=True)
    length = asyncio.run(measure(spec.model_copy(update={"seed": options.seed}), base_dir, steps, options))
    path.write_text(json.dumps(asdict(length), indent=1) + "\n", encoding="utf-8")
    return length


def table_of(lengths: Sequence[Length]) -> str:
    """One line a length."""

    def shown(interval: Interval) -> str:
        return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"

    head = ("steps", "n_epochs", "replies read", "reward", "enough")
    lines = [
        (str(one.steps), f"{one.n_epochs:g}", shown(one.readable), shown(one.reward), "yes" if one.suffices else "no")
        for one in lengths
    ]
    return table([head, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--steps", default="8,16,24,32,40,48,56,64", type=lambda text: [int(n) for n in text.split(",")]
    )
    parser.add_argument("--items", type=int, default=50, help="of the validation split")
    parser.add_argument("--samples", type=int, default=2, help="episodes an item")
    parser.add_argument("--folder", type=Path, default=Path("results/warmup"), help="results and training state")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    options.folder.mkdir(parents=True, exist_ok=True)
    os.environ["AGENTRFT_HOME"] = str(options.folder / "home")
    warn_when_busy()
    tried: list[Length] = []
    for steps in sorted(options.steps):
        tried.append(remembered(options.task, steps, options))
        if tried[-1].suffices:
            break
    print("\n" + table_of(tried))
    found = tried[-1] if tried[-1].suffices else None
    print(f"\nwarm-up: {found.steps} steps (n_epochs: {found.n_epochs:g})" if found else "\nnone of these is enough")
    if options.json:
        document = {
            "cases": [],
            "speedup": None,
            "task": options.task,
            "seed": options.seed,
            "steps": found.steps if found else None,
            "lengths": [asdict(one) for one in tried],
            "machine": machine(),
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
