"""API keys in both databases: their form, and that only a whole, living key is one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from agentrft.errors import UserError
from agentrft.store import open_store
from agentrft.store.keys import SCOPES, Keys
from agentrft.testing import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["sqlite", "postgres"])
def keys(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> Iterator[Keys]:
    where: Any = tmp_path if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    store = open_store(where, clock=clock)
    yield Keys(store.database)
    store.close()


def test_a_key_is_made_checked_listed_and_revoked(keys: Keys, clock: FakeClock) -> None:
    assert not keys.exist()
    key, text = keys.create("proj_a", ["jobs:read", "files:read"], name="ci", expires_at=clock.now() + 10)
    assert re.fullmatch(r"sk-[0-9A-Za-z]{8}-[0-9A-Za-z]{43}-[0-9A-Za-z]{6}", text)
    assert (key.project, key.scopes, key.name) == ("proj_a", ("files:read", "jobs:read"), "ci")
    assert keys.exist()
    found = keys.check(text)
    assert found is not None
    assert found.id == key.id == text[3:11]
    assert [one.last_used_at for one in keys.list()] == [clock.now()]
    clock.advance(5)
    revoked = keys.revoke(key.id)
    assert keys.check(text) is None
    clock.advance(1)
    assert keys.revoke(key.id) == revoked
    assert keys.exist()


def test_a_key_ends_when_it_expires(keys: Keys, clock: FakeClock) -> None:
    _, text = keys.create("proj_a", list(SCOPES), expires_at=clock.now() + 10)
    clock.advance(9.9)
    assert keys.check(text) is not None
    clock.advance(0.1)
    assert keys.check(text) is None


def test_every_changed_character_makes_it_another(keys: Keys) -> None:
    _, text = keys.create("proj_a", ["admin"])
    for place in range(len(text)):
        changed = text[:place] + ("A" if text[place] != "A" else "B") + text[place + 1 :]
        assert keys.check(changed) is None, place
    assert keys.check(text) is not None
    assert keys.check(text + "\n") is None


def test_keys_differ(keys: Keys) -> None:
    made = [keys.create("proj_a", ["admin"])[1] for _ in range(50)]
    assert len({text[3:11] for text in made}) == len({text[12:55] for text in made}) == 50


def test_a_store_that_takes_no_writes_still_knows_its_keys(keys: Keys, tmp_path: Path) -> None:
    _, text = keys.create("proj_a", ["admin"])
    engine = keys._database.engine
    is_sqlite = engine.dialect.name == "sqlite"

    def refuse_writes(connection: Any) -> None:
        connection.exec_driver_sql("PRAGMA query_only = ON" if is_sqlite else "SET TRANSACTION READ ONLY")

    event.listen(engine, "begin", refuse_writes)
    found = keys.check(text)
    assert found is not None
    assert found.last_used_at is None


def test_that_there_are_keys_is_looked_up_once(keys: Keys) -> None:
    assert not keys.exist()
    keys.create("proj_a", ["admin"])
    asked: list[str] = []
    event.listen(keys._database.engine, "before_cursor_execute", lambda *given: asked.append(given[2]))
    assert [keys.exist() for _ in range(3)] == [True] * 3
    assert len([statement for statement in asked if statement.startswith("SELECT")]) == 1


def test_unknown_ids_are_a_users_mistake(keys: Keys) -> None:
    with pytest.raises(UserError) as error:
        keys.revoke("nothing")
    assert error.value.code == "not_found"
