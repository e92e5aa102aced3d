"""The whole ladder with a scripted engine, cut short: by its budget, by time, by interruptions anywhere."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import EngineFault
from agentrft.ladder.whole import climb_whole
from agentrft.report.html import page
from agentrft.store import SqlStore, open_store


async def test_the_budget_bounds_diagnoses_and_search(lab: Any, tmp_path: Path, store: SqlStore) -> None:
    world = lab.Lab(tmp_path)
    poor = await climb_whole(world.plan(episodes=39), store, load=world.load())
    assert (lab.names(poor), poor.ending, poor.exit_code) == (["base"], "budget", 4)
    assert lab.commands(poor) == ["agentrft climb job.yaml --episodes 78"]
    short = await climb_whole(world.plan(episodes=70), store, load=world.load())
    # 17 items × 4 fit; after the training nothing is left to decide from
    assert short.to_json()["budget"] == {"episodes": 70, "spent": 68}
    assert (lab.names(short), short.ending) == (["base", "reinforcement"], "budget")
    assert (short.rungs[-1].decision, short.exit_code) == (None, 0)
    fails = lab.Lab(tmp_path, policy=lab.by_format, skill=0.15)
    narrow = await climb_whole(fails.plan(episodes=250), store, load=fails.load())
    assert narrow.notes[0].startswith("Edits were not searched for: 170 episodes are left of the budget")
    assert "optimise" not in narrow.episodes


async def test_interrupted_anywhere_it_ends_the_same(lab: Any, tmp_path: Path, home: Path) -> None:
    world = lab.Lab(tmp_path, policy=lab.by_format, skill=0.15)
    plan = world.plan()
    calm = open_store()
    whole = (await climb_whole(plan, calm, load=world.load())).to_json()
    calm.close()
    shutil.rmtree(home)  # in the same place, so that ids are the same

    draws, reached = random.Random(0), []
    store = open_store()
    for _ in range(200):
        # Later pieces ask whether to stop less often.
        waits = [0, 1, 2, 3, 6] if not reached or reached[-1] in ([], ["base"]) else [0, 1]
        patience = iter(range(draws.choice(waits) if reached else 0))
        result = await climb_whole(
            plan,
            store,
            load=world.load(),
            should_stop=lambda left=patience: None if next(left, None) is not None else "asked",
        )
        if result.stopped is None:
            assert lab.timeless(result.to_json()) == lab.timeless(whole)
            break
        reached.append(lab.names(result)[-1:])
        assert store.get_job(result.job.id)["status"] == "paused"
        assert lab.commands(result) == ["agentrft climb job.yaml"]
    else:
        pytest.fail("it never ended")
    store.close()
    assert {name for one in reached for name in one} == {"base", "optimised", "reinforcement"}
    assert [] in reached, reached
    assert len(reached) > 10, reached


async def test_time_ends_it_early_and_says_so(lab: Any, tmp_path: Path, store: SqlStore) -> None:
    world = lab.Lab(tmp_path)
    late = await climb_whole(world.plan(), store, load=world.load(), deadline_s=0.0)
    assert (late.stopped, lab.names(late), late.exit_code) == ("the time limit is reached", [], 0)
    assert late.headline() == "The climb of orders stopped before anything was measured"
    assert page(late.report(store))
    whole = await climb_whole(world.plan(), store, load=world.load())
    assert lab.names(whole) == ["base", "reinforcement"]


async def test_a_fault_leaves_it_where_it_can_go_on(lab: Any, tmp_path: Path, store: SqlStore) -> None:
    world = lab.Lab(tmp_path, skill=1.0)
    sound, loads = world.load(), []

    async def fails(*given: Any) -> Any:
        loads.append(given)
        if len(loads) == 2:  # the first measured the base, this one would diagnose it
            raise EngineFault("out of memory")
        return await sound(*given)

    with pytest.raises(EngineFault):
        await climb_whole(world.plan(), store, load=fails)
    (job,) = [job for job in store.list_jobs() if "climb" in job]
    assert job["status"] == "paused"
    # what a killed process leaves: nobody has said that it no longer runs
    store.set_job_status(job["id"], "queued")
    store.set_job_status(job["id"], "running")
    result = await climb_whole(world.plan(), store, load=fails)
    assert (result.job.id, result.ending, len(loads)) == (job["id"], "done", 3)
