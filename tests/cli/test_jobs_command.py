"""`agentrft jobs …` on the store of this machine and at a server: the same words, the same errors."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from agentrft.cli.desk import SERVER
from agentrft.jobs.service import job_folder
from agentrft.jobs.spec import JobSpec
from agentrft.protocols import EpisodeRecord
from agentrft.rollout.ids import EpisodeKey
from agentrft.server.config import ServerConfig
from agentrft.server.run import config_of
from agentrft.server.state import open_state
from agentrft.store import SqlStore, open_store
from agentrft.types import Episode, Grade, Message, StopReason, Turn

JOB = "ftjob-aaaabbbbccccddddeeeeffff"
Cli = Callable[..., tuple[int, str, str]]
GRADER = {"type": "string_check", "name": "g", "input": "a", "reference": "b", "operation": "eq"}
SPEC: Any = JobSpec.model_validate(
    {
        "model": "tiny",
        "suffix": "words",
        "data": {},
        "method": {"type": "reinforcement", "reinforcement": {"grader": GRADER}},
    }
).model_dump(mode="json")


def record(member: int, reward: float) -> EpisodeRecord:
    key = EpisodeKey(run=JOB, step=1, item="one", member=member)
    said = Message(role="assistant", content="blue")
    episode = Episode(
        id=key.id,
        trace_id=key.trace_id,
        item_id="one",
        step=1,
        member=member,
        attempt=0,
        messages=(Message(role="user", content="red?"), said),
        turns=(Turn(reply=said),),
        stop_reason=StopReason.ANSWERED,
    )
    return EpisodeRecord(
        job_id=JOB, phase="train", stage="rft", episode=episode, grade=Grade(value=reward), reward=reward
    )


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlStore]:
    """A job that a server would run, with everything that one leaves behind."""
    home = tmp_path / "home"
    monkeypatch.setenv("AGENTRFT_HOME", str(home))
    monkeypatch.delenv(SERVER, raising=False)
    monkeypatch.chdir(tmp_path)
    store = open_store()
    store.create_job(
        {
            "id": JOB,
            "kind": "reinforcement",
            "runner": "server",
            "status": "queued",
            "model": "tiny",
            "spec": SPEC,
            "base_dir": "/",
        }
    )
    store.add_event(JOB, "careful \x1b[31m[red]boo", level="warn")
    store.add_metrics(JOB, 1, {"reward_mean": 0.25, "valid_reward_mean": 0.5})
    store.add_event(JOB, "Step 1/2", data={"step": 1, "total_steps": 2}, type="metrics")
    store.add_episodes(JOB, [record(n, n / 4) for n in range(3)])
    base = home / "models" / "tiny"
    base.mkdir(parents=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (base / name).write_text("{}")
    place = job_folder(JOB) / "checkpoints" / "step-00000001"
    place.mkdir(parents=True)
    (place / "adapter_model.safetensors").write_bytes(b"weights")
    (place / "adapter_config.json").write_text(json.dumps({"r": 4, "lora_alpha": 8}))
    (job_folder(JOB) / "job.json").write_text(json.dumps({"base_model": str(base)}))
    store.add_checkpoint(JOB, 1, str(place), {})
    yield store
    store.close()


@pytest.fixture
def url(store: SqlStore) -> Iterator[str]:
    """A server on that store that runs no jobs."""
    state = open_state(ServerConfig(concurrency=0))
    sock = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(config_of(state))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    state.close()


@pytest.fixture
def here(store: SqlStore, command_line: Cli) -> Cli:
    """here("list"): `agentrft jobs list` in this process; (exit code, stdout, stderr)."""

    def run(*args: str) -> tuple[int, str, str]:
        code, out, err = command_line("jobs", *args)
        assert "\x1b" not in out + err
        return code, out, err

    return run


@pytest.fixture(params=["here", "at a server"])
def jobs(request: pytest.FixtureRequest, here: Cli) -> Cli:
    """The command, here and at a server."""
    if request.param == "here":
        return here
    url = request.getfixturevalue("url")
    return lambda *args: here(*args, "--server", url)


def test_list_and_show(jobs: Cli) -> None:
    code, out, _ = jobs("list")
    assert (code, JOB[:15] in out, "queued" in out, "reinforcement" in out) == (0, True, True, True)
    code, out, _ = jobs("show", "aaaa")
    assert code == 0
    for word in ("queued", "0.250", "0.500", "careful [red]boo", "step    1", "reward 0.50, 0 calls  (rft on train"):
        assert word in out, word


def test_events_are_shown_oldest_first(jobs: Cli) -> None:
    code, out, _ = jobs("events", JOB)
    assert code == 0
    assert out.index("Created job") < out.index("careful") < out.index("Step 1/2")
    assert len(jobs("events", JOB, "--limit", "1")[1].splitlines()) == 1


def test_pause_resume_and_cancel(jobs: Cli, store: SqlStore) -> None:
    for word, status in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled"), ("cancel", "cancelled")):
        code, out, err = jobs(word, "aaaa")
        assert (code, out.strip()) == (0, f"{JOB} is {status}"), err
        assert store.get_job(JOB)["status"] == status
    code, _, err = jobs("resume", "aaaa")
    assert code == 2
    assert "has cancelled, which is final" in " ".join(err.split())


def test_follow_ends_with_the_job(jobs: Cli, store: SqlStore) -> None:
    def end() -> None:
        time.sleep(0.5)
        store.add_metrics(JOB, 2, {"reward_mean": 0.75})
        store.add_event(JOB, "Step 2/2", data={"step": 2, "total_steps": 2}, type="metrics")
        store.set_job_status(JOB, "failed", error={"code": "x", "message": "the disk is full", "param": None})

    thread = threading.Thread(target=end)
    thread.start()
    code, out, err = jobs("follow", JOB)
    thread.join()
    assert code == 1
    assert "1/2  reward 0.25" in err
    assert "2/2  reward 0.75" in err
    assert "validation after step 1: reward 0.50" in err
    assert "careful [red]boo" in err
    assert "has failed" in out
    assert "the disk is full" in out


def test_episodes_are_filtered_listed_and_exported(jobs: Cli) -> None:
    code, out, _ = jobs("episodes", JOB, "--where", "min_reward=0.25", "--where", "step=1", "--where", "phase=train")
    assert (code, len(out.splitlines())) == (0, 2)
    code, out, _ = jobs("episodes", JOB, "--jsonl")
    lines = [json.loads(line) for line in out.splitlines()]
    assert [line["reward"] for line in lines] == [0.0, 0.25, 0.5]
    assert lines[0]["datasource_item"]["trace"]["spans"]
    for bad in ("step", "step=x", "size=3"):
        code, _, err = jobs("episodes", JOB, "--where", bad)
        assert (code, "expected `FIELD=VALUE`" in err) == (2, True)
    assert "no such episodes" in jobs("episodes", JOB, "--where", "item_id=nothing")[2]


def test_weights_are_downloaded(jobs: Cli, tmp_path: Path) -> None:
    code, out, err = jobs("download", "aaaa", "--checkpoint", "1", "--to", "taken")
    assert code == 0, err
    assert "adapter_model.safetensors" in out
    assert {path.name for path in (tmp_path / "taken").iterdir()} == {
        "adapter_model.safetensors",
        "adapter_config.json",
        "agentrft.json",
    }
    code, _, err = jobs("download", "aaaa", "--checkpoint", "1", "--to", "taken")
    assert (code, "is there already" in err) == (2, True)
    code, _, err = jobs("download", "aaaa", "--checkpoint", "7")
    assert (code, "expected `result`, or one of the steps 1" in " ".join(err.split())) == (2, True)
    code, _, err = jobs("download", "aaaa")  # it has no result yet
    assert code == 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(("aaaabbbb", ".tmp"))]


def test_a_job_that_is_not_there(jobs: Cli) -> None:
    for command in ("show", "events", "pause", "follow"):
        code, _, err = jobs(command, "zzzz")
        assert (code, "no job begins with it" in err) == (2, True)


def test_a_server_that_is_not_there(here: Cli) -> None:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
    code, _, err = here("list", "--server", f"http://127.0.0.1:{port}")
    assert code == 1
    assert f"no answer from http://127.0.0.1:{port}/v1" in " ".join(err.split())
    for bad in ("localhost", "ftp://x", "http://"):
        code, _, err = here("list", "--server", bad)
        assert (code, "expected an address" in err) == (2, True)


def test_the_environment_names_server_and_key(
    here: Cli, url: str, store: SqlStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agentrft.store.keys import Keys

    monkeypatch.setenv(SERVER, f"{url}/v1/")
    assert JOB[:15] in here("list")[1]
    key = Keys(store.database).create("proj_other", ["admin"])[1]
    code, _, err = here("list")
    assert (code, "AGENTRFT_API_KEY" in err) == (2, True)
    monkeypatch.setenv("AGENTRFT_API_KEY", key)
    code, out, _ = here("list")
    assert (code, "no jobs yet" in out) == (0, True)  # it is another project's


def test_a_job_of_this_command_line_says_how_to_go_on(here: Cli, store: SqlStore) -> None:
    mine = "ftjob-bbbbbbbbccccddddeeeeffff"
    store.create_job({"id": mine, "kind": "supervised", "status": "queued", "model": "m", "spec": {}, "base_dir": "/"})
    assert here("pause", "bbbb")[1].strip() == f"{mine} is paused"
    assert f"agentrft run {mine}" in here("resume", "bbbb")[1]
