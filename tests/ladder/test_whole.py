"""The whole ladder with a scripted engine: what it goes through, and where the decisions end it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.jobs.bundle import bundle_hash
from agentrft.jobs.load import load_job
from agentrft.jobs.rows import items_of
from agentrft.jobs.service import stored_job
from agentrft.ladder.rungs import ruling
from agentrft.ladder.whole import climb_whole
from agentrft.report.html import page
from agentrft.store import SqlStore

FICKLE = {"type": "python", "name": "fickle", "source_file": "grader.py"}


async def test_what_can_be_learnt_is_reinforced_and_measured(lab: Any, tmp_path: Path, store: SqlStore) -> None:
    world, plan = (world := lab.Lab(tmp_path)), world.plan()
    result = await climb_whole(plan, store, load=world.load())
    assert lab.names(result) == ["base", "reinforcement"]
    document = result.to_json()
    base, trained = document["rungs"]
    assert (base["decision"]["verdict"], base["decision"]["rule"]) == ("reinforcement", "11")
    assert trained["gain"]["test"]["low"] > 0
    assert trained["splits"]["test"]["reward"]["n_episodes"] == 60
    assert (trained["over"], trained["step"], base["bundle"]) == ("base", 2, bundle_hash(plan.spec, plan.base_dir))
    # 20 items × 4, twice; two steps of 4 × 4 (no group was silent), and 6 validation items before, after step 2
    assert document["budget"] == {"episodes": 1000, "spent": 160}
    assert document["episodes"]["train reinforcement"] >= 2 * 16 + 2 * 6
    assert (document["recommended"], result.exit_code) == ("reinforcement", 0)
    assert lab.commands(result) == [f"agentrft chat {trained['model']} --job job.yaml"]
    assert store.get_job(result.job.id)["climb"]["report"] == document
    assert store.get_job(result.job.id)["status"] == "succeeded"
    assert json.loads((result.folder / "report.json").read_text()) == document
    shown = page(result.report(store))
    assert "rule 11: outcomes are mixed" in shown
    assert "What each rung cost" in shown

    n_loads = len(world.loads)
    again = await climb_whole(plan, store, load=world.load())
    assert again.to_json() == document
    assert len(world.loads) == n_loads  # a complete climb comes back as it was
    anew = await climb_whole(plan, store, load=world.load(), again=True)
    assert anew.folder != result.folder
    assert anew.job.id != result.job.id


@pytest.mark.parametrize(
    ("skill", "settings", "verdict", "code", "command"),
    [
        (1.0, {}, "done", 0, None),
        (0.4, {"grader": FICKLE, "n_items": 5, "diagnose_items": 10}, "fix_grader", 5, "agentrft audit job.yaml"),
        (0.4, {"n_train": 5}, "too_little_data", 4, "agentrft diagnose job.yaml --items 50 --samples 8"),
    ],
)
async def test_it_stops_where_the_first_decision_says_so(
    skill: float,
    settings: dict[str, Any],
    verdict: str,
    code: int,
    command: str | None,
    lab: Any,
    tmp_path: Path,
    store: SqlStore,
) -> None:
    world = lab.Lab(tmp_path, skill=skill)
    result = await climb_whole(world.plan(**settings), store, load=world.load())
    assert (lab.names(result), result.ending, result.exit_code) == (["base"], verdict, code)
    assert not any(training for _, training in world.loads)
    assert lab.commands(result) == ([command] if command else [])
    assert result.headline() in page(result.report(store))


async def test_edits_first_and_then_weights(lab: Any, tmp_path: Path, store: SqlStore) -> None:
    world = lab.Lab(tmp_path, policy=lab.by_format, skill=0.15)
    plan = world.plan()
    before = plan.task.path.read_bytes()
    result = await climb_whole(plan, store, load=world.load())
    assert lab.names(result) == ["base", "optimised", "reinforcement"]
    base, optimised, trained = result.to_json()["rungs"]
    assert base["decision"]["rule"] == "4a"
    assert (optimised["over"], trained["over"]) == ("base", "optimised")
    assert optimised["gain"]["test"]["low"] > 0
    assert optimised["bundle"] == trained["bundle"] != base["bundle"]
    assert result.optimisation is not None
    assert optimised["episodes"] == result.optimisation["spent"] <= 600
    assert plan.task.path.read_bytes() == before
    spec, base_dir = load_job(result.folder / "job.yaml")
    assert len(items_of(spec, base_dir, "test")) == 30  # its paths lead to the user's files
    job = stored_job(store, trained["job"])
    assert "ISO date" in (job.spec.agent.tool_docs["orders"].parameters["day"])
    assert spec.agent.tool_docs == job.spec.agent.tool_docs
    apply, chat = lab.commands(result)
    assert apply == f"agentrft apply {optimised['job']}"
    assert chat.endswith(f"--job {trained['job']}")


async def test_failures_of_form_are_imitated_away(lab: Any, tmp_path: Path, store: SqlStore) -> None:
    world = lab.Lab(tmp_path, policy=lab.by_form, skill=0.3)
    result = await climb_whole(world.plan(n_demos=60), store, load=world.load())
    assert lab.names(result)[:2] == ["base", "supervised"]
    base, trained, *_ = result.to_json()["rungs"]
    assert ruling(base["decision"], searched=True) == ("supervised", "8")
    assert trained["gain"]["test"]["low"] > 0
    # 60 demonstrations in batches of 8 are 8 steps of 0.05, 0.3 + 0.4; call and answer both need it: 0.7² = 0.49
    assert trained["splits"]["test"]["success"]["mean"] == pytest.approx(0.49, abs=0.15)
    assert store.list_checkpoints(trained["job"])


async def test_what_lowers_the_reward_is_left(lab: Any, tmp_path: Path, store: SqlStore) -> None:
    gains = {"supervised": 0.0, "reinforcement": -0.2, "dpo": 0.0}
    world = lab.Lab(tmp_path, skill=0.5, gains=gains)
    result = await climb_whole(world.plan(), store, load=world.load())
    # The best checkpoint on validation is that of step 0, which is as good: nothing is lower for certain.
    assert lab.names(result) == ["base", "reinforcement"]
    assert (result.recommended.name, result.exit_code) == ("base", 3)  # type: ignore[union-attr]
    assert result.headline() == "No rung is reliably better than orders as it is"
    worse = lab.Lab(tmp_path, skill=0.7, gains={"supervised": -0.1, "reinforcement": 0.2, "dpo": 0.0})
    result = await climb_whole(worse.plan(methods=("rejection",)), store, load=worse.load())
    assert any(note.startswith("rejection lowered the reward") for note in result.notes)
    assert result.rungs[-1].decision is None  # nothing goes on from it, so it is not diagnosed
    assert result.exit_code == 3


async def test_methods_are_compared_from_the_same_episodes(lab: Any, tmp_path: Path, store: SqlStore) -> None:
    world = lab.Lab(tmp_path)
    methods = ("rejection", "dpo", "reinforcement")
    result = await climb_whole(world.plan(methods=methods), store, load=world.load())
    assert (lab.names(result), result.ending) == (["base", *methods], "compared")
    rungs = {rung["name"]: rung for rung in result.to_json()["rungs"]}
    assert {rungs[name]["over"] for name in methods} == {"base"}
    played = [e for e in store.list_episodes(rungs["reinforcement"]["job"], limit=1000) if e.phase == "train"]
    assert len(played) == 80  # as many as the diagnosis: 20 × 4
    diagnosis = rungs["base"]["decision"]["diagnosis"]["job"]
    own = {e.episode.id for e in store.list_episodes(diagnosis, limit=1000)}
    for name in ("rejection", "dpo"):
        rows = [json.loads(line) for line in (result.folder / f"{name}.jsonl").read_text().splitlines()]
        assert rows
        assert {id_ for row in rows for id_ in row.get("episodes", [row.get("episode")])} <= own
    assert result.recommended is not None
    assert result.recommended.name in methods


async def test_a_job_without_a_grader_cannot_be_climbed(lab: Any, tmp_path: Path, store: SqlStore) -> None:
    world = lab.Lab(tmp_path)
    plan = world.plan()
    method = plan.spec.method.model_copy(update={"type": "supervised", "reinforcement": None})
    object.__setattr__(plan, "spec", plan.spec.model_copy(update={"method": method}))
    with pytest.raises(UserError, match="grader"):
        await climb_whole(plan, store, load=world.load())
