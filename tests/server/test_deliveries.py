"""Deliveries of webhook events on a fake clock: retries, receivers that are down or slow, servers that die."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI
from sqlalchemy import select

from agentrft.jobs.vault import Vault, open_vault
from agentrft.net.exchange import WebClient
from agentrft.net.policy import NetworkPolicy
from agentrft.server.deliveries import Deliveries, secret_context, wait_s
from agentrft.store import SqlStore, open_store
from agentrft.store.schema import DELIVERIES
from agentrft.store.trained import Trained
from agentrft.store.webhooks import WebhookEndpoint, Webhooks, new_endpoint_id
from agentrft.testing import FakeClock
from agentrft.testing.web import Behaviour, FaultyServer, answers, drops, hangs, redirects

SUCCEEDED = "fine_tuning.job.succeeded"
SECRET = f"whsec_{base64.b64encode(b'0' * 32).decode()}"
OTHER_SECRET = f"whsec_{base64.b64encode(b'1' * 32).decode()}"


def finish_job(store: SqlStore, job_id: str = "ftjob-a") -> None:
    store.create_job({"id": job_id, "status": "queued"})
    store.set_job_status(job_id, "running")
    store.set_job_status(job_id, "succeeded")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(now=time.time())  # near the real one, because the SDK compares timestamps with that


@pytest.fixture
def store(home: Path, clock: FakeClock) -> Iterator[SqlStore]:
    store = open_store(home, clock=clock)
    yield store
    store.close()


@pytest.fixture
def webhooks(store: SqlStore) -> Webhooks:
    return Webhooks(store.database)


def new_endpoint(webhooks: Webhooks, url: str, vault: Vault) -> WebhookEndpoint:
    endpoint_id = new_endpoint_id()
    sealed = vault.seal(SECRET, secret_context(endpoint_id))
    return webhooks.create(
        "proj_local", endpoint_id, name="n", url=url, event_types=[SUCCEEDED], sealed=sealed, hint="whsec_…0000"
    )


class Sending:
    """Deliveries that run until the block ends."""

    def __init__(self, webhooks: Webhooks, clock: FakeClock) -> None:
        self._client = WebClient(NetworkPolicy.local())
        self._deliveries = Deliveries(webhooks, self._client, open_vault(), clock=clock, poll_s=0.01)

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._deliveries.run())

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self._client.close()


def open_deliveries(store: SqlStore) -> list[Any]:
    with store.database.read() as connection:
        rows = connection.execute(select(DELIVERIES).order_by(DELIVERIES.c.seq)).all()
    return [row for row in rows if row.delivered_at is None and row.given_up_at is None]


async def soon(is_so: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110  the store tells nobody when it changes
            await asyncio.sleep(0.01)


async def settled(store: SqlStore) -> None:
    await soon(lambda: not open_deliveries(store))


def is_leased(delivery: Any, clock: FakeClock) -> bool:
    """Somebody is sending it: a lease takes 60 s, which no wait between tries does."""
    return 59 < delivery.due_at - clock.now() <= 60


async def tried(store: SqlStore, clock: FakeClock, tries: int) -> None:
    """Wait until the first open delivery has failed so often and waits for its next try."""

    def has_failed() -> bool:
        first = open_deliveries(store)[0]
        return first.tries == tries and not is_leased(first, clock)

    await soon(has_failed)


async def test_a_receiver_that_comes_back_gets_the_same_event(
    store: SqlStore, webhooks: Webhooks, clock: FakeClock
) -> None:
    receiver = FaultyServer(answers(status=204))
    await receiver.start()
    await receiver.stop()
    new_endpoint(webhooks, receiver.url, open_vault())
    finish_job(store)
    async with Sending(webhooks, clock):
        await tried(store, clock, 1)
        clock.advance(6)
        await tried(store, clock, 2)
        await receiver.start()
        clock.advance(16)
        await settled(store)
    await receiver.stop()
    assert len(receiver.requests) == 1


async def test_each_try_has_the_same_id_and_its_own_time(store: SqlStore, webhooks: Webhooks, clock: FakeClock) -> None:
    behaviours: list[Behaviour] = [answers(status=500), drops, redirects("http://127.0.0.1:1/"), answers(status=200)]
    async with FaultyServer(*behaviours) as receiver, Sending(webhooks, clock):
        new_endpoint(webhooks, receiver.url, open_vault())
        finish_job(store)
        for tries in (1, 2, 3):
            await tried(store, clock, tries)
            clock.advance(46)
        await settled(store)
    first, *others = receiver.requests
    assert len(others) == 3
    assert {request.headers["webhook-id"] for request in others} == {first.headers["webhook-id"]}
    assert {request.body for request in others} == {first.body}
    stamps = [int(request.headers["webhook-timestamp"]) for request in receiver.requests]
    assert [stamp - stamps[0] for stamp in stamps] == [0, 46, 92, 138]
    with OpenAI(base_url="http://127.0.0.1:1/v1", api_key="none") as client:
        for request in receiver.requests:
            client.webhooks.verify_signature(request.body, dict(request.headers), secret=SECRET)


async def test_after_a_day_it_is_given_up(store: SqlStore, webhooks: Webhooks, clock: FakeClock) -> None:
    async with FaultyServer(answers(status=503)) as receiver, Sending(webhooks, clock):
        new_endpoint(webhooks, receiver.url, open_vault())
        finish_job(store)
        tries = 0
        while found := open_deliveries(store):
            if found[0].tries > tries and not is_leased(found[0], clock):
                tries = found[0].tries
                clock.advance(found[0].due_at - clock.now() + 0.01)
            await asyncio.sleep(0.01)
    # 5 s, 15 s, 45 s … 10,935 s, then 4 h each: 13 or 14 tries in 24 h, by how much the waits are shortened at random
    assert 12 <= len(receiver.requests) <= 15
    last = int(receiver.requests[-1].headers["webhook-timestamp"])
    assert last - int(receiver.requests[0].headers["webhook-timestamp"]) == pytest.approx(24 * 3600, abs=2)


async def test_gone_ends_it_at_once(store: SqlStore, webhooks: Webhooks, clock: FakeClock) -> None:
    async with FaultyServer(answers(status=410)) as receiver, Sending(webhooks, clock):
        new_endpoint(webhooks, receiver.url, open_vault())
        finish_job(store)
        await settled(store)
    assert len(receiver.requests) == 1


async def test_retry_after_is_honoured(store: SqlStore, webhooks: Webhooks, clock: FakeClock) -> None:
    busy = answers(status=429, headers={"Retry-After": "50"})
    async with FaultyServer(busy, answers(status=200)) as receiver, Sending(webhooks, clock):
        new_endpoint(webhooks, receiver.url, open_vault())
        finish_job(store)
        await tried(store, clock, 1)
        assert open_deliveries(store)[0].due_at == pytest.approx(clock.now() + 50, abs=1)
        clock.advance(51)
        await settled(store)


async def test_a_receiver_that_hangs_holds_up_no_other(store: SqlStore, webhooks: Webhooks, clock: FakeClock) -> None:
    async with (
        FaultyServer(hangs) as slow,
        FaultyServer(answers(status=200)) as quick,
        Sending(webhooks, clock),
    ):
        for receiver in (slow, quick):
            new_endpoint(webhooks, receiver.url, open_vault())
        for k in range(20):
            finish_job(store, f"ftjob-{k}")
        await quick.until(lambda: len(quick.requests) == 20)
        assert len(slow.requests) == 1
    assert sorted(request.json()["data"]["id"] for request in quick.requests) == sorted(f"ftjob-{k}" for k in range(20))


async def test_what_a_killed_server_was_sending_is_sent_by_the_next(
    store: SqlStore, webhooks: Webhooks, clock: FakeClock
) -> None:
    async with FaultyServer(hangs, answers(status=200)) as receiver:
        new_endpoint(webhooks, receiver.url, open_vault())
        finish_job(store)
        async with Sending(webhooks, clock):
            await receiver.until(lambda: len(receiver.requests) == 1)
        async with Sending(webhooks, clock):
            await asyncio.sleep(0.1)
            assert len(receiver.requests) == 1  # it is leased
            clock.advance(61)
            await settled(store)
    ids = [request.headers["webhook-id"] for request in receiver.requests]
    assert len(ids) == 2
    assert len(set(ids)) == 1


async def test_two_servers_send_nothing_twice(store: SqlStore, webhooks: Webhooks, clock: FakeClock) -> None:
    async with FaultyServer(answers(status=200)) as receiver, Sending(webhooks, clock), Sending(webhooks, clock):
        new_endpoint(webhooks, receiver.url, open_vault())
        for k in range(20):
            finish_job(store, f"ftjob-{k}")
        await settled(store)
    assert len(receiver.requests) == 20


async def test_a_lost_master_key_is_a_failure_like_any_other(
    store: SqlStore, webhooks: Webhooks, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    async with FaultyServer(answers(status=200)) as receiver:
        new_endpoint(webhooks, receiver.url, open_vault())
        finish_job(store)
        key = home / "master.key"
        kept = key.read_text()
        key.unlink()
        async with Sending(webhooks, clock):
            await tried(store, clock, 1)
        key.write_text(kept)
        clock.advance(6)
        async with Sending(webhooks, clock):
            await settled(store)
    assert len(receiver.requests) == 1


def test_a_deleted_endpoint_is_owed_nothing(store: SqlStore, webhooks: Webhooks) -> None:
    endpoint = new_endpoint(webhooks, "https://example.org", open_vault())
    finish_job(store)
    assert len(open_deliveries(store)) == 1
    webhooks.delete("proj_local", endpoint.id)
    assert open_deliveries(store) == []
    assert webhooks.next_due() is None


def test_waits_triple_up_to_four_hours() -> None:
    assert [wait_s(tries, 0.0) for tries in (1, 2, 3, 8, 9, 100)] == [5.0, 15.0, 45.0, 10935.0, 14400.0, 14400.0]
    assert wait_s(1, 1.0) == 4.0


def test_settled_deliveries_are_forgotten_after_a_week(store: SqlStore, webhooks: Webhooks, clock: FakeClock) -> None:
    new_endpoint(webhooks, "https://example.org", open_vault())
    for k in range(2):
        finish_job(store, f"ftjob-{k}")
        [due] = webhooks.claim_due(limit=5, lease_s=60)
        webhooks.delivered(due.seq)
        clock.advance(8 * 24 * 3600)
    with store.database.read() as connection:
        assert len(connection.execute(select(DELIVERIES)).all()) == 1


def test_the_same_queries_run_on_postgresql(postgres_url: str, home: Path, clock: FakeClock) -> None:
    store = open_store(postgres_url, clock=clock)
    webhooks, vault = Webhooks(store.database), open_vault()
    one, other = (new_endpoint(webhooks, f"https://example.org/{k}", vault) for k in range(2))
    assert webhooks.list("proj_local", after=one.id, limit=5) == ([other], False)
    assert webhooks.update("proj_local", one.id, name="café").name == "café"
    sealed = vault.seal(OTHER_SECRET, secret_context(one.id))
    rotated = webhooks.rotate("proj_local", one.id, sealed=sealed, hint="h", keep_old=True)
    assert [len(rotated.signing(clock.now() + later)) for later in (0, 24 * 3600 + 1)] == [2, 1]
    for k in range(2):
        finish_job(store, f"ftjob-{k}")
    due = webhooks.claim_due(limit=5, lease_s=60)
    assert [delivery.endpoint.id for delivery in due] == [one.id, other.id]
    assert {delivery.data["id"] for delivery in due} == {"ftjob-0"}
    assert [delivery.endpoint.id for delivery in webhooks.claim_due(limit=5, lease_s=60, busy=(one.id,))] == [other.id]
    webhooks.delivered(due[0].seq)
    webhooks.try_again(due[1].seq, wait_s=5)
    webhooks.give_up(due[1].seq)
    assert len(open_deliveries(store)) == 2  # of the second job
    webhooks.delete("proj_local", other.id)
    assert len(open_deliveries(store)) == 1
    store.add_checkpoint("ftjob-0", 2, "/nowhere", {})
    [job] = Trained(store.database).with_prefix("ftjob-0")
    assert [checkpoint["step"] for checkpoint in job["checkpoints"]] == [2]
    assert len(Trained(store.database).of_project("proj_local")) == 2
    store.close()
