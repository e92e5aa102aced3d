"""Which database is opened, with which settings, and what is refused."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2
import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import event, text

import agentrft.store
from agentrft.errors import StoreFault, UserError
from agentrft.store import SqlStore, home, open_store, sqlite_driver
from agentrft.store.connect import SqliteDriver
from agentrft.store.schema import HEAD, METADATA


def pragma(store: SqlStore, name: str) -> Any:
    with store.database.engine.connect() as connection:
        return connection.execute(text(f"PRAGMA {name}")).scalar()


def stand_in(version: str, name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module with SQLite's interface that says it is another version."""
    module = types.ModuleType(name)
    module.__dict__.update({**vars(pysqlite3.dbapi2), "sqlite_version": version})
    monkeypatch.setitem(sys.modules, name, module)
    return name


# Where the store lies


def test_home_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "state"))
    assert home() == tmp_path / "state"
    open_store().close()
    assert (tmp_path / "state" / "store.db").is_file()
    monkeypatch.delenv("AGENTRFT_HOME")
    assert home() == Path.home() / ".agentrft"


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_or_a_url(tmp_path: Path, kind: type) -> None:
    store = open_store(kind(tmp_path / "new" / "folder"))
    store.create_job({"id": "ftjob-a"})
    store.close()
    again = open_store(f"sqlite:///{tmp_path / 'new' / 'folder' / 'store.db'}")
    assert again.get_job("ftjob-a")["id"] == "ftjob-a"
    again.close()


@pytest.mark.parametrize("url", ["sqlite://", "mysql://root@localhost/x", "postgresql://me:secret@localhost/x", "://"])
def test_other_urls_are_refused_without_showing_passwords(url: str) -> None:
    with pytest.raises(UserError, match="the store") as caught:
        open_store(url)
    assert (caught.value.param, caught.value.code) == ("store", "invalid_store")
    assert "secret" not in caught.value.message


def test_a_home_that_cannot_be_made_is_the_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be made: .*; set AGENTRFT_HOME") as caught:
        open_store(tmp_path / "file")
    assert caught.value.param == "AGENTRFT_HOME"


def test_a_server_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(StoreFault, match="check that the PostgreSQL server runs") as caught:
        open_store(f"postgresql+psycopg://me:secret@/x?host={tmp_path}")
    assert "secret" not in str(caught.value)


# SQLite: which one, and how


def test_the_bundled_sqlite_is_new_enough_for_its_log() -> None:
    driver = sqlite_driver()
    assert driver.module is pysqlite3.dbapi2
    assert driver.journal_mode == "WAL"


def test_the_first_safe_module_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    old, safe = stand_in("3.51.2", "old_sqlite", monkeypatch), stand_in("3.51.3", "safe_sqlite", monkeypatch)
    assert sqlite_driver([old, "absent_sqlite", safe]).version == "3.51.3"
    assert sqlite_driver([safe, old]).version == "3.51.3"
    unsafe = sqlite_driver(["absent_sqlite", old])
    assert (unsafe.version, unsafe.journal_mode) == ("3.51.2", "DELETE")
    with pytest.raises(StoreFault, match="no SQLite module among absent_sqlite; install pysqlite3"):
        sqlite_driver(["absent_sqlite"])


def test_settings_outlive_a_power_cut(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    assert pragma(store, "journal_mode") == "wal"
    assert pragma(store, "synchronous") == 2  # FULL
    assert pragma(store, "foreign_keys") == 1
    assert pragma(store, "busy_timeout") == 30_000
    store.close()


def test_an_old_sqlite_works_without_the_log(tmp_path: Path) -> None:
    driver = SqliteDriver(module=sqlite3, version=sqlite3.sqlite_version, journal_mode="DELETE")
    store = open_store(tmp_path, driver=driver)
    store.create_job({"id": "ftjob-a"})
    store.add_metrics("ftjob-a", 1, {"loss": 0.5})
    assert pragma(store, "journal_mode") == "delete"
    assert store.list_metrics("ftjob-a") == [{"step": 1, "metrics": {"loss": 0.5}}]
    store.close()


def test_writes_take_the_lock_before_they_read(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.create_job({"id": "ftjob-a"})
    statements: list[str] = []
    engine = store.database.engine
    event.listen(engine, "before_cursor_execute", lambda *args: statements.append(args[2].split("\n")[0]))
    store.set_job_status("ftjob-a", "queued")
    store.get_job("ftjob-a")
    assert [line for line in statements if line.startswith("BEGIN")] == ["BEGIN IMMEDIATE", "BEGIN DEFERRED"]
    assert statements[0] == "BEGIN IMMEDIATE"
    store.close()


def test_a_full_disk_is_a_fault_that_loses_nothing(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.create_job({"id": "ftjob-a"})
    # max_page_count makes SQLite refuse as it does on a full disk, with the same error.
    pragma_full = "PRAGMA max_page_count = 40"
    event.listen(store.database.engine, "begin", lambda begun: begun.exec_driver_sql(pragma_full), insert=True)
    with pytest.raises(StoreFault, match="database or disk is full; free space on the disk, then resume"):
        store.add_event("ftjob-a", "x" * 1_000_000)
    store.add_event("ftjob-a", "small")
    assert [event["message"] for event in store.list_events("ftjob-a")] == ["Created job ftjob-a", "small"]
    store.close()


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"hello" * 1000)
    with pytest.raises(StoreFault, match=r"store\.db refused: file is not a database; the file is no store; move it"):
        open_store(tmp_path)
    assert (tmp_path / "store.db").read_bytes() == b"hello" * 1000


# Migrations


@pytest.fixture(params=["sqlite", "postgres"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgres":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'store.db'}"


def test_migrations_make_exactly_the_tables_of_the_schema(store_url: str) -> None:
    store = open_store(store_url)
    with store.database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []
    store.close()


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(agentrft.store.__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_opening_again_migrates_nothing(store_url: str) -> None:
    open_store(store_url).close()
    script = (
        f"import sys; from agentrft.store import open_store; open_store({store_url!r}); print('alembic' in sys.modules)"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout
    assert output.strip() == "False"


def test_a_newer_schema_is_refused_and_left_alone(store_url: str) -> None:
    store = open_store(store_url)
    with store.database.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(StoreFault, match=f"has schema 9999, this agentrft knows up to {HEAD}: a newer agentrft"):
        open_store(store_url)


def test_a_migration_that_is_interrupted_leaves_nothing(store_url: str) -> None:
    # A table in the way makes the migration fail half-way, after `jobs` and `events`.
    from sqlalchemy import create_engine, inspect

    plain = create_engine(store_url, **({"module": pysqlite3.dbapi2} if store_url.startswith("sqlite") else {}))
    with plain.begin() as connection:
        connection.execute(text("CREATE TABLE metrics (x INTEGER)"))
    with pytest.raises(StoreFault, match=r"metrics.* already exists"):
        open_store(store_url)
    assert inspect(plain).get_table_names() == ["metrics"]
    with plain.begin() as connection:
        connection.execute(text("DROP TABLE metrics"))
    plain.dispose()
    open_store(store_url).close()


def test_the_wheel_carries_the_migrations(tmp_path: Path) -> None:
    from hatchling.builders.wheel import WheelBuilder

    root = Path(__file__).parents[2]
    import zipfile

    wheel = next(iter(WheelBuilder(os.fspath(root)).build(directory=os.fspath(tmp_path), versions=["standard"])))
    names = zipfile.ZipFile(wheel).namelist()
    assert "agentrft/store/migrations/env.py" in names
    assert "agentrft/store/migrations/versions/0001_first.py" in names
    assert "agentrft/py.typed" in names
