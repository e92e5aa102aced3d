"""A new master key: every stored secret is wrapped anew, so that the old key opens nothing any more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Table, delete, select, update

from agentrft.errors import UserError
from agentrft.jobs.vault import ENVIRONMENT, MasterKey, Vault, master_keys, rewrap_fields, write_master_keys
from agentrft.store.database import Database
from agentrft.store.schema import IDEMPOTENCY, JOBS, WEBHOOK_ENDPOINTS

_SEALED: tuple[Table, ...] = (JOBS, WEBHOOK_ENDPOINTS)
"""Tables whose `document` holds sealed values."""
_ROWS_AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotated:
    """What was done."""

    key_id: str
    n_values: int
    """That are under the new key now and were not before."""
    n_unreadable: int
    """That none of the keys opens: left as they are."""


class _Rewrapper:
    """Wraps values anew, and counts."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault
        self.n_values = 0
        self.unreadable: set[str] = set()

    def __call__(self, sealed: str) -> str:
        try:
            rewrapped = self._vault.rewrap(sealed)
        except UserError:  # damaged, of a key long lost, or a text of a user's that begins so by chance
            self.unreadable.add(sealed)
            return sealed
        self.n_values += rewrapped != sealed
        return rewrapped


def rotate(database: Database) -> Rotated:
    """Make a master key and rewrap everything under it; then forget the old ones. The server may run meanwhile.

    With keys in the environment nothing is made: their first one is the new key, which the operator put there. Killed
    half-way, it can be run again: until the end both keys are kept. Answers kept for retries are dropped. Old keys are
    kept as well where something is left that none of the keys opens.
    """
    is_given = bool(os.environ.get(ENVIRONMENT))
    keys = master_keys() if is_given else (MasterKey.made(), *master_keys())
    if not is_given:
        write_master_keys(keys)
    rewrap = _Rewrapper(Vault(lambda: keys))
    # The second time for what another process sealed with the old key while the first one was under way.
    for table in (*_SEALED, *_SEALED):
        for first, last in _pages(database, table):
            with database.write() as connection:
                _rewrap(connection, table, first, last, rewrap)
    with database.write() as connection:
        connection.execute(delete(IDEMPOTENCY).where(IDEMPOTENCY.c.status.is_not(None)))
    if not is_given and not rewrap.unreadable:
        write_master_keys(keys[:1])
    return Rotated(key_id=keys[0].id, n_values=rewrap.n_values, n_unreadable=len(rewrap.unreadable))


def _pages(database: Database, table: Table) -> Iterator[tuple[int, int]]:
    """Ranges of `seq` that hold at most `_ROWS_AT_ONCE` rows, so that no transaction lasts long."""
    behind = -1
    while True:
        query = select(table.c.seq).where(table.c.seq > behind).order_by(table.c.seq).limit(_ROWS_AT_ONCE)
        with database.read() as connection:
            found: list[int] = list(connection.execute(query).scalars())
        if not found:
            return
        yield found[0], found[-1]
        behind = found[-1]


def _rewrap(connection: Connection, table: Table, first: int, last: int, rewrap: _Rewrapper) -> None:
    query = select(table.c.seq, table.c.document).where(table.c.seq.between(first, last)).with_for_update()
    changed: list[tuple[int, Any]] = []
    for row in connection.execute(query):
        document = rewrap_fields(row.document, rewrap)
        if document != row.document:
            changed.append((row.seq, document))
    for seq, document in changed:
        connection.execute(update(table).where(table.c.seq == seq).values(document=document))
