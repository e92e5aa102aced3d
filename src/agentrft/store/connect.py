"""Opening a store: the right SQLite or PostgreSQL, settings that survive a power cut, migrations up to date."""

from __future__ import annotations

import importlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_random

from agentrft.clock import SYSTEM_CLOCK
from agentrft.errors import StoreFault, UserError
from agentrft.home import home
from agentrft.protocols import Clock
from agentrft.store.database import Database
from agentrft.store.faults import store_faults
from agentrft.store.schema import HEAD
from agentrft.store.sql_store import SqlStore

BUSY_TIMEOUT_S = 30
"""How long a writer waits for another's transaction; ours last milliseconds."""

SAFE_WAL = (3, 51, 3)
"""First SQLite whose write-ahead log cannot lose a commit to a concurrent reset (the bug of 2010 to 2026)."""

_MIGRATION_LOCK = 0x61677266
"""Names the advisory lock under which one process at a time migrates a PostgreSQL store."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteDriver:
    """A Python module for SQLite, and how it may keep its journal."""

    module: Any
    version: str
    journal_mode: str
    """WAL, or DELETE (readers wait for writers) where the write-ahead log is not safe."""


def sqlite_driver(candidates: Sequence[str] = ("pysqlite3.dbapi2", "sqlite3")) -> SqliteDriver:
    """The first candidate with a safe write-ahead log, else the last one that imports, with journal_mode DELETE.

    `pysqlite3` carries its own SQLite; the standard library's is whatever the system has.
    """
    fallback: SqliteDriver | None = None
    for name in candidates:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue
        safe = tuple(int(part) for part in module.sqlite_version.split(".")) >= SAFE_WAL
        fallback = SqliteDriver(module=module, version=module.sqlite_version, journal_mode="WAL" if safe else "DELETE")
        if safe:
            return fallback
    if fallback is None:
        raise StoreFault(f"no SQLite module among {', '.join(candidates)}; install pysqlite3")
    return fallback


def open_store(
    url_or_home: str | Path | None = None, *, clock: Clock = SYSTEM_CLOCK, driver: SqliteDriver | None = None
) -> SqlStore:
    """The store at a database URL, or in a folder (`store.db` in it; default `AGENTRFT_HOME`), made if missing.

    Brings the schema up to date, one process at a time. Raises UserError for a URL or folder that cannot be used,
    StoreFault when the database refuses or was written by a newer agentrft. Open it anew in each process: connections
    do not survive a fork.
    """
    url = _url(url_or_home)
    engine = _sqlite(url, driver or sqlite_driver()) if url.get_backend_name() == "sqlite" else _postgres(url)
    try:
        with store_faults(engine.url):
            _migrate(engine)
    except StoreFault:
        engine.dispose()
        raise
    return SqlStore(Database(engine, clock=clock))


def _url(url_or_home: str | Path | None) -> URL:
    if isinstance(url_or_home, str) and "://" in url_or_home:
        try:
            url = make_url(url_or_home)
        except ArgumentError as error:
            raise UserError(f"the store URL cannot be read: {error}", param="store", code="invalid_store") from error
        if url.drivername in ("sqlite", "postgresql+psycopg") and (url.database or url.drivername != "sqlite"):
            return url
        raise UserError(
            f"the store is {url.render_as_string()!r}; expected a folder, sqlite:///FILE or"
            " postgresql+psycopg://USER@HOST/DATABASE",
            param="store",
            code="invalid_store",
        )
    folder = home() if url_or_home is None else Path(url_or_home)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the state folder {folder} cannot be made: {error}; set AGENTRFT_HOME to a folder you can write to",
            param="AGENTRFT_HOME",
            code="invalid_store",
        ) from error
    return URL.create("sqlite", database=str(folder / "store.db"))


def _strict_json(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def _sqlite(url: URL, driver: SqliteDriver) -> Engine:
    engine = create_engine(
        url, module=driver.module, connect_args={"timeout": BUSY_TIMEOUT_S}, json_serializer=_strict_json
    )

    @event.listens_for(engine, "connect")
    def settings(connection: Any, _record: Any) -> None:
        # The driver's own transactions begin late and never IMMEDIATE; `begin` below takes their place.
        connection.isolation_level = None
        cursor = connection.cursor()
        # Changing the mode of a file that another process opens at the same moment can fail without waiting.
        for attempt in Retrying(
            retry=retry_if_exception_message(match=".*locked.*"),
            stop=stop_after_delay(BUSY_TIMEOUT_S),
            wait=wait_random(0.01, 0.1),
            reraise=True,
        ):
            with attempt:
                cursor.execute(f"PRAGMA journal_mode = {driver.journal_mode}")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
        connection.exec_driver_sql(f"BEGIN {mode}")

    return engine


def _postgres(url: URL) -> Engine:
    try:
        return create_engine(url, pool_pre_ping=True, json_serializer=_strict_json)
    except ImportError as error:
        raise UserError(
            "the store is PostgreSQL but its driver psycopg is not installed; run: pip install 'agentrft[postgres]'",
            param="store",
            code="missing_extra",
        ) from error


def _migrate(engine: Engine) -> None:
    with engine.connect() as connection:
        if _revision(connection) == HEAD:
            return
    with engine.connect().execution_options(sqlite_begin="IMMEDIATE") as connection, connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        revision = _revision(connection)
        if revision != HEAD:
            _upgrade(connection, revision)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: Connection, revision: str | None) -> None:
    # Imported here: most openings find the schema up to date, and Alembic takes a tenth of a second to import.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise StoreFault(
            f"the store has schema {revision}, this agentrft knows up to {HEAD}: a newer agentrft wrote it; upgrade, or"
            " set AGENTRFT_HOME to another folder"
        )
    command.upgrade(config, "head")
