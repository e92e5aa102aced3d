"""Episodes of a job over HTTP: filtered, in pages, whole, and exported in OpenAI's trace shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentrft.protocols import EpisodeRecord
from agentrft.rollout.ids import EpisodeKey
from agentrft.store import SqlStore
from agentrft.types import Episode, Grade, Message, StopReason, TokenTrace, ToolCall, ToolResult, Turn

JOB = "ftjob-aaaabbbbccccddddeeeeffff"
URL = f"/v1/fine_tuning/jobs/{JOB}/episodes"


def record(step: int, member: int, *, reward: float | None, stop: StopReason = StopReason.ANSWERED) -> EpisodeRecord:
    key = EpisodeKey(run=JOB, step=step, item="i1", member=member)
    call = ToolCall(id="call_0_0", name="look", arguments='{"word": "red"}')
    calling, said = Message(role="assistant", tool_calls=(call,)), Message(role="assistant", content="blue é")
    # Half a surrogate pair: what a tool may answer, and no JSON in UTF-8 can hold.
    result = ToolResult(call_id=call.id, output="blue \ud83d", wall_s=0.25)
    tokens = TokenTrace(
        ids=[1, 2, 3, 4, 5, 6],
        trained=[False, False, True, True, False, True],
        log_probs=[0.0, 0.0, -0.5, float("-inf"), 0.0, -0.25],
        prompt_tokens=2,
        policy_version=step,
    )
    episode = Episode(
        id=key.id,
        trace_id=key.trace_id,
        item_id="i1",
        step=step,
        member=member,
        attempt=0,
        messages=(
            Message(role="user", content="red?"),
            calling,
            Message(role="tool", content=result.output, tool_call_id=call.id),
            said,
        ),
        turns=(
            Turn(reply=calling, results=(result,), start=2, end=4),
            Turn(reply=said, start=5, end=6),
        ),
        stop_reason=stop,
        tokens=tokens,
        wall_s=1.5,
    )
    grade = Grade(value=None, reason="no") if reward is None else Grade(value=reward, sub_grades={"exact": reward})
    return EpisodeRecord(
        job_id=JOB,
        phase="train" if step else "validation",
        stage="rft" if step else "step-00000004",
        episode=episode,
        grade=grade,
        reward=reward,
        advantage=0.5,
        extra={"split": "train", "credit": {"x": float("nan")}},
    )


@pytest.fixture
def job(server: Any, tmp_path: Path) -> SqlStore:
    """A job of three steps of two episodes, with its row on disk."""
    store: SqlStore = server.state.store
    row = {"id": "i1", "messages": [{"role": "user", "content": "red?"}], "meaning": "blue"}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    grader = {"type": "string_check", "name": "g", "input": "a", "reference": "b", "operation": "eq"}
    spec = {
        "model": "tiny",
        "data": {"train": "train.jsonl"},
        "method": {"type": "reinforcement", "reinforcement": {"grader": grader}},
    }
    store.create_job({"id": JOB, "kind": "reinforcement", "spec": spec, "base_dir": str(tmp_path), "runner": "server"})
    rewards = [None, 0.0, 0.25, 0.5, 0.75, 1.0]
    store.add_episodes(JOB, [record(n // 2, n % 2, reward=reward) for n, reward in enumerate(rewards)])
    return store


@pytest.mark.parametrize(
    ("query", "rewards"),
    [
        ("", [None, 0.0, 0.25, 0.5, 0.75, 1.0]),
        ("step=1", [0.25, 0.5]),
        ("phase=validation", [None, 0.0]),
        ("min_reward=0.25&max_reward=0.75", [0.25, 0.5, 0.75]),
        ("item_id=i1&step=2", [0.75, 1.0]),
        ("item_id=nothing", []),
        ("stop_reason=max_turns", []),
        ("stop_reason=answered&min_reward=1", [1.0]),
    ],
)
def test_filters(server: Any, job: SqlStore, query: str, rewards: list[Any]) -> None:
    page = server.http().get(f"{URL}?{query}").json()
    assert [one["reward"] for one in page["data"]] == rewards
    assert page["has_more"] is False


def test_pages(server: Any, job: SqlStore) -> None:
    http, seen, after = server.http(), [], ""
    while True:
        page = http.get(f"{URL}?limit=4{after}").json()
        seen += [one["id"] for one in page["data"]]
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        if not page["has_more"]:
            break
        after = f"&after={page['last_id']}"
    assert len(set(seen)) == len(seen) == 6
    gone = http.get(f"{URL}?after=ep_x")
    assert (gone.status_code, gone.json()["error"]["param"]) == (404, "after")
    for bad in ("limit=0", "limit=101", "step=-1", "stop_reason=bored", "min_reward=nan", "format=xml"):
        assert http.get(f"{URL}?{bad}").status_code == 400, bad


def test_one_episode_has_everything(server: Any, job: SqlStore) -> None:
    http = server.http()
    one = http.get(f"{URL}?step=2&limit=1").json()["data"][0]
    whole = http.get(f"{URL}/{one['id']}").json()
    assert {name: whole[name] for name in one} == one
    assert whole["tokens"]["log_probs"] == [0.0, 0.0, -0.5, None, 0.0, -0.25]
    assert [message["role"] for message in whole["messages"]] == ["user", "assistant", "tool", "assistant"]
    assert whole["turns"][0]["results"][0]["output"] == "blue ?"
    assert whole["extra"]["credit"] == {"x": None}
    assert http.get(f"{URL}/ep_nothing").status_code == 404


def test_an_episode_of_another_job_is_not_there(server: Any, job: SqlStore) -> None:
    http = server.http()
    other = "ftjob-zzzzbbbbccccddddeeeeffff"
    job.create_job({"id": other, "kind": "reinforcement", "spec": {}, "base_dir": "/"})
    one = http.get(URL).json()["data"][0]["id"]
    assert http.get(f"/v1/fine_tuning/jobs/{other}/episodes/{one}").status_code == 404


@pytest.mark.parametrize("how", [{"headers": {"accept": "application/jsonl"}}, {"params": {"format": "jsonl"}}])
def test_the_export_has_openais_trace_shape_with_its_nulls_filled(server: Any, job: SqlStore, how: Any) -> None:
    answered = server.http().get(URL, **how)
    assert answered.headers["content-type"].startswith("application/jsonl")
    lines = [json.loads(line) for line in answered.text.splitlines()]
    assert len(lines) == 6
    line = lines[-1]
    assert (line["status"], lines[2]["status"]) == ("pass", "fail")  # 1.0 and 0.25 against 0.5
    assert line["results"] == [
        {"name": "grade", "score": 1.0, "passed": True, "sample": None},
        {"name": "exact", "score": 1.0, "passed": True, "sample": None},
    ]
    assert [message["content"] for message in line["sample"]["input"]] == ["red?"]
    assert [message["role"] for message in line["sample"]["output"]] == ["assistant", "tool", "assistant"]
    assert line["datasource_item"]["meaning"] == "blue"
    trace = line["datasource_item"]["trace"]
    assert trace["type"] == "trace"
    first, call, last = trace["spans"]
    assert set(first) == {
        "id",
        "object",
        "trace_id",
        "parent_id",
        "started_at",
        "ended_at",
        "created_at",
        "error",
        "span_data",
    }
    assert first["span_data"]["output"] == [
        {"role": "assistant", "content": '{"word": "red"}', "recipient": "functions.look"}
    ]
    assert first["span_data"]["usage"] == {"input_tokens": 2, "output_tokens": 2}
    assert last["span_data"]["usage"] == {"input_tokens": 5, "output_tokens": 1}
    assert first["span_data"]["model"] == "tiny"
    assert len(last["span_data"]["input"]) == 3
    played = {one["stage"]: one["datasource_item"]["trace"]["spans"][0]["span_data"]["model"] for one in lines}
    assert played == {"rft": "tiny", "step-00000004": "ft:tiny:local::aaaabbbb:ckpt-step-4"}
    assert call["parent_id"] == first["id"]
    assert call["span_data"] == {
        "type": "FUNCTION",
        "name": "functions.look",
        "input": '{"word": "red"}',
        "output": "blue ?",
        "mcp_data": None,
        "duration_s": 0.25,
    }
    assert server.http().get(URL, **how).text == answered.text


def test_the_export_needs_no_rows(server: Any, job: SqlStore, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").unlink()
    lines = server.http().get(f"{URL}?format=jsonl&step=1").text.splitlines()
    assert [json.loads(line)["datasource_item"]["id"] for line in lines] == ["i1", "i1"]
