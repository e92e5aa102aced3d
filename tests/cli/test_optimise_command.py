"""`agentrft optimise` and `agentrft apply`, played by a model behind an OpenAI-compatible API on loopback."""

from __future__ import annotations

import hashlib
import json
import runpy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from agentrft.cli.app import app
from agentrft.jobs.check import check_job
from agentrft.jobs.load import load_job

WORLDS = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "optimise" / "worlds.py")))


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    return tmp_path / "home"


def dates(asked: Any) -> dict[str, Any]:
    """The date world's agent: knows the format where the description tells it, and else guesses by the question."""
    body = asked.json()
    question = next(m["content"] for m in body["messages"] if m["role"] == "user")
    results = [m["content"] for m in body["messages"] if m["role"] == "tool"]
    day, month, year = (int(word) for word in question.rstrip("?").split() if word.isdigit())
    if results and results[-1].isdigit():
        return {"content": results[-1]}
    if len(results) == 2:
        return {"content": "unknown"}
    told = body["tools"][0]["function"]["parameters"]["properties"]["day"].get("description", "")
    text = f"{question}/{len(results)}/{len(body['messages'])}"
    draw = hashlib.sha256(text.encode()).digest()[0] % len(WORLDS.FORMATS)
    form = WORLDS.FORMATS[0 if "ISO date" in told else draw]
    arguments = json.dumps({"day": form.format(day, month, year)})
    function = {"name": "orders", "arguments": arguments}
    return {"tool_calls": [{"id": f"c{len(results)}", "type": "function", "function": function}]}


@pytest.fixture
def play(completion: Any) -> Any:
    """What the loopback server answers."""

    def answer(asked: Any) -> Any:
        move = dates(asked)
        reason = "tool_calls" if "tool_calls" in move else "stop"
        return completion(move.pop("content", None), finish_reason=reason, **move)

    return answer


def run(*arguments: Any, **options: Any) -> Any:
    return CliRunner().invoke(app, [str(one) for one in arguments], catch_exceptions=False, **options)


def test_from_the_job_file_to_a_better_one(serve: Any, play: Any, tmp_path: Path, home: Path) -> None:
    server = serve(play)
    task = WORLDS.make_task(tmp_path, WORLDS.DATES, ["orders"], WORLDS.date_row)
    command = ("optimise", task.path, "--budget", 400, "--space", "tools", "--endpoint", f"{server.url}/v1")
    command = (*command, "--endpoint-model", "m")
    done = run(*command)
    assert done.exit_code == 0, done.output
    assert "A better agent: +0." in done.output
    assert "h1  tool:orders:day" in done.output
    (folder,) = (home / "jobs").iterdir()
    assert f"agentrft apply {folder.name}" in done.output
    page = (folder / "report.html").read_text()
    assert "ISO date, e.g. 20" in page
    assert "<script" not in page
    n_asked = len(server.asked)
    again = run(*command, "--json", "-")
    report = json.loads(again.stdout)
    assert (report["verdict"], report["hunks"][0]["id"]) == ("adopted", "h1")
    assert len(server.asked) == n_asked  # nothing is played twice

    before = task.path.read_text()
    refused = run("apply", folder.name, input="n\n")
    assert "nothing was applied" in refused.output
    assert task.path.read_text() == before
    applied = run("apply", folder.name[:14], "--only", "h1")
    assert applied.exit_code == 0, applied.output
    assert "+        day: ISO date, e.g. 20" in applied.output
    assert task.path.read_text().startswith("# The job under test.\n")
    document = yaml.safe_load(task.path.read_text())
    assert document["agent"]["tool_docs"]["orders"]["parameters"]["day"].startswith("ISO date")
    problems = check_job(*load_job(task.path)).problems
    assert [problem.param for problem in problems] == ["model"]  # there is none of that name


def test_what_cannot_be_applied_is_said(tmp_path: Path) -> None:
    def message(*arguments: Any) -> str:
        from agentrft.errors import UserError

        with pytest.raises(UserError) as caught:
            run(*arguments)
        return caught.value.message

    assert "no job begins with it" in message("apply", "ftjob-none")
    hunk = {"id": "h1", "component": "demos", "kind": "demos", "why": "w", "adds": [], "files": {"demos.jsonl": "new"}}
    hunk["sets"] = [[["agent", "demos"], "demos.jsonl"]]
    job = tmp_path / "job.yaml"
    job.write_text("model: m\ndata: {}\n")
    document = {"job": str(job), "job_sha256": "0", "hunks": [hunk]}
    changes = tmp_path / "changes.json"
    changes.write_text(json.dumps(document))
    assert "has changed since it was optimised" in message("apply", changes, "--all")
    assert "there is no hunk 'h2'; expected some of h1" in message("apply", changes, "--force", "--only", "h2")
    (tmp_path / "demos.jsonl").write_text("mine")
    assert "is there already, with other contents" in message("apply", changes, "--force", "--all")
    assert job.read_text() == "model: m\ndata: {}\n"
    (tmp_path / "demos.jsonl").unlink()
    assert run("apply", changes, "--force", "--all").exit_code == 0
    assert (tmp_path / "demos.jsonl").read_text() == "new"


def test_too_few_items_are_too_little_data(serve: Any, play: Any, tmp_path: Path) -> None:
    task = WORLDS.make_task(tmp_path, WORLDS.DATES, ["orders"], WORLDS.date_row)
    rows = (tmp_path / "validation.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "validation.jsonl").write_text("".join(rows[:5]))
    done = run("optimise", task.path, "--endpoint", f"{serve(play).url}/v1", "--endpoint-model", "m")
    assert done.exit_code == 4
    assert "there are 60 items to search with and 5 to confirm on" in done.output
