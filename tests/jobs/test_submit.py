"""A create body becomes a stored job or nothing; what takes too long to check is a worker's task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import UserError
from agentrft.jobs.inputs import Inputs
from agentrft.jobs.submit import Terms, submit
from agentrft.net.policy import NetworkPolicy
from agentrft.store import SqlStore, open_store

BODY = {"model": "tiny", "training_file": "file-a"}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Any:
    store = open_store(home)
    yield store
    store.close()


@pytest.fixture
def stored_file(tmp_path: Path) -> Path:
    rows = [
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": f"{n}"}]} for n in range(12)
    ]
    path = tmp_path / "bytes"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def terms(**more: Any) -> Terms:
    return Terms(network=NetworkPolicy.public(), resolve_model=lambda name: "acme/tiny", **more)


def test_what_takes_too_long_to_check_is_checked_by_a_worker(store: SqlStore, stored_file: Path) -> None:
    stored_file.write_text(stored_file.read_text() * 2000)  # a thread that is slower than the caller, whatever the load
    job = submit(store, BODY, project="proj_a", find_file=lambda *_: stored_file, terms=terms(check_s=0.0))
    assert (job["status"], job["runner"], job["project_id"]) == ("validating_files", "server", "proj_a")
    folder = Path(job["base_dir"])
    assert [path.name for path in folder.iterdir()] == ["file-a.jsonl"]


def test_one_token_is_one_job(store: SqlStore, stored_file: Path, home: Path) -> None:
    def once(token: str, project: str = "proj_a") -> str:
        find = lambda *_: stored_file  # noqa: E731
        return submit(store, BODY, project=project, find_file=find, terms=terms(), token=token)["id"]

    first = once("t1")
    assert once("t1") == first
    assert once("t2") != first
    assert once("t1", "proj_b") != first
    assert len(store.list_jobs()) == len(list((home / "inputs").iterdir())) == 3


def test_nothing_is_left_of_a_job_that_was_refused(store: SqlStore, stored_file: Path, home: Path) -> None:
    stored_file.write_text("nonsense\n" * 12)
    with pytest.raises(UserError) as error:
        submit(store, BODY, project="proj_a", find_file=lambda *_: stored_file, terms=terms())
    assert (error.value.param, error.value.code) == ("training_file", "invalid_row")
    assert "file-a.jsonl, line 1" in error.value.message
    assert str(home) not in error.value.message
    assert store.list_jobs() == []
    assert list((home / "inputs").iterdir()) == []


def test_inputs_are_links_that_outlive_their_source(home: Path, stored_file: Path) -> None:
    with Inputs() as inputs:
        name = inputs.add("file-a", stored_file)
        assert inputs.add("file-a", stored_file) == name
        linked = inputs.folder / name
    assert linked.stat().st_ino == stored_file.stat().st_ino
    text = stored_file.read_text()
    stored_file.unlink()
    assert linked.read_text() == text
