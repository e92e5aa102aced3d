"""`agentrft diagnose` and `agentrft decide` with a model behind a real HTTP API: figures, Ctrl-C, kill, resume."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrft.jobs.service import stored_job
from agentrft.runtime.diagnosed import latest_diagnosis
from agentrft.store import open_store

TOOLS = '''
class Dictionary:
    """A dictionary of one word."""

    def __init__(self, item: dict) -> None:
        self.item = item

    def look(self, word: str) -> str:
        """Say what WORD means."""
        if word != self.item["word"]:
            raise ValueError(f"no such word: {word}")
        return "it means " + self.item["meaning"]
'''
GRADER = """
def grade(sample, item):
    return 1.0 if sample["output_text"] == item["meaning"] else 0.0
"""
Run = Callable[..., "Result"]


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")
    return tmp_path / "home"


@pytest.fixture
def run(home: Path, command_line: Callable[..., tuple[int, str, str]]) -> Run:
    return lambda *args: Result(*command_line(*args))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """A job of 12 words; half of them are easy for the agent below."""
    folder = tmp_path / "words"
    folder.mkdir()
    (folder / "tools.py").write_text(TOOLS)
    (folder / "grader.py").write_text(GRADER)
    rows = [
        {
            "id": f"w{n}",
            "messages": [{"role": "user", "content": f"What is red{n}?"}],
            "word": f"red{n}",
            "meaning": f"b{n}",
        }
        for n in range(12)
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = {
        "model": "played-by-an-endpoint",
        "method": {
            "type": "reinforcement",
            "reinforcement": {"grader": {"type": "python", "name": "g", "source_file": "grader.py"}},
        },
        "data": {"train": "train.jsonl"},
        "audit": {"probes": False},
        "agent": {"tools": [{"type": "python", "target": "tools.py:Dictionary", "isolation": "inline"}]},
    }
    (folder / "job.yaml").write_text(json.dumps(document))
    return folder / "job.yaml"


def act(asked: Any, count: int) -> dict[str, Any]:
    """Looks the word up under a name that is sometimes wrong, and repeats what it saw."""
    messages = asked.json()["messages"]
    word = messages[0]["content"].split()[-1].rstrip("?")
    draw = hashlib.sha256(f"{word}/{count}".encode()).digest()[0]
    results = [message["content"] for message in messages if message["role"] == "tool"]
    if results and results[-1].startswith("it means "):
        return {"content": results[-1].removeprefix("it means ")}
    if len(results) > 1 or draw < 40:
        return {"content": "I do not know"}
    name = "word" if draw > 120 or int(word[3:]) % 2 == 0 else "name"
    call = {"name": "look", "arguments": json.dumps({name: word})}
    return {"content": None, "tool_calls": [{"id": "c", "type": "function", "function": call}]}


@pytest.fixture
def agent(serve: Any, completion: Any) -> Callable[..., Any]:
    """agent(delay_s=0): a loopback server that plays `act`."""

    def start(delay_s: float = 0.0) -> Any:
        server: Any = None

        def answer(asked: Any) -> Any:
            message = act(asked, len(server.asked) if server else 0)
            usage = {"prompt_tokens": 50, "completion_tokens": 5}
            made = completion(message.pop("content"), usage=usage, **message)
            return type(made)(**{**made.__dict__, "delay_s": delay_s})

        server = serve(answer)
        return server

    return start


def options(server: Any, *more: str) -> list[str]:
    return ["--endpoint", f"{server.url}/v1", "--endpoint-model", "tiny", *more]


def test_a_diagnosis_from_top_to_bottom(run: Run, job: Path, agent: Any, home: Path, tmp_path: Path) -> None:
    job.write_text(job.read_text().replace('"probes": false', '"probes": true'))
    server, page, figures = agent(), tmp_path / "page.html", tmp_path / "d.json"
    more = ("--samples", "6", "--price", "1/10", "--json", str(figures), "--html", str(page))
    result = run("diagnose", str(job), *options(server, *more))
    assert result.code == 0, result.err
    assert "train has only 12 items" in result.err
    assert "episodes to go: about" in result.err
    assert "USD" in result.err
    document = json.loads(figures.read_text())
    assert (document["n_items"], document["n_episodes"], document["model"]) == (12, 72, "tiny")
    assert 0.3 < document["figures"]["pass_at"]["1"]["mean"] < 0.95
    assert document["figures"]["generated_tokens"] > 0
    assert document["grading"] == {
        "repeat": {"icc": 1.0, "episodes": 30, "gradings": 3, "changed": 0, "largest": 0.0},
        "second": None,
        "fooled_by": [],
    }
    kinds = {finding["kind"] for finding in document["failures"]["findings"]}
    assert "bad_args" in kinds
    for words in ("DIAGNOSIS  tiny at http", "pass@6", "what goes wrong", "look"):
        assert words in result.out
    assert max(map(len, result.out.splitlines())) <= 80
    assert page.read_text().startswith("<!doctype html>")
    assert (home / "jobs" / document["job"] / "diagnosis.html").is_file()

    # Complete: it only reports, and asks nobody.
    asked = len(server.asked)
    again = run("diagnose", str(job), *options(server, "--samples", "6", "--json", "-"))
    assert "diagnosed before" in again.err
    assert json.loads(again.out) == document
    assert len(server.asked) == asked

    decision = run("decide", str(job), "--json")
    decided = json.loads(decision.out)
    assert decided["diagnosis"]["job"] == document["job"]
    assert decided["verdict"] in ("optimise", "reinforcement", "collect")
    assert f"{decided['rule']}: " in run("decide", str(job)).out


def test_what_is_kept_can_be_read_back(run: Run, job: Path, agent: Any) -> None:
    run("diagnose", str(job), *options(agent(), "--samples", "4", "--items", "10"))
    run("decide", str(job))
    store = open_store()
    (stored,) = store.list_jobs(limit=5)
    found = latest_diagnosis(stored_job(store, stored["id"]))
    events = [event for event in store.list_events(stored["id"]) if event["data"] and len(event["data"]) == 1]
    store.close()
    assert found is not None
    assert (stored["kind"], stored["status"]) == ("evaluation", "succeeded")
    told = {name: data for event in events for name, data in event["data"].items()}
    assert told["diagnosis"]["bundle"] == found["bundle"]
    assert len(found["bundle"]) == 64
    assert told["diagnosis"]["verdict"] == found["verdict"]
    assert told["decision"]["verdict"]


def test_hostile_replies_are_shown_and_break_nothing(
    run: Run, job: Path, serve: Any, answer: Any, tmp_path: Path
) -> None:
    said = rb"\u0000\u001b[31m\u202e<script>alert(1)</script>"  # NUL, a colour, an override
    choice = b'{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "' + said + b'"}}'
    server = serve(lambda asked: answer(body=b'{"choices": [' + choice + b"]}"))
    page, figures = tmp_path / "page.html", tmp_path / "d.json"
    more = ("--samples", "4", "--json", str(figures), "--html", str(page))
    result = run("diagnose", str(job), *options(server, *more))
    assert result.code == 0, result.err
    assert "NO-GO" in result.out
    assert json.loads(figures.read_text())["verdict"]["rule"] == "out_of_reach"
    assert "\x1b" not in result.out + page.read_text()
    assert "<script>alert" not in page.read_text()
    assert run("decide", str(job)).code == 0


def test_another_agent_needs_another_diagnosis(run: Run, job: Path, agent: Any) -> None:
    server = agent()
    missing = run("decide", str(job))
    assert (missing.code, "no complete diagnosis" in missing.err) == (2, True)
    run("diagnose", str(job), *options(server, "--samples", "4"))
    assert run("decide", str(job)).code in (0, 4)
    job.write_text(job.read_text().replace('"agent": {', '"agent": {"system": "Be brief.", '))
    changed = run("decide", str(job))
    assert changed.code == 2
    assert "changed since" in changed.err


def test_too_little_data_ends_with_4(run: Run, job: Path, agent: Any) -> None:
    result = run("diagnose", str(job), *options(agent(), "--samples", "4", "--items", "3"))
    assert result.code == 4
    assert "TOO LITTLE DATA" in result.out
    assert run("decide", str(job)).code == 4


def test_a_stored_job_keeps_its_diagnosis_too(run: Run, job: Path, agent: Any) -> None:
    from agentrft.jobs.load import load_job
    from agentrft.jobs.service import create_job

    store = open_store()
    spec, base_dir = load_job(str(job))
    mine = create_job(store, spec, base_dir)
    run("diagnose", mine.id, *options(agent(), "--samples", "4"))
    found = latest_diagnosis(mine)
    events = [event["message"] for event in store.list_events(mine.id)]
    status = store.get_job(mine.id)["status"]
    store.close()
    assert found is not None
    assert found["job"] != mine.id
    assert any(message.startswith("Diagnosed: ") for message in events)
    assert status == "queued"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--endpoint", "http://127.0.0.1:9/v1"], "without --endpoint-model"),
        (["--endpoint-model", "m"], "without --endpoint"),
        (["--endpoint", "http://x/v1", "--endpoint-model", "m", "--model", "n"], "expected one of them"),
        (["--endpoint", "no address", "--endpoint-model", "m"], "no address of an API"),
        (["--endpoint", "http://x/v1", "--endpoint-model", "m", "--price", "cheap"], "READ"),
        (["--endpoint", "http://x/v1", "--endpoint-model", "m", "--split", "nope"], "no split 'nope'"),
    ],
)
def test_mistakes_are_told(run: Run, job: Path, args: list[str], words: str) -> None:
    result = run("diagnose", str(job), *args)
    assert result.code == 2
    assert words.lower() in result.err.lower() or "expected usd" in result.err.lower()


def test_an_endpoint_that_is_down_is_no_users_mistake(run: Run, job: Path, serve: Any, answer: Any) -> None:
    server = serve(lambda asked: answer(status=404, body={"error": {"message": "no such model"}}))
    result = run("diagnose", str(job), *options(server, "--samples", "4"))
    assert result.code == 1
    assert "first 16 episodes all failed" in result.err
    assert "no such model" in result.err


def _start(job: Path, server: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "from agentrft.cli import main; main()"]
    return subprocess.Popen(
        [*command, "diagnose", str(job), *options(server, "--samples", "6")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def _played(home: Path) -> int:
    """Episodes in the store so far."""
    if not (home / "store.db").is_file():
        return 0
    store = open_store()
    try:
        return sum(len(store.list_episodes(job["id"], limit=1000)) for job in store.list_jobs(limit=5))
    finally:
        store.close()


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "kill"])
def test_an_interrupted_diagnosis_goes_on_where_it_stopped(
    run: Run, job: Path, agent: Any, home: Path, number: signal.Signals
) -> None:
    server = agent(delay_s=0.15)
    process = _start(job, server)
    _wait_for(lambda: _played(home) >= 8)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL), err
    played, asked = _played(home), len(server.asked)
    assert 8 <= played < 72
    if number == signal.SIGINT:
        assert f"stopped after {played} of 72 episodes" in err
    server.answer, slow = agent().answer, server.answer
    assert slow is not server.answer
    result = run("diagnose", str(job), *options(server, "--samples", "6"))
    assert result.code == 0, result.err
    assert f"{played} of them are there already" in result.err
    # Each of the episodes that are left takes one request at least, and not one that was there takes any.
    assert 72 - played <= len(server.asked) - asked <= 4 * (72 - played)
    assert _played(home) == 72
