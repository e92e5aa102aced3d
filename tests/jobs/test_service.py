from collections.abc import Iterator
from pathlib import Path

import pytest

from agentrft.errors import UserError
from agentrft.jobs.load import parse_job
from agentrft.jobs.service import create_job, find_job, result_name, stored_job, write_job_file
from agentrft.jobs.spec import Data, JobSpec
from agentrft.runtime.summary import job_report
from agentrft.store import SqlStore, open_store

SPEC = JobSpec(model="owner/Tiny_Model", suffix="Words", data=Data())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqlStore]:
    opened = open_store(tmp_path)
    yield opened
    opened.close()


def test_a_job_comes_back_as_it_was_made(store: SqlStore) -> None:
    job = create_job(store, SPEC, Path("/tasks/words"), start_from="other")
    assert (job.kind, job.model, job.status, job.fine_tuned_model) == ("supervised", "other", "queued", None)
    assert stored_job(store, job.id) == job
    assert job.spec == SPEC
    assert job.base_dir == Path("/tasks/words")


def test_ids_depend_on_the_document_and_its_copy_alone(store: SqlStore, tmp_path: Path) -> None:
    first = create_job(store, SPEC, Path("/here"))
    second = create_job(store, SPEC, Path("/here"))
    assert first.id != second.id
    assert len(first.id) == len("ftjob-") + 24
    elsewhere = open_store(tmp_path / "elsewhere")
    assert create_job(elsewhere, SPEC, Path("/there")).id == first.id
    assert create_job(elsewhere, SPEC.model_copy(update={"seed": 1}), Path("/there")).id not in (first.id, second.id)
    elsewhere.close()


def test_the_beginning_of_an_id_is_enough_where_it_is_unique(store: SqlStore) -> None:
    ids = [create_job(store, SPEC, Path("/here")).id for _ in range(3)]
    assert [find_job(store, job_id[:14]) for job_id in ids] == ids
    assert find_job(store, ids[0].removeprefix("ftjob-")) == ids[0]
    with pytest.raises(UserError, match="3 jobs begin with it"):
        find_job(store, "ftjob-")


def test_a_whole_id_is_found_however_many_jobs_are_newer(store: SqlStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = [create_job(store, SPEC, Path("/here")).id for _ in range(3)]
    monkeypatch.setattr("agentrft.jobs.service._MOST_JOBS_SEARCHED", 1)
    assert find_job(store, ids[0]) == ids[0]
    assert find_job(store, ids[0].removeprefix("ftjob-")) == ids[0]
    with pytest.raises(UserError, match="no job begins with it"):
        find_job(store, ids[0][:14])


def test_results_have_names_that_model_ids_allow(store: SqlStore) -> None:
    job = create_job(store, SPEC, Path("/here"))
    assert result_name(job) == f"tiny-model-words-{job.id[6:12]}"


def with_headers(secret: str, **more: object) -> dict[str, object]:
    grader = {"headers": {"Authorization": f"Bearer {secret}"}, "type": "endpoint", "url": "http://h/grade", **more}
    return {
        "model": "owner/tiny",
        "method": {"type": "reinforcement", "reinforcement": {"grader": grader}},
        "data": {"train": "train.jsonl"},
    }


def test_secrets_come_back_from_the_store_and_stand_nowhere_else(store: SqlStore, agentrft_home: Path) -> None:
    secret = "canary-77aa"
    job = create_job(store, parse_job(with_headers(secret)), Path("/tasks"))
    again = stored_job(store, job.id).spec.method.reinforcement
    assert again is not None
    assert again.grader.type == "endpoint"
    assert again.grader.headers["Authorization"].get_secret_value() == f"Bearer {secret}"
    write_job_file(job, Path("/base"), None)
    assert secret not in (job.folder / "job.json").read_text()
    report = job_report(store, job, best_step=None)
    assert secret not in str(report)
    assert ("method.reinforcement.grader.headers.Authorization", "**********") in report.settings
    assert secret not in repr(job)


def test_a_new_secret_is_the_same_job(store: SqlStore, tmp_path: Path) -> None:
    elsewhere = open_store(tmp_path / "elsewhere")
    first, second = (
        create_job(place, parse_job(with_headers(secret)), Path("/tasks"))
        for place, secret in ((store, "old"), (elsewhere, "new"))
    )
    assert first.id == second.id
    elsewhere.close()


@pytest.mark.parametrize(
    "more",
    [
        {"type": "enpoint"},
        {"url": 5},
        {"rate": 1},
        {"headers": ["hush"]},
        {"headers": {"A": ["hush"]}},
        {"type": "multi", "name": "m", "graders": [{"headers": {"A": "hush"}}], "calculate_output": "a"},
        {"type": "multi", "name": "m", "graders": {"a": {"headers": {"A": "hush"}}}, "calculate_output": "a"},
    ],
    ids=str,
)
def test_a_job_that_cannot_be_read_is_not_quoted_with_its_secrets(more: dict[str, object]) -> None:
    with pytest.raises(UserError) as caught:
        parse_job(with_headers("hush", **more))
    assert "hush" not in caught.value.message
    assert "grader" in caught.value.message
