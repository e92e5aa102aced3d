"""What comparing turns in the same state brings: step groups on and off, from one warm-up, for as many episodes.

    python benchmarks/credit.py --task filenav --seed 0                      # group_mean and step_groups
    python benchmarks/credit.py --task filenav --seed 0,1,2 --json credit.json
    python benchmarks/credit.py --task filenav --seed 0 --arm step_baseline  # another credit
    python benchmarks/credit.py --task filenav --items 4 --samples 1 --steps 2 --folder /tmp/credit    # try it out
    python benchmarks/credit.py                                              # only merge and print what there is

Arms: warmup (supervised; made first, once for a seed), and every credit that a job can name without settings. Each
trains --steps times batch_size groups of group_size episodes (the job file's unless given), its last weights are the
result. Training episodes, test rows and sampling are the same for all arms but for what the weights make of them. Every
finished run is one JSON file under --folder; finished runs are not repeated, interrupted ones go on.

filenav is the example with most turns in an episode, and its members begin by looking at the same few folders: states
recur. No example's tool tells its state (`state_hash`): they only read, so that what an agent has seen is its state,
which is what credit goes by then.
"""

from __future__ import annotations

from pathlib import Path

from agentrft.jobs.load import parse_job
from agentrft.jobs.spec import JobSpec
from agentrft.store import SqlStore
from harness.compared import Line, compare
from harness.coverage import coverage
from harness.from_warmup import WARMUP, reinforcement_spec, trained, training_episodes, warm_up
from harness.grid import TASKS, Grid, Run
from harness.note import Note
from harness.study import Study

BASE = "group_mean"
ARMS = (WARMUP, BASE, "step_groups", "step_baseline", "grouped_gae", "leave_one_out")


def credited(spec: JobSpec, credit: str) -> JobSpec:
    """The reinforcement job with this credit; raises UserError where the job's loss is defined with another."""
    document = reinforcement_spec(spec).model_dump(mode="json")
    document["training"]["credit"] = credit
    return parse_job(document, source=f"--arm {credit}")


async def make(study: Study, arm: str, store: SqlStore, start: Run | None, note: Note) -> Run:
    """The warm-up, or reinforcement from it with the arm's credit."""
    if start is None:
        return await warm_up(study, store, note)
    found = await trained(study, arm, credited(study.spec, arm), store, note, start)
    return {**found, "coverage": coverage(training_episodes(store, found["job"]))}


GRID = Grid(
    description=__doc__,
    tasks=TASKS,
    arms=ARMS,
    default=(BASE, "step_groups"),
    folder=Path("results/credit"),
    make=make,
)


def share(line: Line, name: str) -> str:
    """Of the turns after the first that were trained on; empty where there are none."""
    counted = [run["coverage"] for run in line.runs if "coverage" in run]
    later = sum(one["later_turns"] for one in counted)
    return f"{sum(one[name] for one in counted) / later:.0%}" if later else ""


COLUMNS = {
    "episodes": lambda line: f"{line.mean('episodes'):.0f}",
    "turns with peers": lambda line: share(line, "with_peers"),
    "with step term": lambda line: share(line, "with_step_term"),
}


if __name__ == "__main__":
    compare(GRID, BASE, COLUMNS)
