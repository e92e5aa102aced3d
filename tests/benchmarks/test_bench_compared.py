"""Runs of several seeds and arms paired by item, coverage counted from ledgers, and what the two benchmarks train."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
from harness.compared import cases_of, difference_rows, lines_of, pooled, rows_of
from harness.coverage import coverage
from harness.from_warmup import reinforcement_spec
from harness.grid import Grid, Run, file_of
from harness.note import Note
from harness.study import as_lists

from agentrft.jobs.load import load_job
from agentrft.ladder import find_example
from agentrft.ladder.measure import Measured
from agentrft.protocols import EpisodeRecord
from agentrft.types import Episode, Grade, StopReason

SIZES = {"items": 2, "samples": 1, "test_seed": 1, "steps": None, "model": None}


def measured(*rewards_I_K: list[float], items: tuple[str, ...] = ("a", "b")) -> Measured:
    ones_I_K = [[1.0] * len(rewards_K) for rewards_K in rewards_I_K]
    return Measured(
        stage="rft",
        split="test",
        item_ids=items,
        reward_I_K=rewards_I_K,
        success_I_K=ones_I_K,
        calls_I_K=ones_I_K,
        readable_I_K=ones_I_K,
        stop_reasons={"answered": sum(map(len, rewards_I_K))},
    )


def run(arm: str, seed: int, *rewards_I_K: list[float], **more: Any) -> Run:
    lists = as_lists({"test": measured(*rewards_I_K)})
    found = {"task": "filenav", "arm": arm, "seed": seed, **SIZES, "episodes": 96, "wall_s": 90.0, "measured": lists}
    return json.loads(json.dumps({**found, **more}))


RUNS = [
    run("warmup", 0, [0.0], [0.5], episodes=0),
    run("group_mean", 0, [0.25], [0.5]),
    run("step_groups", 0, [0.5], [0.75]),
    run("warmup", 1, [0.0], [0.0], episodes=0),
    run("group_mean", 1, [0.25], [0.25]),
    run("step_groups", 1, [0.75], [0.75]),
]


def test_seeds_are_pooled_item_by_item() -> None:
    both = pooled([measured([0.0], [1.0]), measured([0.5], [0.25])])
    assert both.reward_I_K == [[0.0, 0.5], [1.0, 0.25]]
    assert both.stop_reasons == {"answered": 4}
    with pytest.raises(ValueError, match="different items of test"):
        pooled([measured([0.0], [1.0]), measured([0.0], [1.0], items=("a", "c"))])


def test_every_run_has_a_line_and_so_have_the_seeds_together() -> None:
    assert [(line.label, line.arm) for line in lines_of(RUNS[:4])] == [
        ("filenav seed 0", "warmup"),
        ("filenav seed 1", "warmup"),
        ("filenav seeds 0,1", "warmup"),
        ("filenav seed 0", "group_mean"),
        ("filenav seed 0", "step_groups"),
    ]


def test_runs_of_other_sizes_are_not_put_together() -> None:
    lines = lines_of([RUNS[1], run("group_mean", 1, [0.25], [0.25], items=3)])
    assert [line.label for line in lines] == ["filenav seed 0", "filenav seed 1"]
    assert lines[0].beside("step_groups", RUNS) is not None
    assert lines[1].beside("step_groups", RUNS) is None


def test_gains_are_over_the_warm_up_and_differences_to_the_base_arm() -> None:
    rows = rows_of(RUNS, "warmup", {"episodes": lambda line: f"{line.mean('episodes'):.0f}"})
    assert rows[0] == ("run", "split", "reward", "gain over warmup", "episodes", "min")
    by_run = {row[0]: row for row in rows[1:]}
    assert by_run["filenav seed 0 warmup"][3:] == ("", "0", "1.5")
    # step_groups less the warm-up: (0.5 + 0.25) / 2 with seed 0, (0.75 + 0.75) / 2 with seed 1, their mean together.
    assert by_run["filenav seed 0 step_groups"][3].startswith("+0.375 [")
    assert by_run["filenav seed 1 step_groups"][3].startswith("+0.750 [+0.750")
    assert by_run["filenav seeds 0,1 step_groups"][3].startswith("+0.562 [")

    arms = [one for one in RUNS if one["arm"] != "warmup"]
    # step_groups less group_mean: 0.25 and 0.25 with seed 0; 0.5 and 0.5 with seed 1; 0.375 for each item together.
    assert difference_rows(arms, "group_mean")[1:] == [
        ("filenav seed 0 step_groups", "test", "+0.250 [+0.250, +0.250]", "2"),
        ("filenav seed 1 step_groups", "test", "+0.500 [+0.500, +0.500]", "2"),
        ("filenav seeds 0,1 step_groups", "test", "+0.375 [+0.375, +0.375]", "2"),
    ]
    together = cases_of(arms, "group_mean")[-1]
    assert together["name"] == "filenav seeds 0,1 test: step_groups beside group_mean"
    assert (together["ours"], together["peer"], together["speedup"]) == (0.6875, 0.3125, None)
    assert together["difference"]["n_episodes"] == 8  # 2 items × 2 seeds × 2 arms


def trained_on(step: int, *turns: dict[str, Any] | None) -> EpisodeRecord:
    """An episode with a ledger; None stands for one of a group without signal, which has no turns in it."""
    episode = Episode(
        id="ep_0",
        trace_id="trace_0",
        item_id="a",
        step=step,
        member=0,
        attempt=0,
        messages=(),
        turns=(),
        stop_reason=StopReason.ANSWERED,
    )
    credit = {"reward": {"grade": 1.0}} | ({} if turns == (None,) else {"turns": list(turns)})
    grade = Grade(value=1.0)
    return EpisodeRecord(
        job_id="ftjob-0", phase="train", stage="rft", episode=episode, grade=grade, extra={"credit": credit}
    )


def test_coverage_counts_the_turns_after_the_first() -> None:
    first = {"peers": [{"member": 1}], "parts": {"trajectory": 1.0, "step": 0.0}}
    met = {"peers": [{"member": 1}], "parts": {"trajectory": 1.0, "step": 0.2}}
    met_alike = {"peers": [{"member": 1}], "parts": {"trajectory": 1.0, "step": 0.0}}
    met_nobody = {"peers": [], "parts": {"trajectory": 1.0, "step": 0.0}}
    plain = {"peers": [{"member": 1}], "parts": {"trajectory": 1.0}}
    records = [
        trained_on(1, first, met, met_nobody),
        trained_on(1, first, met_alike),
        trained_on(1, None),
        trained_on(2, first, plain),
    ]
    found = coverage(records)
    by_step = found.pop("by_step")
    assert found == {
        "later_turns": 4,
        "with_peers": 3,
        "with_step_term": 1,
        "peers_frac": 0.75,
        "step_term_frac": 0.25,
    }
    assert by_step["1"]["with_peers"] == 2
    assert by_step["2"]["step_term_frac"] == 0.0
    assert coverage([trained_on(1, first)])["peers_frac"] is None


def test_a_note_adds_up_its_sittings(tmp_path: Path) -> None:
    note = Note(tmp_path / "run.note")
    note.keep(job="ftjob-0", train_s=3.0)
    again = Note(tmp_path / "run.note")
    with again.timed("train_s"):
        pass
    kept = Note(tmp_path / "run.note").known
    assert kept["job"] == "ftjob-0"
    assert 3.0 <= kept["train_s"] < 4.0


async def nothing(*_: Any) -> Run:
    raise AssertionError("a finished run is never made again")


def test_a_finished_run_of_other_sizes_is_refused(tmp_path: Path) -> None:
    grid = Grid(
        description="",
        tasks={"filenav": ("test",)},
        arms=("warmup", "step_groups"),
        default=("step_groups",),
        folder=tmp_path,
        make=nothing,
    )
    path = file_of(tmp_path, "filenav", 0, "warmup")
    path.write_text(json.dumps(RUNS[0]))
    options = argparse.Namespace(folder=tmp_path, **SIZES)
    assert grid.run("filenav", 0, "warmup", options) == RUNS[0]
    assert grid.merged(tmp_path) == [RUNS[0]]
    options.items = 100
    with pytest.raises(SystemExit, match="made with items=2, not 100"):
        grid.run("filenav", 0, "step_groups", options)


def test_arms_of_reinforcement_play_no_more_than_they_are_given() -> None:
    spec, _ = load_job(find_example("filenav"))
    given = reinforcement_spec(spec)
    assert (given.method.type, given.data.validation, given.training.oversample) == ("reinforcement", None, 1.0)
    assert given.audit is False


def test_every_arm_of_credit_is_a_credit_that_a_job_can_name_alone() -> None:
    import credit

    spec, _ = load_job(find_example("filenav"))
    assert [credit.credited(spec, arm).training.credit.type for arm in credit.ARMS[1:]] == list(credit.ARMS[1:])


def test_the_ladder_has_an_arm_for_every_method_and_the_example_settings_for_each() -> None:
    import ladder

    assert ladder.ARMS == ("warmup", "rejection", "dpo", "reinforcement")
    assert [find_example(task).with_name("dpo.yaml").is_file() for task in ladder.GRID.tasks] == [True]
