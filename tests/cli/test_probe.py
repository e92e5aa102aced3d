"""`agentrft probe` with a model behind a real HTTP API: the value of a decision, in words and as JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrft.protocols import EpisodeRecord
from agentrft.store import open_store

TOOLS = '''
class Doors:
    def __init__(self, item: dict) -> None:
        self.prize, self.opened = item["prize"], []

    def open(self, door: str) -> str:
        """Open DOOR."""
        self.opened.append(door)
        return f"{self.prize if door == 'left' else 'nothing'} behind {self.opened}"

    def snapshot(self) -> list:
        return self.opened

    def restore(self, snapshot: list) -> None:
        self.opened = snapshot
'''
GRADER = """
def grade(sample, item):
    return 1.0 if sample["output_text"] == item["prize"] else 0.0
"""
Run = Callable[..., "Result"]


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Callable[..., tuple[int, str, str]]) -> Run:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))
    return lambda *args: Result(*command_line(*args))


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "doors"
    folder.mkdir()
    (folder / "tools.py").write_text(TOOLS)
    (folder / "grader.py").write_text(GRADER)
    row = {"id": "d1", "messages": [{"role": "user", "content": "Which door?"}], "prize": "gold"}
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n")
    document = {
        "model": "played-by-an-endpoint",
        "method": {
            "type": "reinforcement",
            "reinforcement": {"grader": {"type": "python", "name": "g", "source_file": "grader.py"}},
        },
        "data": {"train": "train.jsonl"},
        "audit": {"probes": False},
        "agent": {"tools": [{"type": "python", "target": "tools.py:Doors", "isolation": "inline"}]},
    }
    (folder / "job.yaml").write_text(json.dumps(document))
    return folder / "job.yaml"


@pytest.fixture
def agent(serve: Any, completion: Any) -> list[str]:
    """Opens one door after the other, left and right in turn, and answers with what the first word of the result is."""
    server: Any = None
    asked_first = 0

    def answer(asked: Any) -> Any:
        nonlocal asked_first
        results = [message["content"] for message in asked.json()["messages"] if message["role"] == "tool"]
        if results:
            return completion(results[-1].split()[0])
        asked_first += 1
        door = "left" if asked_first % 2 else "right"
        call = {"name": "open", "arguments": json.dumps({"door": door})}
        return completion(None, tool_calls=[{"id": "c", "type": "function", "function": call}])

    server = serve(answer)
    return ["--endpoint", f"{server.url}/v1", "--endpoint-model", "tiny"]


def episodes(run: Run, job: Path, agent: list[str]) -> dict[str, EpisodeRecord]:
    """One recorded episode by the door that it opened."""
    assert run("diagnose", str(job), *agent, "--samples", "4").code in (0, 4)
    store = open_store()
    try:
        records = store.list_episodes(store.list_jobs(limit=1)[0]["id"])
    finally:
        store.close()
    return {json.loads(r.episode.turns[0].reply.tool_calls[0].arguments)["door"]: r for r in records}


def test_a_decision_is_valued_and_said_in_a_sentence(run: Run, job: Path, agent: list[str]) -> None:
    recorded = episodes(run, job, agent)
    good = run("probe", recorded["left"].episode.id[:12], "--turn", "1", *agent)
    assert good.code == 0, good.err
    flat = " ".join(good.out.split())
    assert "turn 1 of 2 of ep_" in flat
    assert '→ open {"door":"left"}' in flat
    assert "no call came before it: the state is the recorded one" in flat
    # Anew it opens the good door in 4 of 8 episodes; s² is 2/7, t with 7 degrees of freedom 2.365: ± 0.447.
    assert "deciding anew 0.50 [0.05, 0.95] 8 of 8 graded" in flat
    assert "with this decision 1.00 [1.00, 1.00] 8 of 8 graded" in flat
    assert '4 × earned 1.00 open {"door":"left"} as recorded' in flat
    assert '4 × earned 0.00 open {"door":"right"}' in flat
    assert flat.endswith("This decision raised the expected reward by 0.50 [0.05, 0.95].")
    assert max(map(len, good.out.splitlines())) <= 80

    bad = json.loads(run("probe", recorded["right"].episode.id, "--turn", "1", "--samples", "6", "--json", *agent).out)
    assert (bad["verdict"], bad["difference"]["mean"], bad["model"]) == ("unsure", -0.5, "tiny")
    assert bad["before"] | {"reward": None} == {"reward": None, "episodes": 6, "faults": 0, "ungraded": 0}

    last = run("probe", recorded["left"].episode.id, "--turn", "2", *agent)
    flat = " ".join(last.out.split())
    assert "was made again once, and the tools set back for each continuation: same results as recorded" in flat
    assert flat.endswith("The decision made no difference: every continuation earned 1.00.")

    # The continuations are kept, can be looked at and probed themselves.
    job_id = last.err.split("agentrft jobs episodes ")[1].split()[0]
    store = open_store()
    kept = store.list_episodes(job_id)
    store.close()
    assert len(kept) == 16
    assert {record.extra["continues"]["from"] for record in kept} == {"before", "after"}
    shown = run("show", kept[0].episode.id)
    assert f"goes on from before turn 2 of {recorded['left'].episode.id}" in " ".join(shown.out.split())
    assert run("probe", kept[0].episode.id, "--turn", "1", "--samples", "4", *agent).code == 0


def test_another_world_than_then_is_said(run: Run, job: Path, agent: list[str]) -> None:
    recorded = episodes(run, job, agent)["left"].episode.id
    tools = job.with_name("tools.py")
    tools.write_text(TOOLS.replace("behind", "\\x1b[2Jelsewhere, after"))
    result = run("probe", recorded, "--turn", "2", *agent)
    assert result.code == 0
    assert "no longer give what was recorded" in result.err
    flat = " ".join(result.out.split())
    assert "with OTHER results than recorded in 16 continuations: what follows is about another state" in flat
    assert "then: gold behind ['left']" in flat
    assert "now: gold elsewhere, after ['left']" in flat
    assert "\x1b" not in result.out
    assert "In a state that is not the recorded one, the decision made no difference" in flat


def test_faults_are_counted_and_too_few_grades_say_so(run: Run, job: Path, agent: list[str]) -> None:
    recorded = episodes(run, job, agent)["left"].episode.id
    tools = job.with_name("tools.py")
    tools.write_text(TOOLS.replace("self.opened.append(door)", "raise KeyError(door)"))
    result = run("probe", recorded, "--turn", "1", *agent)
    assert result.code == 4
    assert result.out.count("0 of 8 graded, 8 faults") == 2
    assert "Too few continuations have a grade to say anything: 0 before, 0 after." in " ".join(result.out.split())
    # The call before the second turn cannot even be made.
    assert run("probe", recorded, "--turn", "2", *agent).code == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--turn", "3"), ("there is no turn 3", "1 (open), 2 (text)")),
        (("--turn", "0"), ("there is no turn 0",)),
        (("--turn", "1", "--samples", "3"), ("Invalid value",)),
    ],
)
def test_what_cannot_be_probed_is_a_user_error(
    run: Run, job: Path, agent: list[str], options: tuple[str, ...], words: tuple[str, ...]
) -> None:
    result = run("probe", episodes(run, job, agent)["left"].episode.id, *options, *agent)
    assert result.code == 2
    assert all(word in " ".join(result.err.split()) for word in words)


def test_an_item_that_is_gone_or_changed_is_a_user_error(run: Run, job: Path, agent: list[str]) -> None:
    recorded = episodes(run, job, agent)["left"].episode.id
    rows = job.with_name("train.jsonl")
    text = rows.read_text()
    rows.write_text(text.replace("d1", "d2"))
    gone = run("probe", recorded, "--turn", "1", *agent)
    assert (gone.code, "is in none of the job's files" in gone.err) == (2, True)
    rows.write_text(text.replace("Which door?", "Which one?"))
    changed = run("probe", recorded, "--turn", "1", *agent)
    assert (changed.code, "have changed since" in changed.err) == (2, True)
