"""What every store must do, run over SQLite and a real PostgreSQL server."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Callable
from typing import Any

import pytest

from agentrft.errors import StoreFault, UserError
from agentrft.store import SqlStore, open_store
from agentrft.testing import FakeClock

NOW = 1_700_000_000.0


def messages(store: SqlStore, job_id: str = "ftjob-a") -> list[str]:
    return [event["message"] for event in store.list_events(job_id)]


# Jobs


def test_a_job_comes_back_as_it_was_given(store: SqlStore) -> None:
    document = {
        "id": "ftjob-b",
        "model": "m",
        "method": {"type": "reinforcement", "lr": 3e-4},
        "suffix": "é☃\x00\ud800",
    }
    store.create_job(document)
    assert store.get_job("ftjob-b") == {
        **document,
        "status": "validating_files",
        "created_at": NOW,
        "finished_at": None,
        "error": None,
        "owner": None,
        "lease_until": None,
        "project_id": "proj_local",
        "runner": "cli",
        "wish": None,
        "restarts": 0,
    }
    assert messages(store, "ftjob-b") == ["Created job ftjob-b"]


def test_a_job_id_is_used_once(store: SqlStore) -> None:
    with pytest.raises(UserError, match="job ftjob-a exists already") as caught:
        store.create_job({"id": "ftjob-a", "model": "other"})
    assert caught.value.code == "job_exists"
    assert store.get_job("ftjob-a")["model"] == "m"
    assert messages(store) == ["Created job ftjob-a"]


def test_jobs_are_listed_newest_first_page_by_page(store: SqlStore) -> None:
    for name in "bcde":
        store.create_job({"id": f"ftjob-{name}"})
    assert [job["id"] for job in store.list_jobs()] == ["ftjob-e", "ftjob-d", "ftjob-c", "ftjob-b", "ftjob-a"]
    assert [job["id"] for job in store.list_jobs(limit=2)] == ["ftjob-e", "ftjob-d"]
    assert [job["id"] for job in store.list_jobs(limit=2, after="ftjob-d")] == ["ftjob-c", "ftjob-b"]
    assert store.list_jobs(after="ftjob-a") == []


def test_update_sets_keys_of_the_document_only(store: SqlStore) -> None:
    store.update_job("ftjob-a", {"fine_tuned_model": "ft:m", "model": "m2"})
    assert store.get_job("ftjob-a")["fine_tuned_model"] == "ft:m"
    assert store.get_job("ftjob-a")["model"] == "m2"
    with pytest.raises(ValueError, match="cannot set id, status"):
        store.update_job("ftjob-a", {"status": "succeeded", "id": "x"})


@pytest.mark.parametrize(
    "use",
    [
        lambda store: store.get_job("nope"),
        lambda store: store.list_jobs(after="nope"),
        lambda store: store.update_job("nope", {}),
        lambda store: store.set_job_status("nope", "queued"),
        lambda store: store.claim_job("nope", "me", 1.0),
        lambda store: store.heartbeat("nope", 1, 1.0),
        lambda store: store.release_job("nope", 1),
        lambda store: store.add_event("nope", "hello"),
        lambda store: store.list_events("nope"),
        lambda store: store.add_metrics("nope", 1, {"x": 1.0}),
        lambda store: store.list_metrics("nope"),
        lambda store: store.add_checkpoint("nope", 1, "p", {}),
        lambda store: store.list_checkpoints("nope"),
        lambda store: store.add_episodes("nope", []),
        lambda store: store.list_episodes("nope"),
        lambda store: store.get_episode("nope"),
    ],
)
def test_unknown_ids_are_the_users_mistake(store: SqlStore, use: Callable[[SqlStore], Any]) -> None:
    with pytest.raises(UserError, match=r"no (job|episode) 'nope' in .*; `agentrft jobs") as caught:
        use(store)
    assert caught.value.code == "not_found"


# Status


def test_a_status_changes_with_its_event_and_ends_once(store: SqlStore, clock: FakeClock) -> None:
    store.set_job_status("ftjob-a", "queued")
    store.set_job_status("ftjob-a", "running")
    clock.advance(60)
    store.set_job_status("ftjob-a", "failed", error={"code": "grader_failed", "message": "no grade", "param": None})
    job = store.get_job("ftjob-a")
    assert (job["status"], job["finished_at"]) == ("failed", NOW + 60)
    assert job["error"] == {"code": "grader_failed", "message": "no grade", "param": None}
    assert messages(store)[1:] == ["Job is now queued", "Job is now running", "Job is now failed: no grade"]
    last = store.list_events("ftjob-a")[-1]
    assert (last["level"], last["data"]) == ("error", {"from": "running", "status": "failed"})


def test_an_illegal_step_changes_nothing(store: SqlStore) -> None:
    with pytest.raises(UserError, match="is validating_files and cannot become running") as caught:
        store.set_job_status("ftjob-a", "running")
    assert (caught.value.code, caught.value.param) == ("illegal_transition", "status")
    assert store.get_job("ftjob-a")["status"] == "validating_files"
    assert messages(store) == ["Created job ftjob-a"]


def test_the_same_status_again_writes_no_event(store: SqlStore) -> None:
    store.set_job_status("ftjob-a", "queued")
    store.set_job_status("ftjob-a", "queued")
    assert messages(store) == ["Created job ftjob-a", "Job is now queued"]


def test_resuming_clears_the_reason_of_the_pause(store: SqlStore) -> None:
    store.set_job_status("ftjob-a", "queued")
    store.set_job_status("ftjob-a", "paused", error={"message": "the tool is down"})
    assert messages(store)[-1] == "Job is now paused: the tool is down"
    store.set_job_status("ftjob-a", "queued")
    assert store.get_job("ftjob-a")["error"] is None


# Leases and fencing tokens


def test_each_claim_gets_a_higher_token(store: SqlStore) -> None:
    assert [store.claim_job("ftjob-a", "me", 60.0) for _ in range(3)] == [1, 2, 3]
    job = store.get_job("ftjob-a")
    assert (job["owner"], job["lease_until"]) == ("me", NOW + 60)


def test_a_running_lease_keeps_others_out_until_it_ends(store: SqlStore, clock: FakeClock) -> None:
    token = store.claim_job("ftjob-a", "host-1", 60.0)
    with pytest.raises(UserError, match=r"being worked on by host-1 \(its lease ends in 60 s") as caught:
        store.claim_job("ftjob-a", "host-2", 60.0)
    assert caught.value.code == "job_is_held"
    clock.advance(50)
    store.heartbeat("ftjob-a", token, 60.0)
    clock.advance(50)
    with pytest.raises(UserError, match="its lease ends in 10 s"):
        store.claim_job("ftjob-a", "host-2", 60.0)
    clock.advance(11)
    assert store.claim_job("ftjob-a", "host-2", 60.0) == 2


def test_a_released_job_is_free_at_once(store: SqlStore) -> None:
    store.release_job("ftjob-a", store.claim_job("ftjob-a", "host-1", 60.0))
    assert store.get_job("ftjob-a")["owner"] is None
    assert store.claim_job("ftjob-a", "host-2", 60.0) == 2


WRITES: dict[str, Callable[[SqlStore, Any], Any]] = {
    "status": lambda store, _: store.set_job_status("ftjob-a", "queued"),
    "update": lambda store, _: store.update_job("ftjob-a", {"model": "stale"}),
    "event": lambda store, _: store.add_event("ftjob-a", "stale"),
    "metrics": lambda store, _: store.add_metrics("ftjob-a", 1, {"x": 1.0}),
    "checkpoint": lambda store, _: store.add_checkpoint("ftjob-a", 1, "stale", {}),
    "episodes": lambda store, make_record: store.add_episodes("ftjob-a", [make_record("ftjob-a", "ep_1")]),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_nothing_of_a_stale_token_is_kept(
    store: SqlStore, write: Callable[[SqlStore, Any], Any], make_record: Any
) -> None:
    def everything() -> list[Any]:
        lists = (store.list_events, store.list_metrics, store.list_checkpoints, store.list_episodes)
        return [store.get_job("ftjob-a"), *(read("ftjob-a") for read in lists)]

    old = store.fenced("ftjob-a", store.claim_job("ftjob-a", "me", 60.0))
    new = store.fenced("ftjob-a", store.claim_job("ftjob-a", "me", 60.0))
    before = everything()
    with pytest.raises(StoreFault, match=r"claimed by me \(token 2\); this process holds the older token 1"):
        write(old, make_record)
    assert everything() == before
    write(new, make_record)
    assert everything() != before


def test_a_stale_token_neither_renews_nor_releases(store: SqlStore) -> None:
    old = store.claim_job("ftjob-a", "me", 60.0)
    store.claim_job("ftjob-a", "me", 60.0)
    with pytest.raises(StoreFault, match="older token 1"):
        store.heartbeat("ftjob-a", old, 600.0)
    with pytest.raises(StoreFault, match="older token 1"):
        store.release_job("ftjob-a", old)
    job = store.get_job("ftjob-a")
    assert (job["owner"], job["lease_until"]) == ("me", NOW + 60)


def test_a_fenced_view_writes_to_its_own_job_only(store: SqlStore) -> None:
    view = store.fenced("ftjob-a", store.claim_job("ftjob-a", "me", 60.0))
    store.create_job({"id": "ftjob-b"})
    with pytest.raises(ValueError, match="may write to ftjob-a only, got ftjob-b"):
        view.add_event("ftjob-b", "hello")
    assert view.get_job("ftjob-b")["id"] == "ftjob-b"


# Events, metrics, checkpoints


def test_events_keep_their_order_although_the_clock_goes_back(store: SqlStore, clock: FakeClock) -> None:
    store.add_event("ftjob-a", "first", level="warn", data={"loss": math.nan, "parts": [1.5, math.inf], "n": 2})
    clock.advance(-3600)
    store.add_event("ftjob-a", "odd \x00 \ud800 ☃")
    first, odd = store.list_events("ftjob-a")[1:]
    assert (first["message"], first["level"], first["created_at"]) == ("first", "warn", NOW)
    assert first["data"] == {"loss": None, "parts": [1.5, None], "n": 2}
    assert (odd["message"], odd["data"]) == ("odd \ufffd ? ☃", None)
    assert first["id"].startswith("ftevent-")
    assert first["id"] < odd["id"]


def test_metrics_of_a_step_add_up_and_replace(store: SqlStore) -> None:
    store.add_metrics("ftjob-a", 2, {"reward_mean": 0.1 + 0.2, "loss": math.nan})
    store.add_metrics("ftjob-a", 1, {"loss": -math.inf, "tiny": 5e-324})
    store.add_metrics("ftjob-a", 2, {"valid": 1, "loss": 2.0})
    store.add_metrics("ftjob-a", 3, {})
    assert store.list_metrics("ftjob-a") == [
        {"step": 1, "metrics": {"loss": None, "tiny": 5e-324}},
        {"step": 2, "metrics": {"loss": 2.0, "reward_mean": 0.30000000000000004, "valid": 1.0}},
    ]


def test_metrics_of_some_steps_only(store: SqlStore) -> None:
    for step in range(5):
        store.add_metrics("ftjob-a", step, {"loss": 1.0, "nll": 2.0})

    def steps(**which: Any) -> list[int]:
        found = store.list_metrics("ftjob-a", **which)
        assert all(entry["metrics"] == {"loss": 1.0, "nll": 2.0} for entry in found)
        return [entry["step"] for entry in found]

    assert steps(after=-1, limit=3) == [0, 1, 2]
    assert steps(after=2) == [3, 4]
    assert steps(steps=[4, 1, 9]) == [1, 4]
    assert steps(steps=[4, 1, 2], after=1, limit=1) == [2]
    assert steps(steps=[]) == steps(after=4) == []


def test_a_checkpoint_of_the_same_step_replaces_it(store: SqlStore, clock: FakeClock) -> None:
    later = store.add_checkpoint("ftjob-a", 8, "step-8", {"reward_mean": 0.5})
    first = store.add_checkpoint("ftjob-a", 4, "step-4", {"loss": math.nan})
    clock.advance(1)
    assert store.add_checkpoint("ftjob-a", 8, "step-8-again", {"reward_mean": 0.75}) == later
    assert first.startswith("ftckpt_")
    assert store.list_checkpoints("ftjob-a") == [
        {"id": first, "step": 4, "path": "step-4", "metrics": {"loss": None}, "created_at": NOW},
        {"id": later, "step": 8, "path": "step-8-again", "metrics": {"reward_mean": 0.75}, "created_at": NOW + 1},
    ]


# Episodes


def test_an_episode_comes_back_exactly(store: SqlStore, make_record: Any) -> None:
    record = make_record("ftjob-a", "ep_1", item_id="row-\x00\ud800")
    store.add_episodes("ftjob-a", [record])
    assert store.get_episode("ep_1") == record


def test_an_episode_is_found_by_the_beginning_of_its_id(store: SqlStore, make_record: Any) -> None:
    store.add_episodes("ftjob-a", [make_record("ftjob-a", name) for name in ("ep_12ab", "ep_12cd", "ep_1_ab")])
    assert store.find_episode("ep_12a") == "ep_12ab"
    assert store.find_episode("12c") == "ep_12cd"
    assert store.find_episode("ep_1_") == "ep_1_ab"  # an underscore stands for itself
    with pytest.raises(UserError, match=r"several begin so \(ep_12"):
        store.find_episode("12")
    with pytest.raises(UserError, match="none begins so") as caught:
        store.find_episode("%")
    assert caught.value.code == "not_found"


def test_the_same_episode_again_is_replaced_in_place(store: SqlStore, make_record: Any) -> None:
    first, second = make_record("ftjob-a", "ep_1"), make_record("ftjob-a", "ep_2")
    store.add_episodes("ftjob-a", [first, second])
    again = dataclasses.replace(first, reward=None)
    store.add_episodes("ftjob-a", [again])
    assert store.list_episodes("ftjob-a") == [again, second]


def test_episodes_are_listed_by_step_in_the_order_added(store: SqlStore, make_record: Any) -> None:
    places = [(2, "row-10"), (2, "Row-2"), (1, "row-3"), (2, "é"), (1, "row-1")]
    records = [make_record("ftjob-a", f"ep_{n}", step=step, item_id=item) for n, (step, item) in enumerate(places)]
    store.add_episodes("ftjob-a", records)
    assert [record.episode.id for record in store.list_episodes("ftjob-a")] == ["ep_2", "ep_4", "ep_0", "ep_1", "ep_3"]
    assert [record.episode.id for record in store.list_episodes("ftjob-a", step=2, limit=2)] == ["ep_0", "ep_1"]
    assert store.list_episodes("ftjob-a", step=5) == []


def test_episodes_are_stored_all_or_none(store: SqlStore, make_record: Any) -> None:
    store.create_job({"id": "ftjob-b"})
    store.add_episodes("ftjob-b", [make_record("ftjob-b", "ep_b")])
    with pytest.raises(ValueError, match=r"episode ep_b of .*'ftjob-a', 'train', 'rft'.* already stored as one of"):
        store.add_episodes("ftjob-a", [make_record("ftjob-a", "ep_a"), make_record("ftjob-a", "ep_b")])
    assert store.list_episodes("ftjob-a") == []
    assert store.get_episode("ep_b").job_id == "ftjob-b"


def test_one_id_cannot_name_episodes_of_two_stages(store: SqlStore, make_record: Any) -> None:
    record = make_record("ftjob-a", "ep_1")
    with pytest.raises(ValueError, match="already stored as one of"):
        store.add_episodes("ftjob-a", [record, dataclasses.replace(record, stage="base")])
    with pytest.raises(ValueError, match="episodes of ftjob-x cannot be stored under ftjob-a"):
        store.add_episodes("ftjob-a", [dataclasses.replace(record, job_id="ftjob-x")])


# Durability and concurrency


def test_everything_is_there_after_reopening(store: SqlStore, store_url: str, make_record: Any) -> None:
    record = make_record("ftjob-a", "ep_1")
    store.add_episodes("ftjob-a", [record])
    store.add_metrics("ftjob-a", 1, {"loss": 0.25})
    store.close()
    again = open_store(store_url)
    assert again.get_episode("ep_1") == record
    assert again.list_metrics("ftjob-a") == [{"step": 1, "metrics": {"loss": 0.25}}]
    again.close()
    again.close()


def test_threads_share_a_store(store: SqlStore) -> None:
    def work(name: str) -> None:
        for i in range(10):
            store.add_event("ftjob-a", f"{name} {i}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "wxyz"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = messages(store)[1:]
    assert len(written) == 40
    assert [message for message in written if message.startswith("x")] == [f"x {i}" for i in range(10)]


def test_processes_that_open_and_write_at_once_lose_nothing(
    store_url: str, start_worker: Callable[..., Any], make_record: Any
) -> None:
    # Nobody has opened this store before: three processes migrate it at the same moment, then wait for the job.
    processes = [start_worker(name, "claim", 0) for name in ("a", "b", "c")]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    store = open_store(store_url)
    store.create_job({"id": "ftjob-a"})
    processes = [start_worker(name, "write", 8) for name in ("a", "b", "c")]
    acks = sorted(line for process in processes for line in process.communicate(timeout=60)[0].splitlines())
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert len(acks) == 3 * 8 * 3
    assert len(messages(store)) == 1 + 24
    assert store.list_metrics("ftjob-a") == [
        {"step": i, "metrics": dict.fromkeys(("a", "b", "c"), float(i))} for i in range(8)
    ]
    assert len(store.list_episodes("ftjob-a", limit=1000)) == 72
    assert store.get_episode("ep_b_5_2") == make_record("ftjob-a", "ep_b_5_2", step=5)
    store.close()


def test_of_processes_that_claim_at_once_one_gets_the_job(store_url: str, start_worker: Callable[..., Any]) -> None:
    store = open_store(store_url)
    store.create_job({"id": "ftjob-a"})
    processes = [start_worker(name, "claim", 1) for name in ("a", "b", "c", "d")]
    answers = sorted(process.communicate(timeout=60)[0].strip() for process in processes)
    assert answers == ["1", "held", "held", "held"]
    store.close()
