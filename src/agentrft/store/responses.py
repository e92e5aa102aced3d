"""Responses of models that are kept: each with its own input items, and a link to the one that it goes on from.

A conversation is what the links lead through, so it is kept once, however many responses it has. A response that was
deleted or is too old is unknown at once. Its row stays while a living one goes on from it, which has to know all of its
conversation, and goes with the last of those.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, delete, exists, insert, not_, select, update

from agentrft.errors import StoreFault, UserError
from agentrft.store.database import Database
from agentrft.store.schema import RESPONSES
from agentrft.store.values import storable

Item = dict[str, Any]
"""A message, a call or its output, as the Responses API writes them."""

_SWEPT_AT_ONCE = 500
"""Rows a transaction: others want to write, too."""

_LATER = RESPONSES.alias("later")
_GOES_ON = exists(select(_LATER.c.seq).where(_LATER.c.previous_id == RESPONSES.c.id))
"""Whether any response goes on from this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    body: dict[str, Any]
    """The response as it was answered; `output` holds its items."""
    items: list[Item]
    """What it was asked, beyond the conversation of the response that it goes on from."""


class Responses:
    """A project's responses."""

    def __init__(self, database: Database, *, keep_s: float) -> None:
        """Responses are forgotten `keep_s` seconds after they were added."""
        self._database = database
        self._keep_s = keep_s

    def add(self, project: str, body: Mapping[str, Any], items: Sequence[Item], *, before: Sequence[Item] = ()) -> None:
        """Keep a response, which has `id`, `previous_response_id` and `output`, with its input items.

        `before` is what `conversation` gave of the previous response. Where that one was deleted meanwhile and is gone,
        those items are kept with this one.
        """
        row = {
            "id": body["id"],
            "project_id": project,
            "previous_id": body["previous_response_id"],
            "created_at": self._database.clock.now(),
            "record": _packed(_Record(body=dict(body), items=list(items))),
        }
        with self._database.write() as connection:
            if row["previous_id"] is not None and not self._hold(connection, project, row["previous_id"]):
                whole = _Record(body=dict(body), items=[*before, *items])
                row |= {"previous_id": None, "record": _packed(whole)}
            connection.execute(insert(RESPONSES), row)

    def get(self, project: str, response_id: str) -> dict[str, Any]:
        """The response as it was answered; UserError (`not_found`) for one that is not there, or another project's."""
        with self._database.read() as connection:
            return _record(self._row(connection, project, response_id)).body

    def context(self, project: str, response_id: str) -> list[Item]:
        """The items that it was made from, oldest first: the conversation before it, and its own input.

        Raises UserError (`not_found`) as `get`.
        """
        with self._database.read() as connection:
            chain = self._chain(connection, project, response_id)
        if not chain:
            raise _unknown(response_id)
        return [*_items(chain[:-1]), *chain[-1].items]

    def conversation(self, project: str, response_id: str) -> list[Item]:
        """The items that a response to follow goes on from, oldest first: `context` and the output.

        Raises UserError (`previous_response_not_found`) for one that is not there, or another project's.
        """
        with self._database.read() as connection:
            chain = self._chain(connection, project, response_id)
        if not chain:
            raise UserError(
                f"Previous response with id {response_id[:200]!r} not found: this project has none that is kept under "
                "it; send the conversation as `input`, or ask with `store`: true next time",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        return _items(chain)

    def delete(self, project: str, response_id: str) -> None:
        """Forget the response; those that go on from it stay as they are. UserError (`not_found`) as `get`."""
        with self._database.write() as connection:
            row = self._row(connection, project, response_id)
            now = self._database.clock.now()
            connection.execute(update(RESPONSES).where(RESPONSES.c.seq == row.seq).values(deleted_at=now))
            self._drop(connection, [row.id])

    def sweep(self) -> int:
        """Take away what nobody can ask for any more; returns how many went. Call it now and then."""
        n_gone = 0
        while old := self._old():
            with self._database.write() as connection:
                n_gone += self._drop(connection, old)
        return n_gone

    def _old(self) -> list[str]:
        """Some of those that are too old and that none goes on from."""
        query = select(RESPONSES.c.id).where(RESPONSES.c.created_at <= self._oldest(), not_(_GOES_ON))
        with self._database.read() as connection:
            return list(connection.execute(query.limit(_SWEPT_AT_ONCE)).scalars())

    def _drop(self, connection: Connection, ids: Collection[str]) -> int:
        """Delete those that are unknown and that none goes on from, then what only they went on from; how many."""
        n_gone = 0
        while ids:
            named = RESPONSES.c.id.in_(ids)
            # Who goes on from one of them holds it (`_hold`): only behind their transactions is it seen who did.
            connection.execute(select(RESPONSES.c.seq).where(named).order_by(RESPONSES.c.seq).with_for_update())
            unused = select(RESPONSES.c.seq, RESPONSES.c.previous_id).where(
                named, not_(self._is_known()), not_(_GOES_ON)
            )
            rows = connection.execute(unused).all()
            connection.execute(delete(RESPONSES).where(RESPONSES.c.seq.in_([row.seq for row in rows])))
            n_gone += len(rows)
            ids = {row.previous_id for row in rows if row.previous_id is not None}
        return n_gone

    def _hold(self, connection: Connection, project: str, response_id: str) -> bool:
        """Whether the row is there, known or not; nobody deletes it until the transaction ends."""
        query = select(RESPONSES.c.seq).where(RESPONSES.c.id == response_id, RESPONSES.c.project_id == project)
        return connection.execute(query.with_for_update(read=True, key_share=True)).first() is not None

    def _chain(self, connection: Connection, project: str, response_id: str) -> list[_Record]:
        """The response, and those that it goes on from, known or not, oldest first; empty where it is unknown.

        One statement: PostgreSQL shows the next one what others have deleted meanwhile.
        """
        chain = select(RESPONSES.c.id, RESPONSES.c.previous_id).where(self._is(project, response_id))
        chain = chain.cte("chain", recursive=True)
        before = select(RESPONSES.c.id, RESPONSES.c.previous_id).where(RESPONSES.c.id == chain.c.previous_id)
        chain = chain.union_all(before)
        # A response is added behind the one it goes on from.
        query = select(RESPONSES).where(RESPONSES.c.id.in_(select(chain.c.id))).order_by(RESPONSES.c.seq)
        return [_record(row) for row in connection.execute(query)]

    def _row(self, connection: Connection, project: str, response_id: str) -> Row[Any]:
        row = connection.execute(select(RESPONSES).where(self._is(project, response_id))).first()
        if row is None:
            raise _unknown(response_id)
        return row

    def _is(self, project: str, response_id: str) -> ColumnElement[bool]:
        """Whether a row is this response, and known."""
        return and_(RESPONSES.c.id == storable(response_id), RESPONSES.c.project_id == project, self._is_known())

    def _is_known(self) -> ColumnElement[bool]:
        return and_(RESPONSES.c.deleted_at.is_(None), RESPONSES.c.created_at > self._oldest())

    def _oldest(self) -> float:
        return self._database.clock.now() - self._keep_s


def _unknown(response_id: str) -> UserError:
    message = f"no response {response_id[:200]!r} is kept in this project; check the id"
    return UserError(message, param="response_id", code="not_found")


def _items(records: Sequence[_Record]) -> list[Item]:
    return [item for record in records for item in (*record.items, *record.body["output"])]


def _packed(record: _Record) -> bytes:
    document = {"body": record.body, "items": record.items}
    return zlib.compress(json.dumps(document, separators=(",", ":")).encode(), level=6)


def _record(row: Row[Any]) -> _Record:
    try:
        return _Record(**json.loads(zlib.decompress(row.record)))
    except (zlib.error, ValueError) as error:
        raise StoreFault(f"a stored response is damaged ({error}); restore the store from a backup") from error
