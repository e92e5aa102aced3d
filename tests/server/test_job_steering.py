"""Jobs that are there already: listed, paused, resumed and cancelled through the real SDK, by whoever may."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import openai
import pytest

from agentrft.jobs.service import create_job
from agentrft.jobs.spec import JobSpec


def add_job(server: Any, *, project: str = "proj_local", **metadata: str) -> str:
    """The id of a queued job that servers run."""
    spec = JobSpec.model_validate({"model": "tiny", "data": {"demonstrations": "d.jsonl"}, "metadata": metadata})
    extra = {"project_id": project, "runner": "server"}
    return create_job(server.state.store, spec, Path("/"), extra=extra).id


def refused(error: pytest.ExceptionInfo[openai.APIStatusError]) -> tuple[str | None, str | None]:
    return error.value.param, error.value.code


def test_lists_have_pages_and_filters(server: Any) -> None:
    jobs = server.openai().fine_tuning.jobs
    made = [add_job(server, **({"n": str(n % 2), "é[x]": "ü&="} if n < 4 else {})) for n in range(5)]
    page = jobs.list(limit=2)
    assert [job.id for job in page.data] == made[:2:-1]
    assert page.has_next_page()
    assert [job.id for job in jobs.list(limit=2)] == made[::-1]
    assert [job.id for job in jobs.list(metadata={"n": "1"})] == [made[3], made[1]]
    assert [job.id for job in jobs.list(metadata={"n": "1"}, limit=1)] == [made[3], made[1]]
    assert [job.id for job in jobs.list(metadata={"n": "0", "é[x]": "ü&="})] == [made[2], made[0]]
    assert jobs.list(metadata={"n": "7"}).data == []
    http = server.http()
    assert [job["id"] for job in http.get("/v1/fine_tuning/jobs?metadata=null").json()["data"]] == [made[4]]
    raw = http.get("/v1/fine_tuning/jobs?limit=2").json()
    assert (set(raw), raw["has_more"]) == ({"object", "data", "has_more"}, True)
    assert http.get("/v1/fine_tuning/jobs?after=ftjob-nosuch").status_code == 404
    for bad in ("limit=0", "limit=101", "limit=x", "metadata=x"):
        assert http.get(f"/v1/fine_tuning/jobs?{bad}").status_code == 400, bad


def test_evaluations_are_no_fine_tuning_jobs(server: Any) -> None:
    first = add_job(server)
    spec = JobSpec.model_validate({"model": "tiny", "data": {}})
    evaluations = [create_job(server.state.store, spec, Path("/"), kind="evaluation").id for _ in range(3)]
    last = add_job(server, n="1")
    jobs = server.openai().fine_tuning.jobs
    assert [job.id for job in jobs.list(limit=1)] == [last, first]
    for steer in (jobs.retrieve, jobs.pause, jobs.cancel):
        with pytest.raises(openai.NotFoundError):
            steer(evaluations[0])


def test_pause_resume_and_cancel(server: Any) -> None:
    jobs = server.openai().fine_tuning.jobs
    job = add_job(server)
    assert [jobs.pause(job).status for _ in range(2)] == ["paused", "paused"]
    assert [jobs.resume(job).status for _ in range(2)] == ["queued", "queued"]
    ended = jobs.cancel(job)
    assert (ended.status, ended.finished_at is not None) == ("cancelled", True)
    assert jobs.cancel(job) == ended
    for steer in (jobs.pause, jobs.resume):
        with pytest.raises(openai.BadRequestError) as error:
            steer(job)
        assert refused(error) == ("fine_tuning_job_id", "illegal_transition")
    messages = [event.message for event in jobs.list_events(job)][::-1]
    assert [text.split(" is now ")[1] for text in messages if " is now " in text] == ["paused", "queued", "cancelled"]


def test_pause_waits_for_the_worker(server: Any) -> None:
    job, store = add_job(server), server.state.store
    claimed = store.claim_next("here:1", 60.0)
    assert claimed is not None
    assert claimed[0] == job
    fenced = store.fenced(*claimed)

    def work() -> None:
        while store.get_job(job)["wish"] != "pause":
            time.sleep(0.01)
        fenced.set_job_status(job, "paused")

    worker = threading.Thread(target=work)
    worker.start()
    assert server.openai().fine_tuning.jobs.pause(job).status == "paused"
    worker.join()


def test_a_wish_to_pause_can_be_taken_back(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentrft.jobs.control.PAUSE_WAIT_S", 0.2)
    job, store = add_job(server), server.state.store
    assert store.claim_next("here:1", 60.0)
    jobs = server.openai().fine_tuning.jobs
    assert jobs.pause(job).status == "running"  # the truth: its worker has not come to a checkpoint yet
    assert store.get_job(job)["wish"] == "pause"
    assert jobs.resume(job).status == "running"
    assert store.get_job(job)["wish"] is None


def test_a_cancelled_job_keeps_nothing_of_its_worker(server: Any) -> None:
    from agentrft.errors import StoreFault

    job, store = add_job(server), server.state.store
    fenced = store.fenced(*store.claim_next("here:1", 60.0))
    fenced.add_metrics(job, 1, {"loss": 2.0})
    ended = server.openai().fine_tuning.jobs.cancel(job)
    with pytest.raises(StoreFault):
        fenced.add_metrics(job, 2, {"loss": 1.0})
    (file,) = ended.result_files
    assert server.openai().files.content(file).text.splitlines()[1].startswith("1,2.0")


def test_other_tenants_jobs_are_not_there(server: Any) -> None:
    ours, theirs = (server.openai(server.key(project)).fine_tuning.jobs for project in ("proj_a", "proj_b"))
    job = add_job(server, project="proj_a")
    assert list(theirs.list()) == []
    for look in (theirs.retrieve, theirs.pause, theirs.resume, theirs.cancel, theirs.list_events):
        with pytest.raises(openai.NotFoundError) as error:
            look(job)
        with pytest.raises(openai.NotFoundError) as nothing:
            look("ftjob-aaaabbbbccccddddeeeeffff")
        assert refused(error) == refused(nothing)
    with pytest.raises(openai.NotFoundError):
        theirs.checkpoints.list(job)
    assert ours.retrieve(job).status == "queued"


def test_keys_need_the_scope(server: Any) -> None:
    job = add_job(server, project="proj_a")
    reader = server.openai(server.key("proj_a", "jobs:read")).fine_tuning.jobs
    assert [one.id for one in reader.list()] == [job]
    for steer in (reader.pause, reader.resume, reader.cancel):
        with pytest.raises(openai.PermissionDeniedError):
            steer(job)
    nobody = server.openai(server.key("proj_a", "files:read")).fine_tuning.jobs
    with pytest.raises(openai.PermissionDeniedError):
        nobody.retrieve(job)
