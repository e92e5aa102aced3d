"""Webhook endpoints of a project, and which events are still owed to them.

`set_job_status` writes an event and one delivery for each endpoint that wants it in the transaction that changes the
job, so neither can be lost. What is here hands deliveries out and keeps count. Handing one out moves its due time by a
lease: a server that dies while it sends leaves the delivery to whoever looks after that. So a receiver may get an event
twice, and never not at all.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, insert, select, update

from agentrft.errors import UserError
from agentrft.store.database import Database
from agentrft.store.schema import DELIVERIES, WEBHOOK_ENDPOINTS, WEBHOOK_EVENTS

OLD_SECRET_S = 24 * 3600
"""How long a rotated secret goes on signing where that was asked for."""
KEPT_S = 7 * 24 * 3600
"""How long a delivery that is over stays in the table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedSecret:
    """A signing secret as it is kept."""

    sealed: str
    """Unreadable without the server's key."""
    expires_at: float | None = None
    """When it stops signing; None for the current one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEndpoint:
    """Where a project wants which events."""

    id: str
    project: str
    name: str
    url: str
    event_types: tuple[str, ...]
    created_at: float
    updated_at: float
    hint: str
    """What may be shown of the current secret."""
    secrets: tuple[SealedSecret, ...]
    """The current one first."""

    def signing(self, now: float) -> list[str]:
        """Sealed secrets that sign at `now`, the current one first."""
        return [one.sealed for one in self.secrets if one.expires_at is None or one.expires_at > now]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event that one endpoint is owed, handed out to be sent now."""

    seq: int
    tries: int
    """This one included."""
    event_id: str
    event_type: str
    event_at: float
    data: Mapping[str, Any]
    endpoint: WebhookEndpoint


def new_endpoint_id() -> str:
    """An id for a new endpoint; secrets are sealed under it before the endpoint is kept."""
    return f"we_{secrets.token_hex(12)}"


class Webhooks:
    """Queries on endpoints and deliveries; safe to use from several threads and servers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # Endpoints

    def create(
        self,
        project: str,
        endpoint_id: str,
        *,
        name: str,
        url: str,
        event_types: Sequence[str],
        sealed: str,
        hint: str,
    ) -> WebhookEndpoint:
        """A new endpoint with its first secret; `new_endpoint_id` gives ids."""
        now = self._database.clock.now()
        document = {"name": name, "url": url, "updated_at": now, "hint": hint, "secrets": [[sealed, None]]}
        row = {
            "id": endpoint_id,
            "project_id": project,
            "created_at": now,
            "event_types": list(event_types),
            "document": document,
        }
        with self._database.write() as connection:
            connection.execute(insert(WEBHOOK_ENDPOINTS).values(row))
            return _endpoint(_find(connection, project, endpoint_id))

    def get(self, project: str, endpoint_id: str) -> WebhookEndpoint:
        """One endpoint; raises UserError `not_found`, for other projects' too."""
        with self._database.read() as connection:
            return _endpoint(_find(connection, project, endpoint_id))

    def list(self, project: str, *, after: str | None, limit: int) -> tuple[list[WebhookEndpoint], bool]:
        """Endpoints, oldest first, behind the one `after`; and whether there are more."""
        table = WEBHOOK_ENDPOINTS
        query = select(table).where(table.c.project_id == project).order_by(table.c.seq).limit(limit + 1)
        with self._database.read() as connection:
            if after is not None:
                query = query.where(table.c.seq > _find(connection, project, after).seq)
            found = [_endpoint(row) for row in connection.execute(query)]
        return found[:limit], len(found) > limit

    def update(
        self,
        project: str,
        endpoint_id: str,
        *,
        name: str | None = None,
        url: str | None = None,
        event_types: Sequence[str] | None = None,
    ) -> WebhookEndpoint:
        """Change what is given; `updated_at` moves only when something changes. Raises UserError `not_found`."""
        with self._database.write() as connection:
            row = _find(connection, project, endpoint_id, lock=True)
            given = {key: text for key, text in (("name", name), ("url", url)) if text is not None}
            document = {**row.document, **given}
            wanted = list(row.event_types if event_types is None else event_types)
            if (document, wanted) != (row.document, row.event_types):
                self._write(connection, endpoint_id, document, event_types=wanted)
            return _endpoint(_find(connection, project, endpoint_id))

    def rotate(self, project: str, endpoint_id: str, *, sealed: str, hint: str, keep_old: bool) -> WebhookEndpoint:
        """Sign with a new secret from now on, for a day with the former one too if `keep_old`.

        Raises UserError `not_found`.
        """
        with self._database.write() as connection:
            row = _find(connection, project, endpoint_id, lock=True)
            former = [[row.document["secrets"][0][0], self._database.clock.now() + OLD_SECRET_S]] if keep_old else []
            document = {**row.document, "hint": hint, "secrets": [[sealed, None], *former]}
            self._write(connection, endpoint_id, document)
            return _endpoint(_find(connection, project, endpoint_id))

    def delete(self, project: str, endpoint_id: str) -> None:
        """Forget the endpoint and what it is still owed. Raises UserError `not_found`."""
        with self._database.write() as connection:
            _find(connection, project, endpoint_id)
            connection.execute(delete(DELIVERIES).where(DELIVERIES.c.endpoint_id == endpoint_id))
            connection.execute(delete(WEBHOOK_ENDPOINTS).where(WEBHOOK_ENDPOINTS.c.id == endpoint_id))

    def _write(self, connection: Connection, endpoint_id: str, document: dict[str, Any], **columns: Any) -> None:
        document = {**document, "updated_at": self._database.clock.now()}
        change = update(WEBHOOK_ENDPOINTS).where(WEBHOOK_ENDPOINTS.c.id == endpoint_id)
        connection.execute(change.values(document=document, **columns))

    # Deliveries

    def claim_due(self, *, limit: int, lease_s: float, busy: Sequence[str] = ()) -> list[Delivery]:
        """Deliveries to send now, one an endpoint, the oldest first; they are due again when the lease has passed.

        Endpoints in `busy` are left out: one that takes long gets one delivery at a time, and holds up no other.
        """
        now = self._database.clock.now()
        oldest = (
            select(func.min(DELIVERIES.c.seq))
            .where(_is_open(), DELIVERIES.c.due_at <= now, DELIVERIES.c.endpoint_id.not_in(busy))
            .group_by(DELIVERIES.c.endpoint_id)
            .order_by(func.min(DELIVERIES.c.seq))
            .limit(limit)
        )
        with self._database.write() as connection:
            chosen = list(connection.execute(oldest).scalars())
            # Due still: another server may have taken one in between, where the database lets both look at once.
            taking = update(DELIVERIES).where(DELIVERIES.c.seq.in_(chosen), DELIVERIES.c.due_at <= now)
            lease = {"due_at": now + lease_s, "tries": DELIVERIES.c.tries + 1}
            taken = list(connection.execute(taking.values(lease).returning(DELIVERIES.c.seq)).scalars())
            return [_delivery(row) for row in connection.execute(_in_full(taken))]

    def next_due(self, *, busy: Sequence[str] = ()) -> float | None:
        """When the next open delivery is due, but those of endpoints in `busy`; None when nothing is owed."""
        query = select(func.min(DELIVERIES.c.due_at)).where(_is_open(), DELIVERIES.c.endpoint_id.not_in(busy))
        with self._database.read() as connection:
            return connection.execute(query).scalar()

    def delivered(self, seq: int) -> None:
        """The receiver has it. Deliveries settled a week ago are forgotten with it."""
        now = self._database.clock.now()
        self._settle(seq, delivered_at=now)
        with self._database.write() as connection:
            settled_at = func.coalesce(DELIVERIES.c.delivered_at, DELIVERIES.c.given_up_at)
            connection.execute(delete(DELIVERIES).where(settled_at < now - KEPT_S))

    def try_again(self, seq: int, *, wait_s: float) -> None:
        """It failed; it is due again in `wait_s`."""
        self._settle(seq, due_at=self._database.clock.now() + wait_s)

    def give_up(self, seq: int) -> None:
        """It failed for the last time."""
        self._settle(seq, given_up_at=self._database.clock.now())

    def _settle(self, seq: int, **values: float) -> None:
        with self._database.write() as connection:
            connection.execute(update(DELIVERIES).where(DELIVERIES.c.seq == seq, _is_open()).values(values))


def _is_open() -> Any:
    return and_(DELIVERIES.c.delivered_at.is_(None), DELIVERIES.c.given_up_at.is_(None))


def _find(connection: Connection, project: str, endpoint_id: str, *, lock: bool = False) -> Row[Any]:
    table = WEBHOOK_ENDPOINTS
    query = select(table).where(table.c.id == endpoint_id, table.c.project_id == project)
    found = connection.execute(query.with_for_update() if lock else query).first()
    if found is None:
        raise UserError(
            f"no webhook endpoint {endpoint_id!r} in this project; list them with GET /v1/webhook_endpoints",
            param="webhook_endpoint_id",
            code="not_found",
        )
    return found


def _in_full(chosen: Sequence[int]) -> Any:
    events, endpoints = WEBHOOK_EVENTS, WEBHOOK_ENDPOINTS
    # Endpoint columns keep their names, so that `_endpoint` reads these rows as well.
    return (
        select(
            endpoints,
            DELIVERIES.c.seq.label("delivery_seq"),
            DELIVERIES.c.tries,
            events.c.id.label("event_id"),
            events.c.type.label("event_type"),
            events.c.created_at.label("event_at"),
            events.c.data,
        )
        .join_from(DELIVERIES, events, DELIVERIES.c.event_id == events.c.id)
        .join(endpoints, DELIVERIES.c.endpoint_id == endpoints.c.id)
        .where(DELIVERIES.c.seq.in_(chosen))
        .order_by(DELIVERIES.c.seq)
    )


def _delivery(row: Row[Any]) -> Delivery:
    return Delivery(
        seq=row.delivery_seq,
        tries=row.tries,
        event_id=row.event_id,
        event_type=row.event_type,
        event_at=row.event_at,
        data=row.data,
        endpoint=_endpoint(row),
    )


def _endpoint(row: Row[Any]) -> WebhookEndpoint:
    document = row.document
    return WebhookEndpoint(
        id=row.id,
        project=row.project_id,
        name=document["name"],
        url=document["url"],
        event_types=tuple(row.event_types),
        created_at=row.created_at,
        updated_at=document["updated_at"],
        hint=document["hint"],
        secrets=tuple(SealedSecret(sealed=sealed, expires_at=expires_at) for sealed, expires_at in document["secrets"]),
    )
