"""Files through the real SDK and over plain HTTP: what the API shows, hostile names and bodies, tenants, expiry."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai.types import FileDeleted, FileObject

from agentrft.server.config import Limits, ServerConfig
from agentrft.testing import FakeClock

ROWS = b'{"messages": [{"role": "user", "content": "1+1?"}], "answer": "2"}\n'


def stored(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "files").iterdir())


def test_the_sdk_uploads_lists_reads_and_deletes(server: Any, home: Path) -> None:
    client = server.openai()
    made = client.files.create(file=("train.jsonl", ROWS), purpose="fine-tune")
    assert isinstance(made, FileObject)
    assert FileObject.model_validate(made.model_dump()).model_extra == {}
    assert (made.filename, made.bytes, made.purpose, made.status) == (
        "train.jsonl",
        len(ROWS),
        "fine-tune",
        "processed",
    )
    assert made.expires_at is None
    assert made.id.startswith("file-")
    assert len(made.id) == len("file-") + 24
    assert client.files.retrieve(made.id) == made
    assert client.files.content(made.id).read() == ROWS
    assert client.files.wait_for_processing(made.id, poll_interval=0.01).status == "processed"
    assert [file.id for file in client.files.list()] == [made.id]
    gone = client.files.delete(made.id)
    assert isinstance(gone, FileDeleted)
    assert (gone.id, gone.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError) as error:
        client.files.retrieve(made.id)
    assert error.value.code == "not_found"
    assert stored(home) == []


def test_equal_bytes_are_kept_once_and_go_with_the_last_file(server: Any, home: Path) -> None:
    client = server.openai()
    first = client.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    second = client.files.create(file=("b.jsonl", ROWS), purpose="evals")
    assert len(stored(home)) == 1
    client.files.delete(first.id)
    assert client.files.content(second.id).read() == ROWS
    client.files.delete(second.id)
    assert stored(home) == []


def test_pages_go_both_ways(server: Any) -> None:
    client = server.openai()
    ids = [client.files.create(file=(f"{n}.jsonl", b"x"), purpose=p).id for n, p in enumerate(["evals", "batch"] * 3)]
    assert [file.id for file in client.files.list(limit=2)] == ids[::-1]
    assert [file.id for file in client.files.list(limit=4, order="asc")] == ids
    assert [file.id for file in client.files.list(purpose="evals", order="asc", limit=1)] == ids[0::2]
    page = client.files.list(limit=2, order="asc", after=ids[1])
    assert ([file.id for file in page.data], page.has_more) == (ids[2:4], True)
    assert client.files.list(limit=2, order="asc", after=ids[3]).has_more is False
    raw = server.http().get("/v1/files", params={"limit": 2}).json()
    assert (raw["object"], raw["first_id"], raw["last_id"]) == ("list", ids[5], ids[4])


@pytest.mark.parametrize(
    ("params", "param"),
    [({"limit": 0}, "limit"), ({"limit": 10_001}, "limit"), ({"order": "up"}, "order"), ({"after": "file-x"}, "after")],
)
def test_bad_pages_are_refused(shared: Any, params: dict[str, Any], param: str) -> None:
    answer = shared.http().get("/v1/files", params=params)
    assert answer.status_code in (400, 404)
    assert answer.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "name",
    ["../../etc/passwd.jsonl", "/abs/olute.jsonl", "a\\..\\b.jsonl", "naïve 数据 🎉.jsonl", "x" * 3000 + ".jsonl", "…"],
)
def test_names_are_only_names(server: Any, home: Path, name: str) -> None:
    client = server.openai()
    made = client.files.create(file=(name, ROWS), purpose="user_data")
    assert made.filename == name[:1000]
    answer = server.http().get(f"/v1/files/{made.id}/content")
    assert answer.content == ROWS
    assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert [len(found) for found in stored(home)] == [64]
    assert sorted(path.name for path in home.parent.iterdir()) == ["home"]


def test_training_files_are_jsonl(shared: Any) -> None:
    client = shared.openai()
    with pytest.raises(openai.BadRequestError) as error:
        client.files.create(file=("train.csv", ROWS), purpose="fine-tune")
    assert (error.value.code, error.value.param) == ("invalid_file_format", "file")
    # The SDK names what has no name `upload`.
    assert client.files.create(file=io.BytesIO(ROWS), purpose="fine-tune").filename == "upload"
    assert client.files.create(file=("TRAIN.JSONL", ROWS), purpose="fine-tune").filename == "TRAIN.JSONL"


def test_expired_files_vanish(live: Any, home: Path) -> None:
    clock = FakeClock(now=1_000_000.0)
    server = live(prepare=lambda state: setattr(state.store.database, "clock", clock))
    client = server.openai()
    made = client.files.create(
        file=("a.jsonl", ROWS), purpose="fine-tune", expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert made.expires_at == 1_003_600
    clock.advance(3599)
    assert client.files.retrieve(made.id).id == made.id
    clock.advance(1)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.files.content(made.id)
    assert client.files.list().data == []
    assert server.state.files.sweep() == 1
    assert stored(home) == []


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "purpose"),
        ({"purpose": "fine_tune"}, "purpose"),
        ({"purpose": "fine-tune-results"}, "purpose"),
        ({"purpose": "batch", "surprise": "1"}, "surprise"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at"}, "expires_after.seconds"),
        ({"purpose": "batch", "expires_after[anchor]": "x", "expires_after[seconds]": "3600"}, "expires_after.anchor"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "3599"}, None),
    ],
)
def test_bad_fields_are_named(server: Any, home: Path, fields: dict[str, str], param: str | None) -> None:
    answer = server.http().post("/v1/files", files={"file": ("a.jsonl", ROWS)}, data=fields)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == (param or "expires_after.seconds")
    assert stored(home) == []


MULTIPART = "multipart/form-data; boundary=b"


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("multipart/form-data", b"", 415, "unsupported_media_type"),
        ("application/json", b"{}", 415, "unsupported_media_type"),
        (MULTIPART, b"", 400, "invalid_form"),
        (MULTIPART, b"garbage", 400, "invalid_form"),
        (MULTIPART, b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx', 400, "invalid_form"),
        (MULTIPART, b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--b--\r\n', 400,
         "missing_required_parameter"),
        (MULTIPART, b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + b"x" * 70_000 + b"\r\n--b--\r\n", 400,
         "invalid_form"),
        (MULTIPART, b'--b\r\nContent-Disposition: form-data; name="f"\r\n\r\n\r\n' * 30 + b"--b--\r\n", 400,
         "invalid_form"),
        (MULTIPART, b"--b\r\n" + b"X-" + b"a" * 70_000 + b": 1\r\n\r\n\r\n--b--\r\n", 400, "invalid_form"),
    ],
)  # fmt: skip
def test_broken_forms_are_refused(
    server: Any, home: Path, content_type: str, body: bytes, status: int, code: str
) -> None:
    answer = server.http().post("/v1/files", content=body, headers={"Content-Type": content_type})
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert not (home / "files").exists() or stored(home) == []


def test_files_are_bounded_whether_announced_or_not(live: Any, home: Path) -> None:
    server = live(ServerConfig(concurrency=0, limits=Limits(file_bytes=1000)))
    client = server.openai()
    assert client.files.create(file=("a.jsonl", b"x" * 1000), purpose="batch").bytes == 1000
    for size in (1001, 3_000_000):
        with pytest.raises(openai.APIStatusError) as error:
            client.files.create(file=("b.jsonl", b"x" * size), purpose="batch")
        assert (error.value.status_code, error.value.code) == (413, "request_too_large")
    head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    answer = server.http().post(
        "/v1/files", content=iter([head, b"x" * 1001, b"\r\n--b--\r\n"]), headers={"Content-Type": MULTIPART}
    )
    assert answer.status_code == 413
    assert len(stored(home)) == 1


def test_a_project_has_a_quota(live: Any) -> None:
    server = live(ServerConfig(concurrency=0, limits=Limits(project_bytes=2500)))
    key, other = server.key("proj_a"), server.key("proj_b")
    client = server.openai(key)
    files = [client.files.create(file=("a.jsonl", bytes([n]) * 1000), purpose="batch") for n in range(2)]
    with pytest.raises(openai.BadRequestError) as error:
        client.files.create(file=("a.jsonl", b"z" * 1000), purpose="batch")
    assert error.value.code == "exceeded_quota"
    assert server.openai(other).files.create(file=("a.jsonl", b"z" * 1000), purpose="batch").bytes == 1000
    client.files.delete(files[0].id)
    assert client.files.create(file=("a.jsonl", b"z" * 1000), purpose="batch").bytes == 1000


def test_other_projects_files_are_not_there(server: Any) -> None:
    mine, theirs = server.openai(server.key("proj_a")), server.openai(server.key("proj_b"))
    file = mine.files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    assert theirs.files.list().data == []
    for ask in (theirs.files.retrieve, theirs.files.delete, theirs.files.content):
        with pytest.raises(openai.NotFoundError):
            ask(file.id)
    with pytest.raises(openai.NotFoundError):
        theirs.files.list(after=file.id)
    assert mine.files.content(file.id).read() == ROWS


@pytest.mark.parametrize("file_id", ["file-x", "..%2F..%2Fstore.db", "%00", "file-" + "a" * 10_000, "%F0%9F%8E%89"])
def test_odd_ids_are_unknown(shared: Any, file_id: str) -> None:
    for path in (f"/v1/files/{file_id}", f"/v1/files/{file_id}/content"):
        answer = shared.http().get(path)
        assert answer.status_code == 404
        assert answer.json()["error"]["code"] in ("not_found", "unknown_url")


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [("bytes=0-3", 206, ROWS[:4]), ("bytes=-4", 206, ROWS[-4:]), ("bytes=900-", 416, None), ("bytes=x", 400, None)],
)
def test_parts_of_a_file_can_be_asked_for(shared: Any, asked: str, status: int, content: bytes | None) -> None:
    file = shared.openai().files.create(file=("a.jsonl", ROWS), purpose="fine-tune")
    answer = shared.http().get(f"/v1/files/{file.id}/content", headers={"Range": asked})
    assert answer.status_code == status
    if content is None:
        assert answer.json()["error"]["code"] == "invalid_range"
    else:
        assert answer.content == content


def test_a_client_that_leaves_midway_leaves_nothing(server: Any, home: Path) -> None:
    def pieces() -> Any:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n' + b"x" * 2_000_000
        raise ConnectionError

    with pytest.raises(ConnectionError):
        server.http().post("/v1/files", content=pieces(), headers={"Content-Type": MULTIPART})
    httpx.get(f"{server.url}/healthz")
    deadline = time.monotonic() + 10
    while (home / "files").exists() and stored(home) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert stored(home) == []
