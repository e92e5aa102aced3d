"""Events and metrics of a job: in pages, and as they happen."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from agentrft.store import SqlStore

JOB = "ftjob-aaaabbbbccccddddeeeeffff"
SPEC: Any = {
    "model": "tiny",
    "seed": 1,
    "suffix": None,
    "data": {},
    "method": {"type": "reinforcement", "reinforcement": {}},
    "agent": {"system": None},
}


def add_job(store: SqlStore, job_id: str = JOB, **more: Any) -> None:
    store.create_job({"id": job_id, "kind": "reinforcement", "spec": SPEC, "base_dir": "/", "runner": "server", **more})


@pytest.fixture
def store(server: Any) -> SqlStore:
    """The server's store, with a job that has 25 events."""
    store: SqlStore = server.state.store
    add_job(store, status="queued")
    for n in range(12):
        store.add_event(JOB, f"word {n}", level="warn" if n == 3 else "info")
        store.add_event(JOB, f"Step {n}", data={"step": n, "loss": float("nan")}, type="metrics")
    return store


def test_the_newest_events_come_first_in_pages(server: Any, store: SqlStore) -> None:
    jobs = server.openai().fine_tuning.jobs
    page = jobs.list_events(JOB, limit=4)
    assert [event.message for event in page.data] == ["Step 11", "word 11", "Step 10", "word 10"]
    assert page.has_next_page()
    every = list(jobs.list_events(JOB, limit=4))
    assert len(every) == 25
    assert every[-1].message == f"Created job {JOB}"
    first = page.data[0]
    assert (first.object, first.type, first.level) == ("fine_tuning.job.event", "metrics", "info")
    assert first.data == {"step": 11, "loss": None}
    assert set(type(first).model_fields) == first.model_fields_set
    assert first.model_extra == {}
    raw = server.http().get(f"/v1/fine_tuning/jobs/{JOB}/events").json()
    assert (set(raw), len(raw["data"]), raw["has_more"]) == ({"object", "data", "has_more"}, 20, True)


def test_an_event_that_is_none_cannot_be_gone_on_from(server: Any, store: SqlStore) -> None:
    for after in ("ftevent-x", "nothing", "ftevent-" + "9" * 40):
        with pytest.raises(openai.NotFoundError) as error:
            server.openai().fine_tuning.jobs.list_events(JOB, after=after)
        assert error.value.param == "after"


def streamed(server: Any, job_id: str, *, after: str | None = None) -> Iterator[dict[str, str]]:
    """The fields of each event of the stream, pings left out."""
    headers = {} if after is None else {"last-event-id": after}
    path = f"/v1/fine_tuning/jobs/{job_id}/events?stream=true"
    with server.http(headers=headers).stream("GET", path) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in answer.iter_lines():
            if not line and fields:
                yield fields
                fields = {}
            elif line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value


def test_a_stream_tells_everything_and_ends_with_the_job(server: Any, store: SqlStore) -> None:
    def end() -> None:
        time.sleep(0.3)
        store.add_event(JOB, "late é\n\nword")
        store.cancel_job(JOB)

    thread = threading.Thread(target=end)
    thread.start()
    events = list(streamed(server, JOB))
    thread.join()
    assert events[-1] == {"event": "done", "data": "[DONE]"}
    told = [json.loads(event["data"]) for event in events[:-1]]
    assert [one["message"] for one in told[:2]] == [f"Created job {JOB}", "word 0"]
    assert [one["message"] for one in told[-2:]] == ["late é\n\nword", "Job is now cancelled"]
    assert [one["id"] for one in told] == [event["id"] for event in events[:-1]]
    assert events[2]["event"] == "metrics"


def test_a_broken_stream_goes_on_where_it_was(server: Any, store: SqlStore) -> None:
    for event in streamed(server, JOB):
        if "word 5" in event["data"]:
            last = event["id"]
            break  # the client leaves in the middle
    store.cancel_job(JOB)
    rest = [json.loads(event["data"])["message"] for event in streamed(server, JOB, after=last) if "id" in event]
    assert rest[0] == "Step 5"
    assert rest[-1] == "Job is now cancelled"
    assert len(rest) == 14


def test_streams_of_what_is_not_there_are_errors(server: Any, store: SqlStore) -> None:
    http = server.http()
    assert http.get("/v1/fine_tuning/jobs/ftjob-x/events?stream=true").status_code == 404
    bad = http.get(f"/v1/fine_tuning/jobs/{JOB}/events?stream=true", headers={"last-event-id": "x"})
    assert (bad.status_code, bad.json()["error"]["param"]) == (404, "after")


def test_many_can_follow_and_leave(server: Any, store: SqlStore) -> None:
    clients = [streamed(server, JOB) for _ in range(20)]
    for client in clients:
        assert "Created" in next(client)["data"]
    for client in clients:
        client.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while server.state.metrics.n_in_flight and time.monotonic() < deadline:
        time.sleep(0.05)
    assert server.state.metrics.n_in_flight == 0


def test_metrics_by_step(server: Any, store: SqlStore) -> None:
    for step in range(5):
        store.add_metrics(JOB, step, {"reward_mean": 0.1 * step, "kl": float("inf")})
    http = server.http()
    page = http.get(f"/v1/fine_tuning/jobs/{JOB}/metrics?limit=2").json()
    assert page == {
        "object": "list",
        "data": [{"step": n, "metrics": {"kl": None, "reward_mean": 0.1 * n}} for n in range(2)],
        "has_more": True,
    }
    rest = http.get(f"/v1/fine_tuning/jobs/{JOB}/metrics?after=1").json()
    assert [entry["step"] for entry in rest["data"]] == [2, 3, 4]
    assert not rest["has_more"]
    assert http.get("/v1/fine_tuning/jobs/ftjob-x/metrics").status_code == 404
