"""The arms of benchmarks/credit.py and ladder.py, from a warm-up to their figures, with a scripted engine."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentrft.jobs.load import load_job
from agentrft.store import SqlStore

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

EPISODES = 2 * 4 * 4
"""Two steps of four groups of four."""
DPO = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 3, "batch_size": 8, "learning_rate": 1e-3}}}


@pytest.fixture
def study(lab: Any, tmp_path: Path) -> Any:
    from harness.study import Study

    world = lab.Lab(tmp_path)
    plan = world.plan(n_demos=16)
    (plan.base_dir / "dpo.yaml").write_text(yaml.safe_dump({"model": "../model", "data": {}, "method": DPO}))
    spec, base_dir = load_job(plan.base_dir / "job.yaml")
    return Study(
        task="orders",
        spec=spec,
        base_dir=base_dir,
        splits=("test",),
        n_items=30,
        samples=2,
        validation_items=0,
        load=world.load(),
    )


async def made(make: Any, study: Any, arm: str, store: SqlStore, start: Any, folder: Path) -> dict[str, Any]:
    """The run as its file would have it."""
    from harness.note import Note

    return json.loads(json.dumps(await make(study, arm, store, start, Note(folder / f"orders-seed0-{arm}.note"))))


async def test_every_method_of_the_ladder_gets_as_many_episodes(study: Any, store: SqlStore, tmp_path: Path) -> None:
    from harness.grid import SIZES

    import ladder

    start = await made(ladder.make, study, "warmup", store, None, tmp_path)
    assert (start["episodes"], start["gain_over_warmup"]) == (0, {})
    assert not start.keys() & {"task", "seed", "arm", *SIZES}  # what the file says of how the run was made
    for arm in ladder.ARMS[1:]:
        found = await made(ladder.make, study, arm, store, start, tmp_path)
        assert found["episodes"] == EPISODES
        assert found["tokens_trained"] > 0
        assert found["gain_over_warmup"]["test"]["n_items"] == 30
        job = store.get_job(found["job"])
        assert job["start_from"] == start["fine_tuned_model"]
        assert ("rows" in found) == (arm != "reinforcement")
        # Nothing but training items and, once, the held-out ones has been played.
        splits = [one.extra.get("split", one.phase) for one in store.list_episodes(found["job"], limit=1000)]
        assert splits.count("test") == 60
        assert splits.count("train") == (EPISODES if arm == "reinforcement" else 0)
    assert job["kind"] == "reinforcement"
    assert found["step"] == 2


async def test_an_interrupted_run_trains_and_samples_nothing_twice(study: Any, store: SqlStore, tmp_path: Path) -> None:
    import ladder

    start = await made(ladder.make, study, "warmup", store, None, tmp_path)
    first = await made(ladder.make, study, "dpo", store, start, tmp_path)
    jobs = len(store.list_jobs(limit=100))
    again = await made(ladder.make, study, "dpo", store, start, tmp_path)
    assert len(store.list_jobs(limit=100)) == jobs
    assert {name: again[name] for name in ("job", "episodes", "rows", "measured")} == {
        name: first[name] for name in ("job", "episodes", "rows", "measured")
    }


async def test_credits_play_as_many_episodes_and_count_their_peers(study: Any, store: SqlStore, tmp_path: Path) -> None:
    import credit

    start = await made(credit.make, study, "warmup", store, None, tmp_path)
    found = {arm: await made(credit.make, study, arm, store, start, tmp_path) for arm in credit.GRID.default}
    for arm, one in found.items():
        assert (one["episodes"], one["step"]) == (EPISODES, 2)
        assert store.get_job(one["job"])["spec"]["training"]["credit"]["type"] == arm
        # Members that ask for the same day read the same answer, and so have peers in their second turn.
        assert 0 < one["coverage"]["with_peers"] <= one["coverage"]["later_turns"]
        assert one["coverage"]["by_step"].keys() == {"1", "2"}
    assert found["group_mean"]["coverage"]["with_step_term"] == 0


async def test_more_items_than_there_are_cannot_be_sampled(study: Any, store: SqlStore, tmp_path: Path) -> None:
    import ladder

    training = study.spec.training.model_copy(update={"steps": 16})
    larger = replace(study, spec=study.spec.model_copy(update={"training": training}))
    with pytest.raises(SystemExit, match="64 training items, and there are 60: give fewer steps"):
        await ladder.sampled(larger, store, "../model")
