"""`agentrft run JOB --server URL`: a job file at a live server, watched to its end, its result taken away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command_line: Cli) -> Cli:
    monkeypatch.chdir(tmp_path)

    return command_line


def job_file(folder: Path, **more: Any) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": f"red{n}?"}, {"role": "assistant", "content": f"blue {n}"}]}
        for n in range(12)
    ]
    (folder / "demos.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = {
        "model": "tiny",
        "suffix": "cli",
        "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1, "batch_size": 4}}},
        "data": {"demonstrations": "demos.jsonl"},
        "training": {"lora": {"rank": 4, "alpha": 8}},
        **more,
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(document))
    return path


def test_a_job_file_runs_at_a_server(cli: Cli, served: Any, tmp_path: Path) -> None:
    job = job_file(tmp_path)
    code, out, err = cli("run", str(job), "--server", served.url, "--download", "weights")
    assert code == 0, err
    assert "supervised fine-tuning of tiny" in err
    assert "has succeeded" in out
    assert "trained model: ft:tiny:local:cli:" in out
    assert (tmp_path / "weights" / "adapter_model.safetensors").stat().st_size > 0
    job_id = next(word for word in out.split() if word.startswith("ftjob-"))
    code, out, _ = cli("jobs", "show", job_id, "--server", served.url)
    assert (code, "succeeded" in out, "nll" in out) == (0, True, True)


def test_a_bad_job_is_told_as_the_server_tells_it(cli: Cli, served: Any, tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text("def look(word: str) -> str:\n    '''Look.'''\n    return word\n")
    job = job_file(tmp_path, agent={"tools": [{"type": "python", "target": "tools.py:look"}]})
    code, _, err = cli("run", str(job), "--server", served.url)
    assert code == 2
    assert "not taken over the network" in " ".join(err.split())
    job = job_file(tmp_path, model=str(tmp_path))
    code, _, err = cli("run", str(job), "--server", served.url)
    assert (code, "error: model" in err) == (2, True)
    code, _, err = cli("run", str(job), "--download", "x")
    assert code == 2
