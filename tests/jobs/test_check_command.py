"""Every kind of bad input through the command line: one short message, no traceback, exit code 2, nothing stored."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft.cli import main
from agentrft.store import open_store

MakeJob = Callable[..., Path]

TEMPLATE_GRADER = {
    "type": "string_check",
    "name": "exact",
    "operation": "eq",
    "input": "{{sample.output_text}}",
    "reference": "{{item.meening}}",
}
UNTYPED_TOOL = "def look(word):\n    return word\n"


def break_line_17(job: Path) -> None:
    lines = (job.parent / "train.jsonl").read_text().splitlines()
    lines[16] = lines[16][:-1]
    (job.parent / "train.jsonl").write_text("\n".join(lines))


def lengthen_a_row(job: Path) -> None:
    row = {"messages": [{"role": "user", "content": "word " * 200}], "word": "w", "meaning": "m"}
    (job.parent / "test.jsonl").write_text(json.dumps(row) + "\n")


def nothing(job: Path) -> None:
    pass


BAD = {
    "missing file": ({"data.train": "trian.jsonl"}, {}, nothing, ["trian.jsonl", "no such file"]),
    "malformed line 17": ({}, {}, break_line_17, ["train.jsonl, line 17", "not JSON"]),
    "unknown key": ({"training.group_sise": 4}, {}, nothing, ["group_sise", "`group_size`?", "line"]),
    "missing column": ({"method.reinforcement.grader": TEMPLATE_GRADER}, {}, nothing, ["item.meening", "meaning"]),
    "tool without schema": ({}, {"tools__py": UNTYPED_TOOL}, nothing, ["look", "word"]),
    "no such model": ({"model": "smollm9"}, {}, nothing, ["smollm9"]),
    "context overflow": ({}, {}, lengthen_a_row, ["test.jsonl, line 1", "no room for a reply"]),
}


def run_main(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["agentrft", *args])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_a_message_and_exit_code_2(
    kind: str,
    command: str,
    make_job: MakeJob,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))
    changes, files, spoil, words = BAD[kind]
    job = make_job(changes, **files)
    spoil(job)
    assert run_main(monkeypatch, command, str(job)) == 2
    message = capsys.readouterr().err
    assert message.count("error: ") >= 1
    assert "Traceback" not in message
    for word in words:
        assert word in message
    store = open_store()
    assert store.list_jobs() == []
    store.close()


def test_a_good_job_passes(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, "check", str(make_job())) == 0
    assert "the job can run" in capsys.readouterr().out
