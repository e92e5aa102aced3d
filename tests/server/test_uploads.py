"""Uploads in parts with the real SDK: order, checksums, sizes, the hour they live, two that complete at once."""

from __future__ import annotations

import hashlib
import random
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types import Upload
from openai.types.uploads import UploadPart

from agentrft.server.config import Limits, ServerConfig
from agentrft.testing import FakeClock

DATA = random.Random(0).randbytes(3000)
PIECES = [DATA[:1000], DATA[1000:1001], DATA[1001:]]


def announce(client: openai.OpenAI, n_bytes: int = len(DATA), **more: Any) -> Upload:
    more = {"filename": "big.jsonl", "purpose": "fine-tune", "mime_type": "application/jsonl", **more}
    return client.uploads.create(bytes=n_bytes, **more)


def stored(home: Path) -> list[str]:
    return sorted(path.name for path in (home / "files").iterdir())


def test_parts_make_the_file_in_the_order_that_is_named(server: Any, home: Path) -> None:
    client = server.openai()
    upload = announce(client, expires_after={"anchor": "created_at", "seconds": 7200})
    assert Upload.model_validate(upload.model_dump()).model_extra == {}
    assert (upload.status, upload.bytes, upload.file) == ("pending", 3000, None)
    assert upload.expires_at == upload.created_at + 3600
    parts = [client.uploads.parts.create(upload.id, data=piece) for piece in (PIECES[2], PIECES[0], PIECES[1])]
    assert all(isinstance(part, UploadPart) and part.upload_id == upload.id for part in parts)
    ids = [parts[1].id, parts[2].id, parts[0].id]
    done = client.uploads.complete(upload.id, part_ids=ids, md5=hashlib.md5(DATA).hexdigest())
    assert done.status == "completed"
    assert done.file
    assert (done.file.filename, done.file.bytes, done.file.purpose) == ("big.jsonl", 3000, "fine-tune")
    assert done.file.expires_at
    assert client.files.content(done.file.id).read() == DATA
    assert stored(home) == [hashlib.sha256(DATA).hexdigest()]


def test_the_sdk_uploads_a_file_in_chunks(server: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(DATA)
    client = server.openai()
    done = client.uploads.upload_file_chunked(file=path, mime_type="text/jsonl", purpose="fine-tune", part_size=700)
    assert done.file
    assert client.files.content(done.file.id).read() == DATA


@pytest.mark.parametrize(
    ("choose", "md5", "code", "param"),
    [
        (lambda ids: ids[:2], None, "upload_mismatch", "part_ids"),
        (lambda ids: [*ids, "part_x"], None, "not_found", "part_ids.3"),
        (lambda ids: [ids[0], ids[0], ids[1]], None, "invalid_request", "part_ids"),
        (lambda ids: ids, "0" * 32, "upload_mismatch", "md5"),
        (lambda ids: ids[::-1], hashlib.md5(DATA).hexdigest(), "upload_mismatch", "md5"),
        (lambda ids: [], None, "invalid_value", "part_ids"),
        (lambda ids: ids, "x", "invalid_value", "md5"),
    ],
)
def test_what_is_not_what_was_announced_can_be_tried_again(
    server: Any, choose: Callable[[list[str]], list[str]], md5: str | None, code: str, param: str
) -> None:
    client = server.openai()
    upload = announce(client)
    ids = [client.uploads.parts.create(upload.id, data=piece).id for piece in PIECES]
    with pytest.raises(openai.APIStatusError) as error:
        client.uploads.complete(upload.id, part_ids=choose(ids), **({} if md5 is None else {"md5": md5}))
    assert (error.value.code, error.value.param) == (code, param)
    assert client.uploads.complete(upload.id, part_ids=ids).status == "completed"


def test_a_cancelled_upload_is_over(server: Any, home: Path) -> None:
    client = server.openai()
    upload = announce(client)
    part = client.uploads.parts.create(upload.id, data=PIECES[0])
    assert client.uploads.cancel(upload.id).status == "cancelled"
    assert stored(home) == []
    for ask in (
        lambda: client.uploads.cancel(upload.id),
        lambda: client.uploads.parts.create(upload.id, data=b"x"),
        lambda: client.uploads.complete(upload.id, part_ids=[part.id]),
    ):
        with pytest.raises(openai.BadRequestError) as error:
            ask()
        assert error.value.code == "upload_over"
    assert stored(home) == []


def test_an_upload_lives_an_hour(live: Any, home: Path) -> None:
    clock = FakeClock()
    server = live(prepare=lambda state: setattr(state.store.database, "clock", clock))
    client = server.openai()
    upload = announce(client)
    client.uploads.parts.create(upload.id, data=PIECES[0])
    clock.advance(3600)
    with pytest.raises(openai.BadRequestError, match="expired"):
        client.uploads.parts.create(upload.id, data=PIECES[1])
    server.state.uploads.sweep()
    assert stored(home) == []
    assert server.state.uploads.get("proj_local", upload.id).status == "expired"


def test_sizes_are_bounded(live: Any) -> None:
    limits = Limits(upload_bytes=5000, part_bytes=1000, project_bytes=4000)
    client = live(ServerConfig(concurrency=0, limits=limits)).openai()
    with pytest.raises(openai.BadRequestError) as error:
        announce(client, 5001)
    assert (error.value.code, error.value.param) == ("upload_too_large", "bytes")
    with pytest.raises(openai.BadRequestError) as error:
        announce(client, 4001)
    assert error.value.code == "exceeded_quota"
    upload = announce(client, 3000)
    with pytest.raises(openai.APIStatusError) as error:
        client.uploads.parts.create(upload.id, data=b"x" * 1001)
    assert error.value.status_code == 413
    for n in range(4):
        client.uploads.parts.create(upload.id, data=bytes([n]) * 1000)
    with pytest.raises(openai.BadRequestError) as error:
        client.uploads.parts.create(upload.id, data=b"z")
    assert error.value.code == "exceeded_quota"


def test_fields_that_no_part_has_are_named(server: Any) -> None:
    upload = announce(server.openai())
    answer = server.http().post(f"/v1/uploads/{upload.id}/parts", files={"data": b"x"}, data={"purpose": "batch"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_parameter")
    assert answer.json()["error"]["param"] == "purpose"


def test_training_files_are_jsonl(server: Any) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        announce(server.openai(), filename="a.csv")
    assert error.value.code == "invalid_file_format"


def test_other_projects_uploads_are_not_there(server: Any) -> None:
    mine, theirs = server.openai(server.key("proj_a")), server.openai(server.key("proj_b"))
    upload, other = announce(mine), announce(theirs)
    part = mine.uploads.parts.create(upload.id, data=DATA)
    for ask in (
        lambda: theirs.uploads.parts.create(upload.id, data=b"x"),
        lambda: theirs.uploads.cancel(upload.id),
        lambda: theirs.uploads.complete(upload.id, part_ids=[part.id]),
        lambda: theirs.uploads.complete(other.id, part_ids=[part.id]),
    ):
        with pytest.raises(openai.NotFoundError):
            ask()
    assert mine.uploads.complete(upload.id, part_ids=[part.id]).status == "completed"


def test_of_two_that_complete_one_wins(server: Any, home: Path) -> None:
    client = server.openai()
    upload = announce(client)
    part = client.uploads.parts.create(upload.id, data=DATA)
    outcomes: list[str] = []

    def complete() -> None:
        try:
            outcomes.append(client.uploads.complete(upload.id, part_ids=[part.id]).status)
        except openai.BadRequestError as error:
            outcomes.append(str(error.code))

    threads = [threading.Thread(target=complete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["completed"] + ["upload_over"] * 7
    assert len(client.files.list().data) == 1
    assert stored(home) == [hashlib.sha256(DATA).hexdigest()]
