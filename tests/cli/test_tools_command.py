"""`agentrft tools`: what is there, one call, and a replay of recorded episodes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml

from agentrft.jobs.load import load_job
from agentrft.jobs.service import create_job
from agentrft.protocols import EpisodeRecord
from agentrft.store import open_store
from agentrft.types import Episode, Grade, Message, StopReason, ToolCall, ToolResult, Turn

FILENAV = Path(__file__).parents[2] / "examples" / "filenav" / "job.yaml"
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Cli) -> Cli:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")

    return partial(command_line, "tools")


def test_every_tool_is_shown_and_opened(cli: Cli) -> None:
    code, text, _ = cli(str(FILENAV))
    assert code == 0
    assert "grep(text: string, path: string)" in text
    assert "Print lines under PATH that contain TEXT." in text
    assert "✓ 3 tools opened for item" in text


def test_one_call_shows_what_the_model_would_see(cli: Cli) -> None:
    code, text, _ = cli(str(FILENAV), "--call", "ls", "--arguments", '{"path": "/nowhere"}')
    assert code == 0
    assert "error: no folder /nowhere" in text
    assert "1 try" in text
    code, text, _ = cli(str(FILENAV), "--call", "cat", "--arguments", "{}", "--json")
    result = json.loads(text)["result"]
    assert (result["tries"], result["is_error"]) == (0, True)
    assert result["output"].startswith("error: missing path")


def test_a_tool_that_does_not_start_is_a_failure(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(
        'class Broken:\n    def __init__(self, item):\n        raise RuntimeError("no disk")\n'
        '    def look(self) -> str:\n        """Look."""\n        return ""\n'
    )
    job = {"model": "m", "data": {}, "agent": {"tools": [{"type": "python", "target": "tools.py:Broken"}]}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    code, _, errors = cli(str(tmp_path / "job.yaml"))
    assert code == 1
    assert "no disk" in errors


def test_guardrails_are_shown_and_useless_ones_warned_of(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text('def look(word: str) -> str:\n    """Look."""\n    return word\n')
    job = {
        "model": "m",
        "data": {},
        "agent": {"tools": [{"type": "python", "target": "tools.py:look"}]},
        "guardrails": {"tools": {"look": {"max_calls": 2}}, "deny": ["loook"]},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    code, text, errors = cli(str(tmp_path / "job.yaml"))
    assert code == 0
    assert 'guardrails: {"max_calls": 2}' in text
    assert "deny names 'loook', which matches no tool of the job (look)" in errors


def recorded(job_id: str, number: int, *, grade: float, calls: int) -> EpisodeRecord:
    """An episode that made the same call several times."""
    prompt = Message(role="user", content="Find the port.")
    turns, messages = [], [prompt]
    for k in range(calls):
        call = ToolCall(id=f"call_{k}_0", name="ls", arguments='{"path": "/"}')
        reply = Message(role="assistant", tool_calls=(call,))
        turns.append(Turn(reply=reply, results=(ToolResult(call_id=call.id, output="apps/"),)))
        messages += [reply, Message(role="tool", content="apps/", tool_call_id=call.id)]
    episode = Episode(
        id=f"ep_{number:024x}",
        trace_id=f"trace_{number}",
        item_id="validation-0",
        step=0,
        member=number,
        attempt=0,
        messages=tuple(messages),
        turns=tuple(turns),
        stop_reason=StopReason.ANSWERED,
    )
    return EpisodeRecord(job_id=job_id, phase="train", stage="rft", episode=episode, grade=Grade(value=grade))


def test_a_policy_is_tried_on_recorded_episodes(cli: Cli, tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("loops: {same_call_same_result: 2}\n")
    cli(str(FILENAV))  # makes the home
    store = open_store()
    try:
        job = create_job(store, *load_job(FILENAV))
        failed = recorded(job.id, 3, grade=0.0, calls=4)
        records = [
            recorded(job.id, 1, grade=1.0, calls=1),
            recorded(job.id, 2, grade=1.0, calls=3),
            failed,
            dataclasses.replace(recorded(job.id, 4, grade=0.0, calls=9), grade=Grade(value=None, reason="lost")),
        ]
        store.add_episodes(job.id, records)
    finally:
        store.close()
    code, text, errors = cli("replay", job.id, "--policy", str(policy))
    assert code == 0
    assert "2 episodes succeeded, 1 failed" in text
    assert "1/2 (50%)" in text
    assert "1/1 (100%)" in text
    assert "identical call; result unchanged since call #1: apps/" in text
    assert "loops.same_call_same_result would have stopped calls in 1 of 2 successful episodes" in errors
    code, text, _ = cli("replay", job.id, "--policy", str(policy), "--json")
    assert json.loads(text)["rules"][0]["calls"] == 3  # the third of three, the third and fourth of four
    policy.write_text("loops: {same_cal: 2}\n")
    code, _, errors = cli("replay", job.id, "--policy", str(policy))
    assert code == 2
    assert "policy.yaml line 1: unknown key `same_cal` under `guardrails.loops`" in errors
