"""`pairs` and `collect` over a store with recorded episodes: files that jobs can read, and clear words otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrft.data.preferences import read_preferences, read_rated
from agentrft.data.rows import read_demonstrations
from agentrft.protocols import EpisodeRecord
from agentrft.rollout.ids import EpisodeKey
from agentrft.store import open_store
from agentrft.types import Episode, Grade, Message, StopReason, ToolCall, ToolResult, Turn

JOB = "ftjob-aaaabbbbccccddddeeeeffff"
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {"at": {}}}}}
Cli = Callable[..., tuple[int, str]]


def record(item: str, member: int, at: str, answer: str, reward: float) -> EpisodeRecord:
    key = EpisodeKey(run=JOB, step=1, item=item, member=member)
    call = ToolCall(id="call_0_0", name="look", arguments=json.dumps({"at": at}))
    calling, said = Message(role="assistant", tool_calls=(call,)), Message(role="assistant", content=answer)
    episode = Episode(
        id=key.id,
        trace_id=key.trace_id,
        item_id=item,
        step=1,
        member=member,
        attempt=0,
        messages=(
            Message(role="user", content=f"Where is {item}?"),
            calling,
            Message(role="tool", content="\x1b[2J[red]x", tool_call_id=call.id),
            said,
        ),
        turns=(Turn(reply=calling, results=(ToolResult(call_id=call.id, output="\x1b[2J[red]x"),)), Turn(reply=said)),
        stop_reason=StopReason.ANSWERED,
    )
    return EpisodeRecord(
        job_id=JOB, phase="train", stage="rft", episode=episode, grade=Grade(value=reward), reward=reward
    )


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., tuple[int, str, str]]) -> Cli:
    """A job whose training rows describe a tool, with ten items: one good and two bad episodes of each."""
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    rows = [
        {"id": f"i{n}", "messages": [{"role": "user", "content": f"Where is i{n}?"}], "tools": [TOOL]}
        for n in range(10)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    spec: dict[str, Any] = {"model": "m", "data": {"train": "train.jsonl"}}
    store = open_store()
    store.create_job(
        {"id": JOB, "status": "queued", "kind": "reinforcement", "model": "m", "spec": spec, "base_dir": str(tmp_path)}
    )
    store.add_episodes(
        JOB,
        [
            one
            for n in range(10)
            for one in (
                record(f"i{n}", 0, "here", "yes", 1.0),
                record(f"i{n}", 1, "here", "no", 0.3),
                record(f"i{n}", 2, "there", "no", 0.0),
            )
        ],
    )
    store.close()

    def run(*args: str) -> tuple[int, str]:
        code, out, err = command_line(*args)
        return code, out + err

    return run


def test_pairs_writes_what_a_dpo_job_reads(cli: Cli, tmp_path: Path) -> None:
    code, text = cli("pairs", "aaaa", "--out", "pairs.jsonl")
    assert code == 0, text
    assert "20 pairs of 10 items, mean margin 0.85, 10 of them part after a tool result" in text
    assert "30 training episodes, 30 of them answered" in text
    found = list(read_preferences(tmp_path / "pairs.jsonl"))
    assert len(found) == 20
    assert {tool.name for pair in found for tool in pair.tools} == {"look"}
    assert {len(pair.prompt) for pair in found} == {1, 3}


def test_held_out_items_go_to_a_file_of_their_own(cli: Cli, tmp_path: Path) -> None:
    code, text = cli("pairs", JOB, "--out", "a.jsonl", "--held-out", "b.jsonl", "--held-out-share", "0.4")
    assert code == 0, text
    asked = [{pair.prompt[0].content for pair in read_preferences(tmp_path / name)} for name in ("a.jsonl", "b.jsonl")]
    assert not asked[0] & asked[1]
    assert len(asked[0] | asked[1]) == 10


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("pairs", JOB, "--margin", "1.5"), "no pairs in this job: 30 training episodes"),
        (("pairs", "zzzz"), "no job begins with it"),
        (("pairs", JOB, "--held-out", "x.jsonl"), "expected two files"),
        (("pairs", JOB, "--held-out", "b.jsonl", "--held-out-share", "0.01"), "20 pairs were too few to divide"),
        (("collect", JOB, "--min-reward", "1.01"), "(the highest reward of all is 1.000)"),
        (("collect", JOB, "--min-reward", "0", "--rated"), "all rewards are 0 or more"),
    ],
)
def test_nothing_to_write_is_said_and_nothing_is_written(
    cli: Cli, tmp_path: Path, args: tuple[str, ...], words: str
) -> None:
    code, text = cli(*args, "--out", "x.jsonl")
    assert code == 2
    assert words in " ".join(text.split())
    assert not (tmp_path / "x.jsonl").exists()
    assert not (tmp_path / "b.jsonl").exists()


def test_collect_writes_what_a_supervised_job_reads(cli: Cli, tmp_path: Path) -> None:
    code, text = cli("collect", JOB, "--min-reward", "0.3", "--out", "good.jsonl")
    assert code == 0, text
    # The same call with another answer is the same sequence of calls; the higher reward stays.
    assert "10 demonstrations of 10 items, from 20 good episodes of 30" in text
    found = list(read_demonstrations(tmp_path / "good.jsonl"))
    assert {one.messages[-1].content for one in found} == {"yes"}
    assert [one.id for one in found] == [f"i{n}" for n in range(10)]
    assert {tool.name for one in found for tool in one.tools} == {"look"}


def test_rated_conversations_are_for_kto(cli: Cli, tmp_path: Path) -> None:
    code, text = cli("collect", JOB, "--min-reward", "0.5", "--rated", "--out", "rated.jsonl")
    assert code == 0, text
    assert "10 desirable conversations of 10 items" in text
    assert text.rstrip().endswith("; 20 undesirable")
    assert [one.desirable for one in read_rated(tmp_path / "rated.jsonl")] == [True] * 10 + [False] * 20


def test_a_place_that_cannot_be_written_is_named(cli: Cli) -> None:
    code, text = cli("collect", JOB, "--min-reward", "0.3", "--out", "nowhere/good.jsonl")
    assert code == 2
    assert "cannot write" in text


def test_rows_that_are_gone_are_missed(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").unlink()
    code, text = cli("pairs", JOB, "--out", "pairs.jsonl")
    assert code == 2
    assert "no such file" in text
