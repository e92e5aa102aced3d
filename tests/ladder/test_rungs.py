"""Which method a decision leads to, what a method trains on, and a job document that means the same elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.jobs.load import parse_job
from agentrft.ladder.adopted import anchored
from agentrft.ladder.own_data import own_rows, same_episodes
from agentrft.ladder.rungs import next_method, read_methods
from agentrft.protocols import EpisodeRecord
from agentrft.types import Episode, Grade, Message, StopReason, TokenTrace, Turn


def decision(verdict: str, rule: str = "x", otherwise: str = "collect", **numbers: int) -> dict[str, Any]:
    return {
        "verdict": verdict,
        "rule": rule,
        "otherwise": {"verdict": otherwise, "rule": "y"},
        "numbers": {"demos": 60, "self_demos": 0} | numbers,
    }


@pytest.mark.parametrize(
    ("given", "done", "only", "expected"),
    [
        (decision("reinforcement"), [], [], "reinforcement"),
        (decision("reinforcement"), ["reinforcement"], [], None),
        (decision("supervised_then_reinforcement"), [], [], "supervised"),
        (decision("supervised_then_reinforcement"), ["supervised"], [], "reinforcement"),
        (decision("supervised", demos=3, self_demos=55), [], [], "rejection"),
        (decision("rejection_sampling_or_dpo", "12a"), [], [], "rejection"),
        (decision("rejection_sampling_or_dpo", "12b"), [], [], "dpo"),
        (decision("optimise", otherwise="reinforcement"), [], [], "reinforcement"),
        (decision("optimise", otherwise="collect"), [], [], None),
        (decision("reinforcement"), [], ["dpo"], "dpo"),
        (decision("reinforcement"), ["dpo"], ["dpo"], None),
        *((decision(verdict), [], ["dpo"], None) for verdict in ("done", "collect", "fix_grader", "too_little_data")),
    ],
)
def test_a_decision_leads_to_a_method(given: Any, done: list[str], only: Any, expected: str | None) -> None:
    assert next_method(given, searched=True, done=done, only=only) == expected


def test_a_search_comes_before_any_method() -> None:
    given = decision("optimise", otherwise="reinforcement")
    assert next_method(given, searched=False, done=(), only=()) is None


def test_methods_are_checked() -> None:
    assert read_methods(["dpo", "rejection"]) == ("dpo", "rejection")
    with pytest.raises(UserError, match="names 'sft', expected some of supervised, rejection, dpo, reinforcement"):
        read_methods(["sft"])


def job(**agent: Any) -> dict[str, Any]:
    grader = {"type": "string_check", "name": "g", "operation": "eq", "input": "a", "reference": "b"}
    method = {"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": {"batch_size": 6}}}
    return {"model": "m", "method": method, "data": {"train": "train.jsonl"}, "agent": agent}


@pytest.mark.parametrize(
    ("episodes", "batch", "steps"),
    [
        (400, 6, 8),  # 8 steps of 6 × 8 are 384; a ninth would be 432
        (48, 6, 1),
        (30, 3, 1),  # no step of 48 fits: 3 groups of 8
        (4, 1, 1),  # the smallest step there is
    ],
)
def test_reinforcement_plays_as_many_episodes_as_the_others_got(episodes: int, batch: int, steps: int) -> None:
    spec = same_episodes(parse_job(job(), source="job"), episodes)
    assert spec.method.reinforcement is not None
    made = (spec.method.reinforcement.hyperparameters.batch_size, spec.training.steps, spec.training.oversample)
    assert made == (batch, steps, 1.0)


def record(member: int, reward: float, *, examples: tuple[Message, ...] = ()) -> EpisodeRecord:
    answer = Message(role="assistant", content=f"it is {member}")
    asked = (Message(role="system", content="S"), *examples, Message(role="user", content="q"))
    episode = Episode(
        id=f"ep_{member}",
        trace_id="t",
        item_id="i",
        step=0,
        member=member,
        attempt=0,
        messages=(*asked, answer),
        turns=(Turn(reply=answer),),
        stop_reason=StopReason.ANSWERED,
        tokens=TokenTrace(ids=[1, 2], trained=[False, True], log_probs=[0.0, -1.0], prompt_tokens=1, policy_version=0),
    )
    grade = Grade(value=reward)
    extra = {"split": "train"}
    return EpisodeRecord(job_id="j", phase="test", stage="s", episode=episode, grade=grade, reward=reward, extra=extra)


def test_rows_of_own_episodes_leave_the_jobs_worked_examples_out(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"id": "i", "messages": [{"role": "user", "content": "q"}]}\n')
    shown = '{"messages": [{"role": "user", "content": "e"}, {"role": "assistant", "content": "a"}]}\n'
    (tmp_path / "demos.jsonl").write_text(shown)
    spec = parse_job(job(system="S", demos="demos.jsonl"), source="job")
    examples = (Message(role="user", content="e"), Message(role="assistant", content="a"))
    records = [record(0, 1.0, examples=examples), record(1, 0.0, examples=examples)]
    (row,) = own_rows(spec, tmp_path, "rejection", records)
    assert [message["content"] for message in row["messages"]] == ["S", "q", "it is 0"]
    (pair,) = own_rows(spec, tmp_path, "dpo", records)
    assert [message["content"] for message in pair["input"]["messages"]] == ["S", "q"]
    assert pair["preferred_output"][0]["content"] == "it is 0"
    assert own_rows(spec, tmp_path, "dpo", records[:1]) == []
    document = job(system="S", demos="demos.jsonl")
    document["method"]["dpo"] = {"loss": {"type": "kto"}}
    rated = own_rows(parse_job(document, source="job"), tmp_path, "dpo", records)
    assert [row["desirable"] for row in rated] == [True, False]


def test_an_anchored_document_names_the_same_files(tmp_path: Path) -> None:
    for name in ("train.jsonl", "tools.py", "server.py", "grader.py", "note"):
        (tmp_path / name).write_text("")
    document = job(
        system="note",
        tools=[
            {"type": "python", "target": "tools.py:Shop"},
            {"type": "mcp", "server_label": "s", "command": ["python", "server.py", "--port"]},
            {"type": "mcp", "server_label": "t", "server_url": "http://localhost:1/mcp"},
        ],
    )
    document["audit"] = {"grader": {"type": "python", "name": "note", "source_file": "grader.py"}}
    made = anchored(document, tmp_path)
    assert made["data"] == {"train": f"{tmp_path}/train.jsonl"}
    python, program, service = made["agent"]["tools"]
    assert python["target"] == f"{tmp_path}/tools.py:Shop"
    assert (program["command"], program["cwd"]) == (["python", f"{tmp_path}/server.py", "--port"], str(tmp_path))
    assert service == document["agent"]["tools"][2]
    assert made["audit"]["grader"] == {"type": "python", "name": "note", "source_file": f"{tmp_path}/grader.py"}
    assert (made["agent"]["system"], made["model"]) == ("note", "m")  # words, and a name that is no file
    assert anchored(made, tmp_path) == made
    assert document["agent"]["tools"][1].keys() == {"type", "server_label", "command"}
