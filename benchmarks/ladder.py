"""Rejection sampling, DPO and reinforcement side by side: from one warm-up, for as many sampled episodes.

    python benchmarks/ladder.py --seed 0 --arm all --task filenav --json ladder.json
    python benchmarks/ladder.py --task filenav --seed 0 --arm dpo            # one arm; makes the warm-up first
    python benchmarks/ladder.py --task filenav --items 4 --samples 1 --steps 2 --folder /tmp/ladder    # try it out
    python benchmarks/ladder.py                                              # only merge and print what there is

Arms: warmup (supervised; made first, once for a seed); reinforcement, which plays --steps times batch_size groups of
group_size episodes (the job file's unless given); rejection and dpo, which play as many groups of as many episodes with
the warm-up's weights, once for both, and train on what `agentrft collect` and `agentrft pairs` make of them: successes,
four an item at most, and pairs, two an item at most. Rates and passes are those of the example's job.yaml and dpo.yaml.
The last weights are the result. Every finished run is one JSON file under --folder; finished runs are not repeated,
interrupted ones go on.

Not equal: tokens trained on and wall time, which are in the table. Reinforcement plays its episodes with weights that
change; the other two play all of theirs with the warm-up's, which is what they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from agentrft.jobs.load import load_job
from agentrft.jobs.rows import items_of
from agentrft.ladder.diagnosing import SPLIT, Sizes, diagnosis_request
from agentrft.ladder.own_data import episodes_of, method_spec
from agentrft.ladder.rungs import METHODS, read_methods
from agentrft.protocols import EpisodeRecord
from agentrft.rollout import GradedEpisode
from agentrft.runtime.diagnose import Watching, run_diagnosis
from agentrft.store import SqlStore
from harness.compared import compare
from harness.from_warmup import WARMUP, reinforcement_spec, trained, warm_up
from harness.grid import TASKS, Grid, Run
from harness.note import Note
from harness.study import Study

BASE = "reinforcement"
ARMS = (WARMUP, *METHODS[1:])
_SAID_EVERY = 48
"""Sampled episodes between two lines of progress."""


async def make(study: Study, arm: str, store: SqlStore, start: Run | None, note: Note) -> Run:
    """The warm-up, or what the arm's method makes of it."""
    if start is None:
        return await warm_up(study, store, note)
    if arm == BASE:
        return await trained(study, arm, reinforcement_spec(study.spec), store, note, start)
    return await from_samples(study, arm, store, start, note)


async def from_samples(study: Study, arm: str, store: SqlStore, start: Run, note: Note) -> Run:
    """Rejection sampling or DPO on episodes of the warm-up; `wall_s` includes playing them."""
    once = Note(note.path.with_name(f"{study.task}-seed{study.spec.seed}-sampled.note"))
    with once.timed("sample_s"):
        records = await sampled(study, store, start["fine_tuned_model"])
    dpo, _ = load_job(study.base_dir / "dpo.yaml")
    settings = study.spec.method.model_copy(update={"dpo": dpo.method.dpo})
    (method,) = read_methods([arm])
    rows_file = note.path.with_suffix(".jsonl")
    spec = study.spec.model_copy(update={"method": settings})
    spec = method_spec(spec, study.base_dir, method, records, rows_file)
    if spec is None:
        raise SystemExit(f"{len(records)} episodes of the warm-up gave nothing to train {arm} on: give more --steps")
    found = await trained(study, arm, spec, store, note, start)
    return {
        **found,
        "episodes": len(records),
        "rows": len(rows_file.read_text(encoding="utf-8").splitlines()),
        "sample_s": once.known["sample_s"],
        "train_s": found["wall_s"],
        "wall_s": once.known["sample_s"] + found["wall_s"],
    }


async def sampled(study: Study, store: SqlStore, model: str) -> Sequence[EpisodeRecord]:
    """The episodes that reinforcement would play, played by the warm-up on training items; what is there stays."""
    method, training = study.spec.method.reinforcement, study.spec.training
    assert method is not None
    sizes = Sizes(items=training.steps * method.hyperparameters.batch_size, samples=training.group_size)
    there = len(items_of(study.spec, study.base_dir, SPLIT))
    if sizes.items > there:
        raise SystemExit(f"--steps asks for {sizes.items} training items, and there are {there}: give fewer steps")
    spec = study.spec.model_copy(update={"audit": False})
    request = diagnosis_request(spec, study.base_dir, model, sizes, load=study.load)

    def told(graded: GradedEpisode, done: int) -> None:
        if done % _SAID_EVERY == 0:
            print(f"    {done}/{sizes.episodes} episodes sampled", flush=True)

    outcome = await run_diagnosis(store, request, Watching(episode=told))
    return episodes_of(store, outcome.job.id)


GRID = Grid(
    description=__doc__,
    tasks={"filenav": TASKS["filenav"]},  # the example with settings for every method
    arms=ARMS,
    default=ARMS,
    folder=Path("results/ladder"),
    make=make,
)


COLUMNS = {
    "episodes": lambda line: f"{line.mean('episodes'):.0f}",
    "rows": lambda line: f"{line.mean('rows'):.0f}" if "rows" in line.runs[0] else "",
    "trained tokens": lambda line: f"{line.mean('tokens_trained'):,.0f}",
}


if __name__ == "__main__":
    compare(GRID, BASE, COLUMNS)
