"""A reinforcement job says in its events where its Python graders run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentrft.jobs.service import create_job
from agentrft.jobs.spec import JobSpec
from agentrft.runtime.training import note_sandboxes
from agentrft.store import open_store


def _python(name: str, isolation: str) -> dict[str, Any]:
    return {"type": "python", "name": name, "source": "def grade(sample, item): return 1", "isolation": isolation}


def _document(kind: str) -> dict[str, Any]:
    own = {"type": "multi", "name": "all", "calculate_output": "part", "graders": {"part": _python("part", "process")}}
    return {
        "model": "m",
        "method": {"type": kind, "reinforcement": {"grader": own}},
        "data": {"train": "t.jsonl", "demonstrations": "d.jsonl"},
        "audit": {"grader": _python("held back", "monty")},
    }


@pytest.mark.parametrize("kind", ["reinforcement", "supervised"])
def test_every_python_grader_that_a_job_uses_has_an_event(tmp_path: Path, kind: str) -> None:
    store = open_store(tmp_path / "home")
    job = create_job(store, JobSpec.model_validate(_document(kind)), tmp_path)
    note_sandboxes(store, job)
    found = [event["message"] for event in store.list_events(job.id) if "runs in" in event["message"]]
    store.close()
    wanted = ["Grader 'part' runs in a plain process", "Grader 'held back' runs in Monty 1."]
    assert len(found) == (len(wanted) if kind == "reinforcement" else 0)
    assert all(message.startswith(start) for message, start in zip(found, wanted, strict=False))
