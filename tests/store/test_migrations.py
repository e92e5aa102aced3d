"""Stores of earlier releases open with everything in them."""

from __future__ import annotations

from pathlib import Path

import pysqlite3.dbapi2
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text

import agentrft.store
from agentrft.store import open_store

FIRST = """
INSERT INTO jobs (id, status, created_at, document, token) VALUES ('ftjob-a', 'paused', 5, '{"model": "m"}', 3);
INSERT INTO events (job_id, created_at, level, message) VALUES ('ftjob-a', 6, 'info', 'Created job ftjob-a');
INSERT INTO metrics (job_id, step, name, value) VALUES ('ftjob-a', 1, 'loss', 0.5)
"""


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return request.getfixturevalue("postgres_url") if request.param == "postgres" else f"sqlite:///{tmp_path / 's.db'}"


def test_a_store_of_the_first_release_opens(url: str) -> None:
    engine = create_engine(url, **({"module": pysqlite3.dbapi2} if url.startswith("sqlite") else {}))
    with engine.begin() as connection:
        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(Path(agentrft.store.__file__).parent / "migrations"))
        config.set_main_option("path_separator", "os")
        command.upgrade(config, "0001")
        for statement in FIRST.split(";"):
            connection.execute(text(statement))
    engine.dispose()
    store = open_store(url)
    assert store.get_job("ftjob-a") == {
        "id": "ftjob-a",
        "model": "m",
        "status": "paused",
        "created_at": 5.0,
        "finished_at": None,
        "error": None,
        "owner": None,
        "lease_until": None,
        "project_id": "proj_local",
        "runner": "cli",
        "wish": None,
        "restarts": 0,
    }
    assert [(event["message"], event["type"]) for event in store.list_events("ftjob-a")] == [
        ("Created job ftjob-a", "message")
    ]
    assert store.list_metrics("ftjob-a") == [{"step": 1, "metrics": {"loss": 0.5}}]
    assert store.claim_job("ftjob-a", "me", 5.0) == 4  # tokens go on where they were
    store.set_job_status("ftjob-a", "queued")
    store.close()
