"""Files that arrive in parts: announced with their size, put together in the order that the client names.

Every part is on the disk before it is acknowledged, and stays there until its upload has ended. Only the transaction
that adds the finished file ends an upload, so of two that complete the same one, one wins; and what a crash leaves
behind can be completed again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, func, insert, select, update

from agentrft.errors import StoreFault, UserError
from agentrft.store.database import Database
from agentrft.store.files import Draft, FileBytes, Files, StoredFile, new_id
from agentrft.store.schema import UPLOAD_PARTS, UPLOADS
from agentrft.store.values import storable

LIVES_S = 3600
"""An upload that is not completed by then is gone."""

_PIECE_BYTES = 1 << 20

Status = Literal["pending", "completed", "cancelled", "expired"]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredUpload:
    """One announced file."""

    id: str
    project: str
    filename: str
    purpose: str
    bytes: int
    status: Status
    created_at: float
    expires_at: float
    file_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredPart:
    """One piece of an upload."""

    id: str
    upload_id: str
    created_at: float


class Uploads:
    """A project's uploads."""

    def __init__(self, database: Database, content: FileBytes, files: Files) -> None:
        self._database = database
        self._content = content
        self._files = files

    def create(
        self,
        project: str,
        *,
        filename: str,
        purpose: str,
        mime_type: str,
        n_bytes: int,
        file_expires_after_s: int | None = None,
    ) -> StoredUpload:
        """Announce a file. UserError when the project's quota does not hold it."""
        now = self._database.clock.now()
        row = {
            "id": new_id("upload_"),
            "project_id": project,
            "filename": storable(filename)[:1000],
            "purpose": purpose,
            "mime_type": storable(mime_type),
            "bytes": n_bytes,
            "status": "pending",
            "created_at": now,
            "expires_at": now + LIVES_S,
            "file_expires_after_s": file_expires_after_s,
        }
        with self._database.write() as connection:
            self._content.check_quota(connection, project, n_bytes)
            connection.execute(insert(UPLOADS), row)
        return self.get(project, row["id"])

    def get(self, project: str, upload_id: str) -> StoredUpload:
        """The upload; UserError (`not_found`) for one that is not there, or is another project's."""
        with self._database.read() as connection:
            return self._upload(_find(connection, project, upload_id))

    def add_part(self, project: str, upload_id: str, draft: Draft) -> StoredPart:
        """A new part from a finished draft. UserError when the upload is over, or all parts exceed its size."""
        with self._database.write() as connection:
            row = self._pending(connection, project, upload_id)
            sent = select(func.coalesce(func.sum(UPLOAD_PARTS.c.bytes), 0)).where(UPLOAD_PARTS.c.upload_id == upload_id)
            # A part that is sent again after a lost answer must fit too; `complete` checks the true size.
            if int(connection.execute(sent).scalar_one()) + draft.n_bytes > 2 * row.bytes + _PIECE_BYTES:
                message = f"the parts hold more than twice the {row.bytes} bytes announced; create a new upload"
                raise UserError(message, param="data", code="upload_too_large")
            self._content.check_quota(connection, project, draft.n_bytes)
            part = {
                "id": new_id("part_"),
                "upload_id": upload_id,
                "sha256": draft.sha256,
                "bytes": draft.n_bytes,
                "created_at": self._database.clock.now(),
            }
            connection.execute(insert(UPLOAD_PARTS), part)
            self._content.keep(connection, draft)
        return StoredPart(id=part["id"], upload_id=upload_id, created_at=part["created_at"])

    def complete(
        self, project: str, upload_id: str, part_ids: Sequence[str], md5: str | None = None
    ) -> tuple[StoredUpload, StoredFile]:
        """The file that the parts make in that order. UserError when they are not what was announced."""
        with self._database.read() as connection:
            row = self._pending(connection, project, upload_id, lock=False)
            found = connection.execute(select(UPLOAD_PARTS).where(UPLOAD_PARTS.c.upload_id == upload_id))
            parts = {part.id: part for part in found}
        _check_parts(row, parts, part_ids)
        draft = self._files.draft()
        try:
            found_md5 = self._put_together(draft, [parts[part_id].sha256 for part_id in part_ids])
            if md5 is not None and md5.lower() != found_md5:
                message = f"the parts have the MD5 {found_md5}, got {md5!r}; send the missing or damaged part again"
                raise UserError(message, param="md5", code="upload_mismatch")
            with self._database.write() as connection:
                self._content.lock_project(connection, project)
                row = self._pending(connection, project, upload_id)
                hashes = _take_parts(connection, upload_id)  # first: theirs and the file's bytes have one quota
                file = self._files.add_row(
                    connection, project, draft, row.filename, row.purpose, row.file_expires_after_s
                )
                change = update(UPLOADS).where(UPLOADS.c.id == upload_id)
                connection.execute(change.values(status="completed", file_id=file.id))
                upload = self._upload(_find(connection, project, upload_id))
        finally:
            draft.discard()
        self._drop(hashes)
        return upload, file

    def cancel(self, project: str, upload_id: str) -> StoredUpload:
        """End the upload; its parts are gone. UserError when it is over already."""
        with self._database.write() as connection:
            self._pending(connection, project, upload_id)
            hashes = _take_parts(connection, upload_id)
            connection.execute(update(UPLOADS).where(UPLOADS.c.id == upload_id).values(status="cancelled"))
            upload = self._upload(_find(connection, project, upload_id))
        self._drop(hashes)
        return upload

    def sweep(self) -> None:
        """Take away the parts of uploads that have expired."""
        late = UPLOADS.c.expires_at <= self._database.clock.now()
        hashes: list[str] = []
        with self._database.write() as connection:
            pending = select(UPLOADS.c.id).where(UPLOADS.c.status == "pending", late)
            for upload_id in list(connection.execute(pending).scalars()):
                hashes += _take_parts(connection, upload_id)
                connection.execute(update(UPLOADS).where(UPLOADS.c.id == upload_id).values(status="expired"))
        self._content.drop_unused(self._database, hashes)

    def _put_together(self, draft: Draft, hashes: Sequence[str]) -> str:
        """Write the parts one after another; returns their MD5 in hex."""
        digest = hashlib.md5(usedforsecurity=False)
        for sha256 in hashes:
            with self._content.artifacts.path(sha256).open("rb") as file:
                while piece := file.read(_PIECE_BYTES):
                    digest.update(piece)
                    draft.write(piece)
        draft.finish()
        return digest.hexdigest()

    def _drop(self, hashes: Sequence[str]) -> None:
        """Delete parts' bytes; the upload is over, whether or not they are gone yet."""
        with suppress(StoreFault):
            self._content.drop_unused(self._database, hashes)

    def _pending(self, connection: Connection, project: str, upload_id: str, *, lock: bool = True) -> Row[Any]:
        row = _find(connection, project, upload_id, lock=lock)
        if (status := self._status(row)) != "pending":
            message = f"upload {upload_id} is {status}, expected a pending one; create a new upload"
            raise UserError(message, param="upload_id", code="upload_over")
        return row

    def _status(self, row: Row[Any]) -> Status:
        is_late = row.status == "pending" and row.expires_at <= self._database.clock.now()
        return "expired" if is_late else row.status

    def _upload(self, row: Row[Any]) -> StoredUpload:
        return StoredUpload(
            id=row.id,
            project=row.project_id,
            filename=row.filename,
            purpose=row.purpose,
            bytes=row.bytes,
            status=self._status(row),
            created_at=row.created_at,
            expires_at=row.expires_at,
            file_id=row.file_id,
        )


def _find(connection: Connection, project: str, upload_id: str, *, lock: bool = False) -> Row[Any]:
    query = select(UPLOADS).where(UPLOADS.c.id == upload_id, UPLOADS.c.project_id == project)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        message = f"no upload {upload_id!r} in this project; check the id"
        raise UserError(message, param="upload_id", code="not_found")
    return row


def _take_parts(connection: Connection, upload_id: str) -> list[str]:
    """Forget the upload's parts; the hashes of their bytes, which are still there."""
    taking = delete(UPLOAD_PARTS).where(UPLOAD_PARTS.c.upload_id == upload_id).returning(UPLOAD_PARTS.c.sha256)
    return list(connection.execute(taking).scalars())


def _check_parts(row: Row[Any], parts: dict[str, Row[Any]], part_ids: Sequence[str]) -> None:
    for number, part_id in enumerate(part_ids):
        if part_id not in parts:
            message = f"no part {part_id!r} in upload {row.id}; check the ids that adding parts gave"
            raise UserError(message, param=f"part_ids.{number}", code="not_found")
    if len(set(part_ids)) < len(part_ids):
        raise UserError("a part is named twice; name each one once, in order", param="part_ids")
    n_bytes = sum(parts[part_id].bytes for part_id in part_ids)
    if n_bytes != row.bytes:
        message = f"the parts hold {n_bytes} bytes, expected the {row.bytes} that were announced; name all parts"
        raise UserError(message, param="part_ids", code="upload_mismatch")
