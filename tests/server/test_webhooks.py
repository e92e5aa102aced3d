"""Webhooks through the real SDK: endpoints, signatures that it accepts, retries, and receivers that are down."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import openai
import pytest
from openai import OpenAI
from sqlalchemy import text

from agentrft.server.config import Network, ServerConfig
from agentrft.store import SqlStore

SUCCEEDED, FAILED = "fine_tuning.job.succeeded", "fine_tuning.job.failed"
SECRET = f"whsec_{base64.b64encode(b'0' * 32).decode()}"
OTHER_SECRET = f"whsec_{base64.b64encode(b'1' * 32).decode()}"


def until(is_so: Callable[[], Any], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not become so"
        time.sleep(0.01)


def finish_job(store: SqlStore, job_id: str, project: str = "proj_local") -> None:
    store.create_job({"id": job_id, "project_id": project, "status": "queued"})
    store.set_job_status(job_id, "running")
    store.set_job_status(job_id, "succeeded")


@pytest.fixture
def receiver(serve: Any, answer: Any) -> Any:
    return serve(lambda asked: answer(status=204))


@pytest.fixture
def hooked(live: Any, receiver: Any) -> Any:
    """A server that may reach the receiver."""
    return live(ServerConfig(concurrency=0, network=Network(allow=(urlsplit(receiver.url).netloc,))))


def test_the_sdk_unwraps_what_a_receiver_got(hooked: Any, receiver: Any) -> None:
    client: OpenAI = hooked.openai()
    made = client.webhooks.create(name="mine", url=f"{receiver.url}/hook", event_types=[SUCCEEDED])
    finish_job(hooked.state.store, "ftjob-first")
    until(lambda: receiver.asked)
    got = receiver.asked[0]
    event = client.webhooks.unwrap(got.body, got.headers, secret=made.signing_secret)
    assert event.type == SUCCEEDED
    assert event.data.id == "ftjob-first"
    assert event.id == got.headers["webhook-id"]
    assert event.object == "event"
    assert got.path == "/hook"
    assert got.headers["content-type"] == "application/json"
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(got.body + b" ", got.headers, secret=made.signing_secret)
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.unwrap(got.body, got.headers, secret=OTHER_SECRET)


def test_endpoints_are_kept_changed_and_forgotten(hooked: Any, receiver: Any) -> None:
    client: OpenAI = hooked.openai()
    made = client.webhooks.create(name="mine", url=receiver.url, event_types=[SUCCEEDED, SUCCEEDED])
    assert made.to_dict() == {
        "id": made.id,
        "object": "webhook_endpoint",
        "created_at": made.created_at,
        "updated_at": made.created_at,
        "name": "mine",
        "url": receiver.url,
        "event_types": [SUCCEEDED],
        "signing_secret_hint": made.signing_secret_hint,
        "signing_secret": made.signing_secret,
    }
    assert len(base64.b64decode(made.signing_secret.removeprefix("whsec_"))) == 32
    assert made.signing_secret_hint
    assert made.signing_secret_hint not in made.signing_secret
    shown = client.webhooks.retrieve(made.id)
    assert "signing_secret" not in shown.to_dict()
    assert client.webhooks.update(made.id, name="mine") == shown
    assert client.webhooks.update(made.id, name="yours").name == "yours"
    changed = client.webhooks.update(made.id, event_types=[FAILED])
    assert (changed.name, changed.event_types, changed.url) == ("yours", [FAILED], receiver.url)
    others = [client.webhooks.create(name=f"n{k}", url=receiver.url, event_types=[FAILED]).id for k in range(4)]
    assert [one.id for one in client.webhooks.list(limit=2)] == [made.id, *others]  # page by page, by itself
    page = client.webhooks.list(limit=2, after=made.id)
    assert ([one.id for one in page.data], page.has_more) == (others[:2], True)
    gone = client.webhooks.delete(made.id)
    assert (gone.id, gone.deleted, gone.object) == (made.id, True, "webhook_endpoint.deleted")
    for call in (client.webhooks.retrieve, client.webhooks.delete, client.webhooks.rotate_secret):
        with pytest.raises(openai.NotFoundError):
            call(made.id)
    assert client.webhooks.event_types.list().data == [SUCCEEDED, FAILED, "fine_tuning.job.cancelled"]


def test_a_test_event_says_what_the_receiver_answered(hooked: Any, receiver: Any, answer: Any) -> None:
    client: OpenAI = hooked.openai()
    made = client.webhooks.create(name="mine", url=receiver.url, event_types=[SUCCEEDED])
    result = client.webhooks.test(made.id, event_type=FAILED)
    assert (result.status_code, result.success, result.event_type) == (204, True, FAILED)
    got = receiver.asked[0]
    assert client.webhooks.unwrap(got.body, got.headers, secret=made.signing_secret).type == FAILED
    receiver.answer = lambda asked: answer(status=500)
    assert client.webhooks.test(made.id, event_type=SUCCEEDED).status_code == 500
    receiver.answer = lambda asked: answer(drops=True)
    with pytest.raises(openai.BadRequestError) as caught:
        client.webhooks.test(made.id, event_type=SUCCEEDED)
    assert caught.value.code == "webhook_unreachable"


def test_a_rotated_secret_signs_for_a_day_beside_the_new_one(hooked: Any, receiver: Any) -> None:
    client: OpenAI = hooked.openai()
    old = client.webhooks.create(name="mine", url=receiver.url, event_types=[SUCCEEDED])
    new = client.webhooks.rotate_secret(old.id, keep_old_secret_active_for_24_hours=True)
    assert new.signing_secret != old.signing_secret
    client.webhooks.test(old.id, event_type=SUCCEEDED)
    got = receiver.asked[0]
    for secret in (old.signing_secret, new.signing_secret):
        assert client.webhooks.unwrap(got.body, got.headers, secret=secret).type == SUCCEEDED
    newest = client.webhooks.rotate_secret(old.id)
    client.webhooks.test(old.id, event_type=SUCCEEDED)
    got = receiver.asked[1]
    client.webhooks.unwrap(got.body, got.headers, secret=newest.signing_secret)
    for secret in (old.signing_secret, new.signing_secret):
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(got.body, got.headers, secret=secret)


def test_secrets_are_nowhere_in_the_store(hooked: Any, receiver: Any, home: Path) -> None:
    client: OpenAI = hooked.openai()
    made = client.webhooks.create(name="mine", url=receiver.url, event_types=[SUCCEEDED])
    secrets = [made.signing_secret, client.webhooks.rotate_secret(made.id).signing_secret]
    with hooked.state.store.database.write() as connection:
        connection.execute(text("select 1"))
    kept = b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())
    assert b"mine" in kept
    for secret in secrets:
        assert secret.encode() not in kept
        assert base64.b64decode(secret.removeprefix("whsec_")) not in kept


def test_other_projects_see_nothing(hooked: Any, receiver: Any) -> None:
    ours, theirs = hooked.openai(hooked.key("proj_a")), hooked.openai(hooked.key("proj_b"))
    made = ours.webhooks.create(name="mine", url=receiver.url, event_types=[SUCCEEDED])
    assert theirs.webhooks.list().data == []
    for call in (
        lambda: theirs.webhooks.retrieve(made.id),
        lambda: theirs.webhooks.update(made.id, name="x"),
        lambda: theirs.webhooks.delete(made.id),
        lambda: theirs.webhooks.rotate_secret(made.id),
        lambda: theirs.webhooks.test(made.id, event_type=SUCCEEDED),
        lambda: theirs.webhooks.list(after=made.id),
    ):
        with pytest.raises(openai.NotFoundError):
            call()
    finish_job(hooked.state.store, "ftjob-b", "proj_b")
    finish_job(hooked.state.store, "ftjob-a", "proj_a")
    until(lambda: receiver.asked)
    time.sleep(0.3)
    assert [asked.json()["data"]["id"] for asked in receiver.asked] == ["ftjob-a"]
    reader = hooked.openai(hooked.key("proj_a", "webhooks:read"))
    assert len(reader.webhooks.list().data) == 1
    with pytest.raises(openai.PermissionDeniedError):
        reader.webhooks.delete(made.id)


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"url": "http://169.254.169.254/latest"}, "url"),
        ({"url": "http://10.0.0.1/x"}, "url"),
        ({"url": "http://example.org/x"}, "url"),
        ({"url": "ftp://example.org"}, "url"),
        ({"url": "https://user:pass@example.org/"}, "url"),
        ({"event_types": []}, "event_types"),
        ({"event_types": ["batch.completed"]}, "event_types.0"),
        ({"name": ""}, "name"),
        ({"name": "a\u0000b"}, "name"),
        ({"name": None}, "name"),
        ({"secret": "mine"}, "secret"),
    ],
)
def test_endpoints_that_nothing_could_be_sent_to_are_refused(shared: Any, changed: dict[str, Any], param: str) -> None:
    body = {"name": "n", "url": "https://example.org/hook", "event_types": [SUCCEEDED], **changed}
    answer = shared.http().post("/v1/webhook_endpoints", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert "pass@" not in answer.text
