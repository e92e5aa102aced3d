"""The ladder over a tiny real model: every stage, its figures, its report; stopped half-way and gone on with."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft.cli.quickstart import climb_and_tell
from agentrft.jobs.load import load_job
from agentrft.ladder import LadderPlan, climb
from agentrft.store import open_store

MakeJob = Callable[..., Path]


def plan_of(job: Path) -> LadderPlan:
    spec, base_dir = load_job(job)
    return LadderPlan(
        task="words",
        spec=spec,
        base_dir=base_dir,
        n_items=4,
        samples=2,
        validation_items=3,
        splits=("test", "new_names"),
    )


def test_the_quickstart_tells_what_the_ladder_found(
    make_job: MakeJob, own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = plan_of(make_job(steps=2))
    assert climb_and_tell(plan, json_file=tmp_path / "out" / "figures.json", minutes=None)
    shown = capsys.readouterr()
    document = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert {"schema", "seed", "task", "stages", "rft_gain", "wall_s"} <= document.keys()
    assert document["stopped"] is None
    for stage in ("base", "sft", "rft"):
        figures = document["stages"][stage]
        for name in ("reward", "success", "calls", "parse_rate"):
            assert figures[name].keys() == {"mean", "low", "high", "n_items", "n_episodes"}
        assert figures["reward"]["n_episodes"] == 8
        assert figures["splits"].keys() == {"test", "new_names"}
        assert stage in shown.out
    gain = document["rft_gain"]
    difference = document["stages"]["rft"]["reward"]["mean"] - document["stages"]["sft"]["reward"]["mean"]
    assert gain["mean"] == pytest.approx(difference)
    assert gain["low"] <= gain["mean"] <= gain["high"]
    assert "What to type next" in shown.out
    assert max(len(line) for line in shown.out.splitlines() if "[" in line) <= 80
    page = next(own_home.glob("ladders/words-seed0-*/report.html")).read_text()
    assert "new names: 4 items, 8 episodes a stage" in page

    # A second time nothing is trained: the same figures come back.
    assert climb_and_tell(plan, json_file=tmp_path / "again.json", minutes=None)
    again = json.loads((tmp_path / "again.json").read_text())
    assert again == document


async def test_a_stopped_climb_goes_on_where_it_was(make_job: MakeJob, own_home: Path) -> None:
    plan = plan_of(make_job(steps=3))
    store = open_store()
    reason = "asked"
    stopped = await climb(plan, store, should_stop=lambda: reason if len(store.list_jobs()) == 2 else None)
    # The reinforcement job had just been made when the question was asked.
    assert stopped.stopped == reason
    assert [stage.name for stage in stopped.stages] == ["base", "sft"]
    assert stopped.to_json()["stages"]["rft"] is None
    assert stopped.to_json()["rft_gain"] is None
    supervised = stopped.jobs["sft"]
    assert supervised.status == "succeeded"
    job_file = plan.base_dir / "job.yaml"
    assert [step.command for step in stopped.next_steps(store)] == [f"agentrft climb {job_file} --only-train --seed 0"]
    by_quickstart = dataclasses.replace(stopped, command="agentrft quickstart --seed 0")
    assert [step.command for step in by_quickstart.next_steps(store)] == ["agentrft quickstart --seed 0"]

    before = [entry["step"] for entry in store.list_metrics(supervised.id)]
    whole = await climb(plan, store)
    assert whole.stopped is None
    assert [stage.name for stage in whole.stages] == ["base", "sft", "rft"]
    assert whole.jobs["sft"].id == supervised.id
    assert [entry["step"] for entry in store.list_metrics(supervised.id)] == before
    store.close()


async def test_a_deadline_ends_training_early_and_says_so(make_job: MakeJob, own_home: Path) -> None:
    store = open_store()
    late = await climb(plan_of(make_job()), store, deadline_s=0.0)
    assert late.stopped == "the time limit is reached"
    assert [stage.name for stage in late.stages] == ["base"]
    assert "stopped before reinforcement" in late.headline()
    store.close()
