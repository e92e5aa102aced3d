"""Files and uploads in both databases: equal bytes, quotas, deletion against upload, what a crash leaves."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from agentrft.errors import StoreFault, UserError
from agentrft.store import Artifacts, open_store
from agentrft.store.files import FileBytes, Files
from agentrft.store.idempotency import Answered, Busy, Idempotency, Turn
from agentrft.store.uploads import Uploads
from agentrft.testing import FakeClock


class Kept:
    """A store's files, and the folder that their bytes are in."""

    def __init__(self, where: Any, folder: Path) -> None:
        self.clock = FakeClock()
        self.store = open_store(where, clock=self.clock)
        self.folder = folder
        self.content = FileBytes(Artifacts(folder), project_bytes=10_000)
        self.files = Files(self.store.database, self.content)
        self.uploads = Uploads(self.store.database, self.content, self.files)

    def add(self, data: bytes, project: str = "p", **more: Any) -> Any:
        draft = self.files.draft()
        try:
            draft.write(data)
            draft.finish()
            return self.files.add(project, draft, **{"filename": "f", "purpose": "batch", **more})
        finally:
            draft.discard()

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture(params=["sqlite", "postgres"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    where: Any = tmp_path if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    made = Kept(where, tmp_path / "files")
    yield made
    made.store.close()


def test_bytes_stay_while_any_file_has_them(kept: Kept) -> None:
    first, second = kept.add(b"same"), kept.add(b"same", "other")
    assert first.sha256 == second.sha256
    assert kept.names() == [first.sha256]
    kept.files.delete("p", first.id)
    assert kept.files.path(second).read_bytes() == b"same"
    kept.files.delete("other", second.id)
    assert kept.names() == []


def test_a_hard_link_outlives_the_file(kept: Kept, tmp_path: Path) -> None:
    file = kept.add(b"rows")
    os.link(kept.files.path(file), tmp_path / "link")
    kept.files.delete("p", file.id)
    assert (tmp_path / "link").read_bytes() == b"rows"


def test_deleting_never_takes_bytes_that_are_being_added(kept: Kept) -> None:
    """Two threads add, read and delete the same bytes; every file has its bytes while it is there."""
    broken: list[str] = []

    def work(project: str) -> None:
        for _ in range(40):
            file = kept.add(b"contended", project)
            if not kept.files.path(file).is_file():
                broken.append(file.id)
            kept.files.delete(project, file.id)

    threads = [threading.Thread(target=work, args=(f"p{n}",)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
    assert kept.names() == []


def test_a_quota_that_does_not_hold_leaves_nothing(kept: Kept) -> None:
    kept.add(b"x" * 9_000)
    with pytest.raises(UserError) as error:
        kept.add(b"y" * 1_001)
    assert error.value.code == "exceeded_quota"
    assert len(kept.names()) == 1
    assert kept.add(b"y" * 1_000).bytes == 1_000


def test_odd_names_are_kept_as_far_as_the_database_can(kept: Kept) -> None:
    assert kept.add(b"x", filename="a\x00b\ud800").filename == "a\ufffdb?"


def test_what_a_crash_left_is_swept_after_a_day(kept: Kept) -> None:
    file = kept.add(b"good")
    old = time.time() - 2 * 24 * 3600
    for name, age in ((".tmp-old", old), (".tmp-new", time.time()), ("0" * 64, old), ("1" * 64, time.time())):
        (kept.folder / name).write_bytes(b"x")
        os.utime(kept.folder / name, (age, age))
    os.utime(kept.folder / file.sha256, (old, old))
    assert kept.files.sweep() == 0
    assert kept.names() == sorted([".tmp-new", "1" * 64, file.sha256])


def test_looking_for_what_a_crash_left_takes_no_write_transaction_a_file(kept: Kept) -> None:
    """The sweep runs every minute, and every file is old one day."""
    old = time.time() - 2 * 24 * 3600
    for n in range(5):
        os.utime(kept.folder / kept.add(bytes([n])).sha256, (old, old))
    begun: list[Any] = []
    event.listen(kept.store.database.engine, "begin", lambda connection: begun.append(connection))
    kept.files.sweep()
    assert len(begun) <= 2
    assert len(kept.names()) == 5


def test_drafts_that_go_while_the_folder_is_read_stop_no_sweep(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.add(b"x")
    scandir = os.scandir

    @contextmanager
    def vanishing(folder: Path) -> Iterator[Any]:
        with scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            Path(entry.path).unlink()
        yield found

    monkeypatch.setattr(os, "scandir", vanishing)
    assert kept.files.sweep() == 0


def test_a_folder_that_cannot_be_written_to_is_the_stores_fault(kept: Kept) -> None:
    kept.folder.write_bytes(b"in the way")
    with pytest.raises(StoreFault, match="free space on it, or mend access"):
        kept.files.draft()


def add_parts(kept: Kept, upload_id: str) -> list[str]:
    parts = []
    for data in (b"abc", b"def"):
        draft = kept.files.draft()
        draft.write(data)
        draft.finish()
        parts.append(kept.uploads.add_part("p", upload_id, draft).id)
    return parts


def test_parts_stay_where_completing_is_undone(kept: Kept) -> None:
    """The disk may be full, the server killed, or the operator have lowered the quota meanwhile."""
    upload = kept.uploads.create("p", filename="f", purpose="batch", mime_type="a/b", n_bytes=6)
    parts = add_parts(kept, upload.id)
    kept.content.project_bytes = 5
    with pytest.raises(UserError) as error:
        kept.uploads.complete("p", upload.id, parts)
    assert error.value.code == "exceeded_quota"
    kept.content.project_bytes = 6
    _, file = kept.uploads.complete("p", upload.id, parts)
    assert kept.files.path(file).read_bytes() == b"abcdef"


def test_an_upload_can_be_completed_after_a_failure(kept: Kept) -> None:
    upload = kept.uploads.create("p", filename="f", purpose="batch", mime_type="a/b", n_bytes=6)
    parts = add_parts(kept, upload.id)
    with pytest.raises(UserError):
        kept.uploads.complete("p", upload.id, parts, "0" * 32)
    done, file = kept.uploads.complete("p", upload.id, parts)
    assert (done.status, done.file_id) == ("completed", file.id)
    assert kept.files.path(file).read_bytes() == b"abcdef"
    assert kept.names() == [file.sha256]


def test_turns_and_answers_in_both_databases(kept: Kept) -> None:
    answers = Idempotency(kept.store.database, keep_s=100)
    turns: list[Any] = []
    threads = [threading.Thread(target=lambda: turns.append(answers.begin("p", "k", "d"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    mine = [turn for turn in turns if isinstance(turn, Turn)]
    assert len(mine) == 1
    answers.finish("p", "k", mine[0], 200, "yes")
    assert answers.begin("p", "k", "d") == Answered(200, "yes")
    with pytest.raises(UserError) as error:
        answers.begin("p", "k", "other")
    assert error.value.code == "idempotency_key_reused"
    kept.clock.advance(101)
    assert isinstance(answers.begin("p", "k", "other"), Turn)


def test_a_turn_that_is_abandoned_while_another_looks_at_it_is_free_then(kept: Kept) -> None:
    answers = Idempotency(kept.store.database, keep_s=100)
    answers.begin("p", "k", "d")
    engine = kept.store.database.engine

    def abandon(_connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT") and "idempotency" in statement:
            cursor.execute("DELETE FROM idempotency")

    event.listen(engine, "before_cursor_execute", abandon)
    assert answers.begin("p", "k", "d") == Busy()
    event.remove(engine, "before_cursor_execute", abandon)
    assert isinstance(answers.begin("p", "k", "d"), Turn)


def test_a_turn_that_is_given_back_goes_on_under_its_token(kept: Kept) -> None:
    answers = Idempotency(kept.store.database, keep_s=100)
    turn = answers.begin("p", "k", "d")
    assert isinstance(turn, Turn)
    answers.give_back("p", "k", turn)
    assert answers.begin("p", "k", "d") == turn
    answers.abandon("p", "k", turn)
    assert answers.begin("p", "k", "d") != turn
