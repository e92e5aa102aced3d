"""What a job that ends leaves: a result file and its usage, once, whoever holds the job; on both databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentrft.errors import StoreFault
from agentrft.home import home
from agentrft.jobs.results import write_result_file
from agentrft.store import Artifacts, SqlStore, open_store
from agentrft.store.files import FileBytes, Files
from agentrft.store.permissions import Permissions

JOB = "ftjob-aaaabbbbccccddddeeeeffff"
MODEL = "ft:tiny:local::aaaabbbb"


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqlStore]:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path))
    store = open_store(request.getfixturevalue("postgres_url") if request.param == "postgres" else None)
    job: dict[str, Any] = {"id": JOB, "kind": "supervised", "runner": "server", "project_id": "proj_a"}
    store.create_job({**job, "status": "queued", "spec": {}})
    yield store
    store.close()


def test_the_holder_of_the_job_writes_its_file_once(store: SqlStore) -> None:
    claimed = store.claim_next("here:1", 60.0)
    assert claimed is not None
    fenced = store.fenced(*claimed)
    assert write_result_file(fenced, JOB) is None  # nothing was measured yet
    fenced.add_metrics(JOB, 1, {"loss": 2.5, "token_accuracy": 0.5, "tokens_trained": 10, "learn_s": 0.25})
    fenced.add_metrics(JOB, 2, {"loss": float("nan"), "tokens_trained": 12, "learn_s": 0.5, "valid_nll": 2.0})
    file_id = write_result_file(fenced, JOB)
    assert file_id is not None
    assert write_result_file(fenced, JOB) == file_id
    job = store.get_job(JOB)
    assert (job["result_files"], job["trained_tokens"]) == ([file_id], 22)
    assert job["usage_metrics"]["training_s"] == 0.75
    files = Files(store.database, FileBytes(Artifacts(home() / "files"), project_bytes=1))
    file = files.get("proj_a", file_id)
    assert (file.filename, file.purpose) == ("step_metrics.csv", "fine-tune-results")
    assert files.path(file).read_text().splitlines() == [
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy",
        "1,2.5,0.5,,",
        "2,,,2.0,",
    ]


def test_who_has_lost_the_job_writes_none(store: SqlStore) -> None:
    fenced = store.fenced(*store.claim_next("here:1", 60.0))  # type: ignore[misc]
    fenced.add_metrics(JOB, 1, {"loss": 2.5})
    store.cancel_job(JOB)
    with pytest.raises(StoreFault):
        write_result_file(fenced, JOB)
    assert not store.get_job(JOB).get("result_files")
    assert list((home() / "files").iterdir()) == []


def test_permissions_on_both_databases(store: SqlStore) -> None:
    permissions = Permissions(store.database)
    made = permissions.create(JOB, MODEL, ["b", "c", "b"])
    assert [one["project_id"] for one in made] == ["b", "c"]
    assert permissions.create(JOB, MODEL, ["c"]) == made[1:]
    assert [one["id"] for one in permissions.list(MODEL, order="ascending", limit=1)] == [made[0]["id"]]
    assert [one["id"] for one in permissions.list(MODEL, order="ascending", after=made[0]["id"])] == [made[1]["id"]]
    assert (permissions.allows(MODEL, "b"), permissions.allows(MODEL, "d")) == (True, False)
    assert permissions.models_of("c") == [(JOB, MODEL)]
    permissions.delete(MODEL, made[0]["id"])
    assert not permissions.allows(MODEL, "b")
