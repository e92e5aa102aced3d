"""Which projects may use a checkpoint of another project's job."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, insert, select

from agentrft.errors import UserError
from agentrft.store.database import Database
from agentrft.store.schema import PERMISSIONS


class Permissions:
    """The store's permissions, by the name of the model that they are for (`ft:…:ckpt-step-N`, or a job's result)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, job_id: str, model: str, project_ids: Sequence[str]) -> list[dict[str, Any]]:
        """One `{id, created_at, project_id}` for each project; what a project has already is given back as it is."""
        with self._database.write() as connection:
            return [self._one(connection, job_id, model, project) for project in dict.fromkeys(project_ids)]

    def list(
        self,
        model: str,
        *,
        project_id: str | None = None,
        after: str | None = None,
        limit: int = 10,
        order: Literal["ascending", "descending"] = "descending",
    ) -> list[dict[str, Any]]:
        """Permissions for the model by age; raises UserError where `after` is none of them."""
        query = select(PERMISSIONS).where(PERMISSIONS.c.model == model)
        if project_id is not None:
            query = query.where(PERMISSIONS.c.project_id == project_id)
        with self._database.read() as connection:
            seq = PERMISSIONS.c.seq
            if after is not None:
                place = self._row(connection, model, after, param="after").seq
                query = query.where(seq > place if order == "ascending" else seq < place)
            query = query.order_by(seq if order == "ascending" else seq.desc()).limit(limit)
            return [_permission(row) for row in connection.execute(query)]

    def delete(self, model: str, permission_id: str) -> None:
        """Take the permission back; raises UserError (`not_found`) where the model has no such permission."""
        with self._database.write() as connection:
            row = self._row(connection, model, permission_id, param="permission_id")
            connection.execute(delete(PERMISSIONS).where(PERMISSIONS.c.seq == row.seq))

    def allows(self, model: str, project_id: str) -> bool:
        """Whether the project may use the model although it belongs to another."""
        return bool(self.list(model, project_id=project_id, limit=1))

    def models_of(self, project_id: str) -> list[tuple[str, str]]:
        """(job id, model) of everything that other projects let this one use, oldest first."""
        query = select(PERMISSIONS).where(PERMISSIONS.c.project_id == project_id).order_by(PERMISSIONS.c.seq)
        with self._database.read() as connection:
            return [(row.job_id, row.model) for row in connection.execute(query)]

    def _one(self, connection: Connection, job_id: str, model: str, project: str) -> dict[str, Any]:
        known = select(PERMISSIONS).where(PERMISSIONS.c.model == model, PERMISSIONS.c.project_id == project)
        row = connection.execute(known).first()
        if row is not None:
            return _permission(row)
        made = {
            "id": f"cp_{secrets.token_hex(12)}",
            "job_id": job_id,
            "model": model,
            "project_id": project,
            "created_at": self._database.clock.now(),
        }
        connection.execute(insert(PERMISSIONS), made)
        return {name: made[name] for name in ("id", "created_at", "project_id")}

    def _row(self, connection: Connection, model: str, permission_id: str, *, param: str) -> Row[Any]:
        query = select(PERMISSIONS).where(PERMISSIONS.c.model == model, PERMISSIONS.c.id == permission_id)
        row = connection.execute(query).first()
        if row is None:
            raise UserError(
                f"model {model!r} has no permission {permission_id!r}; list its permissions for those there are",
                param=param,
                code="not_found",
            )
        return row


def _permission(row: Row[Any]) -> dict[str, Any]:
    return {"id": row.id, "created_at": row.created_at, "project_id": row.project_id}
