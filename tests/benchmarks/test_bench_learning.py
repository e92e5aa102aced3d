"""Strategies counted from episodes, the permuted control, and the merged table of the learning benchmark."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from harness.arms import permuted
from harness.grid import file_of, fresh_task
from harness.strategies import count, fewest_calls, first_call

from agentrft.credit import METHODS, GroupView, StepView
from agentrft.data.rows import Demonstration
from agentrft.protocols import EpisodeRecord
from agentrft.types import Episode, Grade, Message, StopReason, ToolCall, Turn

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def call(**arguments: str) -> Message:
    made = ToolCall(id="call_0", name="grep", arguments=json.dumps(arguments))
    return Message(role="assistant", tool_calls=(made,))


def record(
    *replies: Message, grade: float | None, stop: StopReason = StopReason.ANSWERED, item_id: str = "a"
) -> EpisodeRecord:
    episode = Episode(
        id="ep_0",
        trace_id="trace_0",
        item_id=item_id,
        step=0,
        member=0,
        attempt=0,
        messages=(),
        turns=tuple(Turn(reply=reply) for reply in replies),
        stop_reason=stop,
    )
    given = Grade(value=grade) if grade is not None else Grade(value=None, reason="broken")
    return EpisodeRecord(job_id="ftjob-0", phase="test", stage="rft", episode=episode, grade=given)


ANSWER = Message(role="assistant", content="8123")
FIELDS = {"a": {"service": "billing", "key": "port"}}


def test_strategies_are_counted() -> None:
    direct = record(call(text="billing.port", path="/"), ANSWER, grade=1.0)
    lucky = record(call(text="billing", path="/"), ANSWER, grade=1.0)
    wrong = record(call(text="billing", path="/"), ANSWER, grade=0.05)
    shown = record(call(text="billing", path="/"), call(path="/x"), ANSWER, grade=0.85)
    cut_off = record(call(text="billing.port", path="/"), grade=0.0, stop=StopReason.MAX_REPLY_TOKENS)
    ungraded = record(call(text="x"), ANSWER, grade=None)
    fault = record(call(text="x"), grade=None, stop=StopReason.FAULT)
    records = [direct, lucky, wrong, shown, cut_off, ungraded, fault]
    assert count(records, fewest_shown=2, pass_threshold=0.5, fields_by_item=FIELDS) == {
        "episodes": 6,  # the fault is out
        "solved": 3,
        "one_call": 4,
        "one_call_solved": 2,
        "shorter_than_shown": 2,
        "names_answer_key": 2,
    }


def test_first_call_of_an_episode_without_calls_is_empty() -> None:
    assert first_call(record(ANSWER, grade=0.0).episode) == ""
    assert first_call(record(call(text="a b", path="/"), grade=0.0).episode) == "a b /"


def test_fewest_calls_of_the_demonstrations() -> None:
    short = Demonstration(id="1", messages=(call(text="a"), ANSWER), tools=(), line=1)
    long = Demonstration(id="2", messages=(call(text="a"), call(text="b"), ANSWER), tools=(), line=2)
    assert fewest_calls([long, short]) == 1
    assert fewest_calls([long]) == 2


def test_permuted_rewards_keep_their_values_and_lose_their_place() -> None:
    credit = permuted(METHODS["group_mean"], seed=0)
    group = GroupView(rewards_G=(1.0, 0.0, None, 0.5), steps_G=((StepView(),),) * 4)
    # The mean of 1, 0 and 0.5 is 0.5, so the credits are 0.5, −0.5 and 0 in some order.
    drawn = [[credit_K[0] for credit_K in credit([group]).credit_I_G_K[0]] for _ in range(50)]
    assert all(sorted(c for i, c in enumerate(credits) if i != 2) == [-0.5, 0.0, 0.5] for credits in drawn)
    assert all(credits[2] == 0.0 for credits in drawn)
    assert {credits[0] for credits in drawn} == {0.5, -0.5, 0.0}
    assert abs(sum(credits[0] for credits in drawn) / 50) < 0.2


@pytest.fixture
def learning() -> object:
    sys.path.insert(0, str(BENCHMARKS))
    import learning

    return learning


def finished(arm: str, gain: float) -> dict:
    interval = {"mean": gain, "low": gain - 0.1, "high": gain + 0.1, "n_items": 100, "n_episodes": 400}
    figures = {"reward": {"mean": 0.3 + gain}, "calls": {"mean": 2.0}}
    sft = {"splits": {"test": {"reward": {"mean": 0.3}, "calls": {"mean": 3.0}}}}
    stages = {"sft": sft, arm: {"splits": {"test": figures}}}
    if arm == "rft":
        stages["base"] = {"splits": {"test": {"reward": {"mean": 0.0}, "calls": {"mean": 0.0}}}}
    counts = {"test": {"shorter_than_shown": 3, "episodes": 200}}
    return {
        "task": "filenav",
        "seed": 0,
        "arm": arm,
        "stages": stages,
        "gain_over_sft": {"test": interval},
        "strategies": {arm: counts},
    }


def test_runs_are_merged_and_set_beside_their_controls(tmp_path: Path, learning: object) -> None:
    for arm, gain in (("permuted", 0.01), ("rft", 0.5)):
        file_of(tmp_path, "filenav", 0, arm).write_text(json.dumps(finished(arm, gain)))
    runs = learning.GRID.merged(tmp_path)
    assert [one["arm"] for one in runs] == ["rft", "permuted"]
    assert learning.cases_of(runs) == [
        {
            "name": "filenav seed 0 test: gain of rft beside permuted",
            "unit": "reward",
            "ours": 0.5,
            "peer": 0.01,
            "speedup": None,
        }
    ]
    rows = learning.rows_of(runs)
    assert rows[1][:6] == ("filenav seed 0 rft", "test", "0.000", "0.300", "0.800", "+0.500 [+0.400, +0.600]")
    assert rows[2][2] == ""
    assert rows[1][-1] == "3/200"


def test_fresh_task_keeps_training_rows_and_makes_new_held_out_ones(tmp_path: Path) -> None:
    job = fresh_task("units", tmp_path, 1)
    example = BENCHMARKS.parent / "examples" / "units" / "data"
    for name in ("train", "validation", "demonstrations"):
        assert (job.parent / "data" / f"{name}.jsonl").read_bytes() == (example / f"{name}.jsonl").read_bytes()
    assert (job.parent / "data" / "test.jsonl").read_bytes() != (example / "test.jsonl").read_bytes()
    assert fresh_task("units", tmp_path, 1) == job
