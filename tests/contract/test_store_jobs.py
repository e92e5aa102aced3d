"""What schedulers and servers ask of a store's jobs, over SQLite and a real PostgreSQL server."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, select

from agentrft.errors import StoreFault, UserError
from agentrft.protocols import EpisodeFilter, EpisodeRecord
from agentrft.store import SqlStore, open_store
from agentrft.store.schema import DELIVERIES, WEBHOOK_ENDPOINTS, WEBHOOK_EVENTS
from agentrft.testing import FakeClock


def queue(store: SqlStore, *names: str, **fields: Any) -> None:
    for name in names:
        store.create_job({"id": f"ftjob-{name}", "status": "queued", "runner": "server", **fields})


def messages(store: SqlStore, job_id: str) -> list[str]:
    return [event["message"] for event in store.list_events(job_id)]


# Projects


def test_another_projects_job_is_unknown(store: SqlStore) -> None:
    store.create_job({"id": "ftjob-b", "project_id": "proj_1"})
    assert store.get_job("ftjob-b", project="proj_1")["project_id"] == "proj_1"
    for job_id in ("ftjob-a", "ftjob-b"):
        with pytest.raises(UserError, match=f"no job '{job_id}' in this project") as caught:
            store.get_job(job_id, project="proj_2")
        assert caught.value.code == "not_found"


def test_a_project_lists_its_own_jobs(store: SqlStore) -> None:
    for number in range(6):
        store.create_job({"id": f"ftjob-{number}", "project_id": f"proj_{number % 2}"})
    assert [job["id"] for job in store.list_jobs(project="proj_1")] == ["ftjob-5", "ftjob-3", "ftjob-1"]
    assert [job["id"] for job in store.list_jobs(project="proj_1", after="ftjob-5", limit=1)] == ["ftjob-3"]
    with pytest.raises(UserError, match="no job 'ftjob-4' in this project"):
        store.list_jobs(project="proj_1", after="ftjob-4")


def test_jobs_are_found_by_their_metadata(store: SqlStore) -> None:
    for number in range(450):  # more than are read at once
        pairs = {"team": "a", "n": str(number)} if number % 150 == 0 else {}
        store.create_job({"id": f"ftjob-{number}", "spec": {"metadata": pairs}})
    assert [job["id"] for job in store.list_jobs(metadata={"team": "a"})] == ["ftjob-300", "ftjob-150", "ftjob-0"]
    assert [job["id"] for job in store.list_jobs(metadata={"team": "a"}, limit=1, after="ftjob-300")] == ["ftjob-150"]
    assert [job["id"] for job in store.list_jobs(metadata={"team": "a", "n": "150"})] == ["ftjob-150"]
    assert store.list_jobs(metadata={"team": "b"}) == []
    assert [job["id"] for job in store.list_jobs(metadata="null", limit=2)] == ["ftjob-449", "ftjob-448"]


# The queue


def test_the_oldest_queued_job_is_claimed_first(store: SqlStore, clock: FakeClock) -> None:
    queue(store, "b", "c")
    assert store.claim_next("host:1", 30.0) == ("ftjob-b", 1)
    job = store.get_job("ftjob-b")
    assert (job["status"], job["owner"], job["lease_until"]) == ("running", "host:1", clock.now() + 30.0)
    assert store.claim_next("host:1", 30.0) == ("ftjob-c", 1)
    assert store.claim_next("host:1", 30.0) is None
    assert messages(store, "ftjob-b") == ["Created job ftjob-b", "Job is now running"]


def test_jobs_of_the_command_line_and_those_that_wait_are_not_claimed(store: SqlStore) -> None:
    store.create_job({"id": "ftjob-cli", "status": "queued"})
    queue(store, "paused", "held", "checked")
    store.ask("ftjob-paused", "pause")
    store.claim_job("ftjob-held", "other", 30.0)
    store.set_job_status("ftjob-checked", "failed")
    assert store.claim_next("host:1", 30.0) is None
    store.ask("ftjob-paused", None)
    assert store.claim_next("host:1", 30.0) == ("ftjob-paused", 1)


def test_every_job_is_claimed_once(store: SqlStore, store_url: str, clock: FakeClock) -> None:
    queue(store, *map(str, range(60)))
    taken: list[list[str]] = [[] for _ in range(6)]

    def take(mine: list[str]) -> None:
        own = open_store(store_url, clock=clock)
        while claimed := own.claim_next(f"thread {len(taken)}", 30.0):
            mine.append(claimed[0])
        own.close()

    threads = [threading.Thread(target=take, args=(mine,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(job for mine in taken for job in mine) == sorted(f"ftjob-{number}" for number in range(60))


def test_a_lapsed_lease_is_seen_and_its_job_queued_once(store: SqlStore, clock: FakeClock) -> None:
    queue(store, "b")
    _, token = store.claim_next("host:1", 30.0) or ("", 0)
    clock.advance(29.0)
    assert store.lapsed() == []
    clock.advance(2.0)
    assert [(job["id"], job["token"]) for job in store.lapsed()] == [("ftjob-b", token)]
    assert store.requeue("ftjob-b", "Its process died (signal 9).", token=token)
    assert not store.requeue("ftjob-b", "Its process died (signal 9).", token=token)
    job = store.get_job("ftjob-b")
    assert (job["status"], job["owner"], job["restarts"]) == ("queued", None, 1)
    with pytest.raises(StoreFault, match="must stop: nothing it writes is kept"):
        store.fenced("ftjob-b", token).add_event("ftjob-b", "still here")
    assert store.claim_next("host:2", 30.0) == ("ftjob-b", token + 2)
    assert messages(store, "ftjob-b")[2:] == [
        "Its process died (signal 9).",
        "Job is now queued",
        "Job is now running",
    ]


def test_a_new_checkpoint_forgives_restarts(store: SqlStore) -> None:
    queue(store, "b")
    for restart in range(3):
        assert store.get_job("ftjob-b")["restarts"] == restart
        _, token = store.claim_next("host:1", 30.0) or ("", 0)
        store.add_checkpoint("ftjob-b", 0, "step-0", {})
        if restart:
            assert store.get_job("ftjob-b")["restarts"] == restart  # the same step again is no progress
        store.requeue("ftjob-b", "It died.", token=token)
    store.add_checkpoint("ftjob-b", 4, "step-4", {})
    assert store.get_job("ftjob-b")["restarts"] == 0


def test_a_new_owner_can_go_on_with_the_token(store: SqlStore, clock: FakeClock) -> None:
    queue(store, "b")
    job_id, token = store.claim_next("host:1", 30.0) or ("", 0)
    store.heartbeat(job_id, token, 60.0, owner="host:2")
    assert (store.get_job(job_id)["owner"], store.get_job(job_id)["lease_until"]) == ("host:2", clock.now() + 60.0)
    store.heartbeat(job_id, token, 90.0)
    assert store.get_job(job_id)["owner"] == "host:2"


# Wishes


def test_a_wish_is_void_once_it_is_fulfilled(store: SqlStore) -> None:
    queue(store, "b")
    _, token = store.claim_next("host:1", 30.0) or ("", 0)
    store.ask("ftjob-b", "pause")
    assert store.get_job("ftjob-b")["wish"] == "pause"
    store.fenced("ftjob-b", token).set_job_status("ftjob-b", "paused")
    assert store.get_job("ftjob-b")["wish"] is None


def test_a_cancelled_job_is_lost_to_its_owner(store: SqlStore) -> None:
    queue(store, "b")
    _, token = store.claim_next("host:1", 30.0) or ("", 0)
    store.cancel_job("ftjob-b")
    job = store.get_job("ftjob-b")
    assert (job["status"], job["owner"]) == ("cancelled", None)
    with pytest.raises(StoreFault, match="must stop"):
        store.fenced("ftjob-b", token).add_metrics("ftjob-b", 1, {"loss": 1.0})
    with pytest.raises(UserError, match="is cancelled, which is final") as caught:
        store.cancel_job("ftjob-b")
    assert caught.value.code == "illegal_transition"


def test_jobs_are_counted_by_status(store: SqlStore) -> None:
    queue(store, "b", "c")
    assert store.count_jobs() == {"validating_files": 1, "queued": 2}


# Webhooks


def add_endpoint(store: SqlStore, endpoint_id: str, project: str, *types: str) -> None:
    row = {"id": endpoint_id, "project_id": project, "created_at": 0.0, "event_types": list(types), "document": {}}
    with store.database.write() as connection:
        connection.execute(insert(WEBHOOK_ENDPOINTS), row)


def test_a_final_status_is_due_at_the_endpoints_that_want_it(store: SqlStore, clock: FakeClock) -> None:
    for name in ("succeeded", "failed", "cancelled"):
        add_endpoint(store, f"we_{name}", "proj_local", f"fine_tuning.job.{name}")
    add_endpoint(store, "we_other", "proj_other", "fine_tuning.job.failed")
    queue(store, "b")
    store.set_job_status("ftjob-b", "failed", error={"code": "x", "message": "no", "param": None})
    with store.database.read() as connection:
        event = connection.execute(select(WEBHOOK_EVENTS)).one()
        delivery = connection.execute(select(DELIVERIES)).one()
    assert (event.type, event.data, event.project_id) == ("fine_tuning.job.failed", {"id": "ftjob-b"}, "proj_local")
    assert (delivery.event_id, delivery.endpoint_id, delivery.due_at) == (event.id, "we_failed", clock.now())
    assert (delivery.tries, delivery.delivered_at) == (0, None)


# Pages


def test_events_are_paged_from_both_ends(store: SqlStore) -> None:
    for number in range(5):
        store.add_event("ftjob-a", f"event {number}", type="metrics", data={"step": number})
    newest = store.list_events("ftjob-a", limit=2, newest_first=True)
    assert [(event["message"], event["type"]) for event in newest] == [("event 4", "metrics"), ("event 3", "metrics")]
    older = store.list_events("ftjob-a", after=newest[-1]["id"], newest_first=True)
    assert [event["message"] for event in older] == ["event 2", "event 1", "event 0", "Created job ftjob-a"]
    assert older[-1]["type"] == "message"
    assert store.list_events("ftjob-a", after=newest[1]["id"]) == [newest[0]]
    assert store.list_events("ftjob-a", after=f"ftevent-{'9' * 20}") == []
    for strange in ("ftevent-", "ftevent-x", "ftevent-²", f"ftevent-{'9' * 21}", "'"):
        with pytest.raises(UserError, match="no event"):
            store.list_events("ftjob-a", after=strange)


def test_episodes_are_chosen_and_paged(store: SqlStore, make_record: Callable[..., EpisodeRecord]) -> None:
    records = [make_record("ftjob-a", f"ep_{number}", step=number // 2) for number in range(6)]
    store.add_episodes("ftjob-a", records)
    first = store.list_episodes("ftjob-a", limit=4)
    rest = store.list_episodes("ftjob-a", after=first[-1].episode.id)
    assert [one.episode.id for one in [*first, *rest]] == [one.episode.id for one in records]
    assert [one.episode.id for one in store.list_episodes("ftjob-a", step=1)] == ["ep_2", "ep_3"]
    assert store.list_episodes("ftjob-a", wanted=EpisodeFilter(phase="test")) == []
    assert store.list_episodes("ftjob-a", wanted=EpisodeFilter(item_id="no such\x00")) == []
    reward = records[0].reward
    assert reward is not None
    assert len(store.list_episodes("ftjob-a", wanted=EpisodeFilter(min_reward=reward, max_reward=reward))) == 6
    assert store.list_episodes("ftjob-a", wanted=EpisodeFilter(min_reward=reward + 1)) == []
    assert store.list_episodes("ftjob-a", wanted=EpisodeFilter(stop_reason="answered")) == store.list_episodes(
        "ftjob-a"
    )
    with pytest.raises(UserError, match="no episode 'ep_9'"):
        store.list_episodes("ftjob-a", after="ep_9")
