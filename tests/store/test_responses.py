"""Kept responses in both databases: conversations along their links, deletion, age, and both at once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from agentrft.errors import StoreFault, UserError
from agentrft.store import open_store
from agentrft.store.database import Database
from agentrft.store.responses import Responses
from agentrft.store.schema import RESPONSES
from agentrft.testing import FakeClock

KEEP_S = 100.0


class Kept:
    """A store's responses; `add` makes one that asks `?id` and answers `!id`."""

    def __init__(self, where: Any) -> None:
        self.clock = FakeClock()
        self.store = open_store(where, clock=self.clock)
        self.database: Database = self.store.database
        self.responses = Responses(self.database, keep_s=KEEP_S)

    def add(self, name: str, previous: str | None = None, *, project: str = "p", before: Any = None) -> None:
        if before is None:
            before = [] if previous is None else self.responses.conversation(project, previous)
        body = {"id": name, "previous_response_id": previous, "output": [{"id": f"!{name}"}]}
        self.responses.add(project, body, [{"id": f"?{name}"}], before=before)

    def conversation(self, name: str, project: str = "p") -> str:
        return " ".join(item["id"] for item in self.responses.conversation(project, name))

    def rows(self) -> int:
        with self.database.read() as connection:
            return connection.execute(select(func.count()).select_from(RESPONSES)).scalar_one()


@pytest.fixture(params=["sqlite", "postgres"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    where: Any = tmp_path if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    made = Kept(where)
    yield made
    made.store.close()


def test_a_conversation_is_everything_along_the_links(kept: Kept) -> None:
    kept.add("a")
    kept.add("b", "a")
    kept.add("c", "b")
    kept.add("other", "a")
    assert kept.conversation("c") == "?a !a ?b !b ?c !c"
    assert kept.conversation("other") == "?a !a ?other !other"
    assert [item["id"] for item in kept.responses.context("p", "c")] == ["?a", "!a", "?b", "!b", "?c"]
    assert [item["id"] for item in kept.responses.context("p", "a")] == ["?a"]
    assert kept.responses.get("p", "b") == {"id": "b", "previous_response_id": "a", "output": [{"id": "!b"}]}


def test_what_is_said_comes_back_as_it_was(kept: Kept) -> None:
    said = [{"id": "x", "text": "é☃\x00 \U0001f389", "log_prob": -0.1}]
    kept.responses.add("p", {"id": "a", "previous_response_id": None, "output": said}, said)
    assert kept.responses.conversation("p", "a") == said * 2


@pytest.mark.parametrize("name", ["b", "", "a\x00", "a' OR '1'='1", "x" * 10_000])
def test_unknown_ids_are_a_users_mistake(kept: Kept, name: str) -> None:
    kept.add("a")
    for ask in (kept.responses.get, kept.responses.context, kept.responses.delete):
        with pytest.raises(UserError) as error:
            ask("p", name)
        assert (error.value.code, error.value.param) == ("not_found", "response_id")
    with pytest.raises(UserError) as error:
        kept.responses.conversation("p", name)
    assert (error.value.code, error.value.param) == ("previous_response_not_found", "previous_response_id")


def test_another_projects_response_is_unknown(kept: Kept) -> None:
    kept.add("a")
    for ask in (kept.responses.get, kept.responses.context, kept.responses.delete, kept.responses.conversation):
        with pytest.raises(UserError):
            ask("q", "a")
    # Nor can it be linked to, whatever the caller believes of it.
    kept.add("b", "a", project="q", before=[])
    assert kept.conversation("b", "q") == "?b !b"


def test_a_deleted_response_is_unknown_and_those_behind_it_keep_their_conversation(kept: Kept) -> None:
    for name, previous in (("a", None), ("b", "a"), ("c", "b")):
        kept.add(name, previous)
    kept.responses.delete("p", "b")
    with pytest.raises(UserError):
        kept.responses.get("p", "b")
    with pytest.raises(UserError):
        kept.conversation("b")
    assert kept.conversation("c") == "?a !a ?b !b ?c !c"
    assert kept.rows() == 3
    kept.responses.delete("p", "c")
    assert kept.rows() == 1, "the deleted one that only this one needed goes, too"
    assert kept.conversation("a") == "?a !a"


def test_a_response_that_is_deleted_while_another_is_made_from_it_leaves_its_conversation(kept: Kept) -> None:
    kept.add("a")
    before = kept.responses.conversation("p", "a")
    kept.responses.delete("p", "a")
    assert kept.rows() == 0
    kept.add("b", "a", before=before)
    assert kept.conversation("b") == "?a !a ?b !b"
    assert kept.responses.get("p", "b")["previous_response_id"] == "a"


def test_old_responses_go_when_no_living_one_goes_on_from_them(kept: Kept) -> None:
    kept.add("alone")
    kept.add("a")
    kept.clock.advance(60)
    kept.add("b", "a")
    kept.clock.advance(39)
    assert kept.responses.sweep() == 0
    assert kept.conversation("alone") == "?alone !alone"
    kept.clock.advance(1)
    for name in ("alone", "a"):
        with pytest.raises(UserError):
            kept.responses.get("p", name)
    assert kept.responses.sweep() == 1
    assert kept.conversation("b") == "?a !a ?b !b"
    kept.clock.advance(60)
    assert kept.responses.sweep() == 2
    assert (kept.rows(), kept.responses.sweep()) == (0, 0)


def test_a_shorter_time_holds_for_what_is_there(kept: Kept) -> None:
    kept.add("a")
    kept.clock.advance(10)
    assert Responses(kept.database, keep_s=11).sweep() == 0
    assert Responses(kept.database, keep_s=10).sweep() == 1


def test_many_are_swept(kept: Kept) -> None:
    with kept.database.write() as connection:
        rows = [{"id": f"r{n}", "project_id": "p", "created_at": kept.clock.now(), "record": b""} for n in range(1201)]
        connection.execute(RESPONSES.insert(), rows)
    kept.clock.advance(KEEP_S)
    assert kept.responses.sweep() == 1201


def test_a_damaged_record_is_a_fault(kept: Kept) -> None:
    kept.add("a")
    with kept.database.write() as connection:
        connection.execute(update(RESPONSES).values(record=b"\x00"))
    with pytest.raises(StoreFault, match=r"a stored response is damaged .* restore the store from a backup"):
        kept.responses.get("p", "a")


def test_going_on_while_it_is_deleted_and_swept_loses_no_conversation(kept: Kept) -> None:
    """Each round one thread deletes a response while others are kept that go on from it, and a fourth sweeps."""
    failed: list[BaseException] = []
    for n in range(25):
        root = f"r{n}"
        kept.add(root)
        before = kept.responses.conversation("p", root)
        start = threading.Barrier(4)

        def work(job: Any, start: threading.Barrier = start) -> None:
            start.wait()
            try:
                job()
            except BaseException as error:
                failed.append(error)

        jobs: list[Any] = [
            lambda root=root: kept.responses.delete("p", root),
            lambda root=root, before=before: kept.add(f"{root}x", root, before=before),
            lambda root=root, before=before: kept.add(f"{root}y", root, before=before),
            kept.responses.sweep,
        ]
        threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for name in (f"{root}x", f"{root}y"):
            assert kept.conversation(name) == f"?{root} !{root} ?{name} !{name}"
            kept.responses.delete("p", name)
    assert failed == []
    assert kept.rows() == 0
