"""A job file as a create body, and back: the server gets the job that the file describes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.jobs.create_body import job_from_body
from agentrft.jobs.load import parse_job
from agentrft.jobs.spec import JobSpec
from agentrft.jobs.to_body import body_of

SECRET = "Bearer sk-canary-0123456789"
GRADER = "def grade(sample, item):\n    return 0.5\n"
AGENT: dict[str, Any] = {
    "system": "Be brief.",
    "tools": [{"name": "look", "server_url": "https://example.com/look", "headers": {"Authorization": SECRET}}],
    "limits": {"max_turns": 5, "tool_timeout_s": 3},
}
METHODS: dict[str, dict[str, Any]] = {
    "supervised": {"hyperparameters": {"n_epochs": 3, "learning_rate": 1e-3}},
    "dpo": {"loss": {"type": "simpo"}, "patience": 2},
    "reinforcement": {
        "grader": {
            "type": "multi",
            "name": "both",
            "graders": {
                "code": {"type": "python", "name": "code", "source_file": "grader.py"},
                "exact": {"type": "string_check", "name": "e", "input": "a", "reference": "b", "operation": "eq"},
            },
            "calculate_output": "code + exact",
        },
        "hyperparameters": {"batch_size": 3, "eval_samples": 4},
    },
}
FILES = {
    "supervised": {"demonstrations": "a.jsonl", "demonstrations_validation": "b.jsonl"},
    "dpo": {"preferences": "a.jsonl", "preferences_validation": "b.jsonl"},
    "reinforcement": {"train": "a.jsonl", "validation": "b.jsonl", "test": "c.jsonl", "splits": {"odd": "a.jsonl"}},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({"n": n}) + "\n" for n in range(12)))
    (tmp_path / "grader.py").write_text(GRADER)
    return tmp_path


def job(kind: str, **more: Any) -> JobSpec:
    document = {
        "model": "tiny",
        "suffix": "words",
        "seed": 5,
        "metadata": {"team": "search"},
        "method": {"type": kind, kind: METHODS[kind]},
        "data": FILES[kind],
        "agent": AGENT,
        "training": {"group_size": 6, "lora": None, "warmup_steps": 0},
        **more,
    }
    return parse_job(document)


def back(body: dict[str, Any], folder: Path) -> JobSpec:
    """The job that a server makes of the body, its files under the names that they have here."""
    made = job_from_body(
        json.loads(json.dumps(body)),
        base_dir=folder,
        files=lambda file_id, param: file_id.removeprefix("file-"),
        resolve_model=lambda name: name,
    )
    return made.spec


@pytest.fixture
def upload() -> Callable[[Path], str]:
    return lambda path: f"file-{path.name}"


@pytest.mark.parametrize("kind", METHODS)
def test_the_server_gets_the_same_job(kind: str, folder: Path, upload: Callable[[Path], str]) -> None:
    spec = job(kind)
    got = back(body_of(spec, folder, upload), folder)
    expected = spec.model_dump(context={"secrets": True})
    if kind == "reinforcement":
        code = expected["method"]["reinforcement"]["grader"]["graders"]["code"]
        code |= {"source": GRADER, "source_file": None}
        # OpenAI's words: without `response_format` no answer is read as JSON.
        expected["method"]["reinforcement"]["response_format"] = False
    assert got.model_dump(context={"secrets": True}) == expected


def test_each_file_is_uploaded_once(folder: Path) -> None:
    sent: list[Path] = []

    def upload(path: Path) -> str:
        sent.append(path)
        return f"file-{path.name}"

    body = body_of(job("reinforcement"), folder, upload)
    assert [path.name for path in sent] == ["c.jsonl", "a.jsonl", "b.jsonl"]
    assert (body["training_file"], body["validation_file"]) == ("file-a.jsonl", "file-b.jsonl")
    assert body["method"]["reinforcement"]["data"] == {"test": "file-c.jsonl", "splits": {"odd": "file-a.jsonl"}}


def test_what_is_missing_is_named(folder: Path, upload: Callable[[Path], str]) -> None:
    (folder / "b.jsonl").unlink()
    with pytest.raises(UserError) as error:
        body_of(job("dpo"), folder, upload)
    assert error.value.param == "data.preferences_validation"
    (folder / "grader.py").unlink()
    with pytest.raises(UserError) as error:
        body_of(job("reinforcement"), folder, upload)
    assert "grader.py" in error.value.message
    with pytest.raises(UserError) as error:
        body_of(job("supervised", data={}), folder, upload)
    assert error.value.param == "data.demonstrations"
