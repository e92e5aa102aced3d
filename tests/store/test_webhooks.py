"""Webhook endpoints in both databases: of two changes at the same time neither is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event

from agentrft.store import SqlStore, open_store
from agentrft.store.webhooks import Webhooks


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlStore]:
    where: Any = tmp_path if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    opened = open_store(where)
    yield opened
    opened.close()


def test_a_secret_that_is_rotated_during_another_change_stays_rotated(store: SqlStore) -> None:
    webhooks = Webhooks(store.database)
    webhooks.create("p", "we_a", name="old", url="https://e.com", event_types=["x"], sealed="first", hint="h")
    other = threading.Thread(target=lambda: webhooks.rotate("p", "we_a", sealed="second", hint="h", keep_old=False))

    def rotate_meanwhile(*given: Any) -> None:
        if "FROM webhook_endpoints" in given[2] and other.ident is None:
            other.start()
            other.join(1.0)  # it has to wait for the change that has read the row

    event.listen(store.database.engine, "after_cursor_execute", rotate_meanwhile)
    webhooks.update("p", "we_a", name="new")
    other.join()
    endpoint = webhooks.get("p", "we_a")
    assert (endpoint.name, [one.sealed for one in endpoint.secrets]) == ("new", ["second"])
