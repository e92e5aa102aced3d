"""Which requests were answered already, so that sending one again does nothing twice; across restarts and servers.

A request takes a turn under its key. Its turn has a token, kept before anything is done: what is made under it can be
named after it, so that a second turn after a crash finds what the first one had made.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from agentrft.errors import UserError
from agentrft.store.database import Database
from agentrft.store.schema import IDEMPOTENCY

STALE_S = 20.0
"""A turn that was not refreshed for so long belongs to a server that died."""


@dataclass(frozen=True, slots=True)
class Turn:
    """The request is to be carried out now."""

    token: str
    """Of this key, the same again when the server that began has died."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The request was carried out; the answer as `finish` got it."""

    status: int
    answer: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Someone carries it out at this moment."""


class Idempotency:
    """Answers by project and key."""

    def __init__(self, database: Database, *, keep_s: float) -> None:
        """Answers are forgotten after `keep_s` seconds."""
        self._database = database
        self._keep_s = keep_s

    def begin(self, project: str, key: str, request_sha256: str, *, anew: bool = False) -> Turn | Answered | Busy:
        """What to do with a request; `anew` starts over whatever there was under the key.

        Raises UserError (`idempotency_key_reused`) when the key was used for another request.
        """
        clock = self._database.clock
        row = {
            "project_id": project,
            "key": key,
            "request_sha256": request_sha256,
            "owner": secrets.token_hex(16),
            "status": None,
            "answer": None,
            "created_at": clock.now(),
        }
        with self._database.write() as connection:
            if anew:
                self._database.upsert(connection, IDEMPOTENCY, [row])
                return Turn(row["owner"])
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            adding = dialect.insert(IDEMPOTENCY).values(row).on_conflict_do_nothing().returning(IDEMPOTENCY.c.owner)
            if connection.execute(adding).first():
                return Turn(row["owner"])
            there = connection.execute(select(IDEMPOTENCY).where(_is(project, key)).with_for_update()).first()
            if there is None:  # abandoned in between, where the database lets another write at the same time
                return Busy()
            if there.created_at < self._oldest():
                self._database.upsert(connection, IDEMPOTENCY, [row])
                return Turn(row["owner"])
            if there.request_sha256 != request_sha256:
                raise UserError(
                    "this Idempotency-Key was used for another request; send another key, or the same body as before",
                    code="idempotency_key_reused",
                )
            if there.status is not None:
                return Answered(there.status, there.answer)
            if clock.now() - there.created_at < STALE_S:
                return Busy()
            connection.execute(update(IDEMPOTENCY).where(_is(project, key)).values(created_at=clock.now()))
            return Turn(there.owner)

    def refresh(self, project: str, key: str, turn: Turn) -> None:
        """Say that the request is still being carried out; call it well within `STALE_S`."""
        self._set(project, key, turn, created_at=self._database.clock.now())

    def finish(self, project: str, key: str, turn: Turn, status: int, answer: str) -> None:
        """Keep the answer; nothing happens when someone else has begun anew."""
        self._set(project, key, turn, status=status, answer=answer, created_at=self._database.clock.now())

    def give_back(self, project: str, key: str, turn: Turn) -> None:
        """Nobody knows what came of it: the next try is carried out at once, under the same token."""
        self._set(project, key, turn, created_at=self._database.clock.now() - STALE_S)

    def abandon(self, project: str, key: str, turn: Turn) -> None:
        """Nothing came of it: the next request of the kind is carried out."""
        with self._database.write() as connection:
            mine = IDEMPOTENCY.c.owner == turn.token, IDEMPOTENCY.c.status.is_(None)
            connection.execute(delete(IDEMPOTENCY).where(_is(project, key), *mine))

    def _set(self, project: str, key: str, turn: Turn, **values: float | str) -> None:
        with self._database.write() as connection:
            mine = IDEMPOTENCY.c.owner == turn.token, IDEMPOTENCY.c.status.is_(None)
            connection.execute(update(IDEMPOTENCY).where(_is(project, key), *mine).values(**values))

    def sweep(self) -> None:
        """Forget what is too old to count. Call it now and then."""
        with self._database.write() as connection:
            connection.execute(delete(IDEMPOTENCY).where(IDEMPOTENCY.c.created_at < self._oldest()))

    def _oldest(self) -> float:
        return self._database.clock.now() - self._keep_s


def _is(project: str, key: str) -> ColumnElement[bool]:
    return (IDEMPOTENCY.c.project_id == project) & (IDEMPOTENCY.c.key == key)
