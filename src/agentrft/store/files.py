"""Users' files: a row for each, and the bytes by their hash (`files/<sha256>`), once for all files that have them.

Names are metadata and never part of a path. Bytes appear in the transaction that adds the first row that names them and
go behind the one that takes the last, because a transaction that is undone brings no bytes back; what a crash leaves in
between, `Files.sweep` takes. Jobs hold hard links of their own.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import string
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, Row, delete, func, insert, or_, select, text

from agentrft.errors import StoreFault, UserError
from agentrft.store.artifacts import Artifacts, fsync_folder
from agentrft.store.database import Database
from agentrft.store.schema import FILES, UPLOAD_PARTS, UPLOADS
from agentrft.store.values import storable

_ALPHABET = string.ascii_letters + string.digits
_DRAFT_PREFIX = ".tmp-"
_DRAFT_LIVES_S = 24 * 3600
_LONGEST_NAME = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """One file of a project."""

    id: str
    project: str
    sha256: str
    bytes: int
    filename: str
    purpose: str
    created_at: float
    expires_at: float | None


def new_id(prefix: str) -> str:
    """`prefix` and 24 random letters and digits: 142 bits that nobody guesses."""
    return prefix + "".join(secrets.choice(_ALPHABET) for _ in range(24))


class Draft:
    """Bytes on their way in: on the disk under a name that nobody reads, hashed as they come."""

    def __init__(self, folder: Path) -> None:
        """StoreFault when the disk refuses."""
        self.path = folder / f"{_DRAFT_PREFIX}{secrets.token_hex(16)}"
        self.n_bytes = 0
        self._digest = hashlib.sha256()
        with _disk_faults(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("xb")

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hex."""
        return self._digest.hexdigest()

    def write(self, data: bytes) -> None:
        """Append; StoreFault when the disk refuses."""
        with _disk_faults(self.path.parent):
            self._file.write(data)
        self._digest.update(data)
        self.n_bytes += len(data)

    def finish(self) -> None:
        """Everything is on the disk after this; StoreFault when it is not."""
        with _disk_faults(self.path.parent):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()

    def discard(self) -> None:
        """Drop the bytes, unless they were kept; safe to call twice."""
        with suppress(OSError):
            self._file.close()
        self.path.unlink(missing_ok=True)


class FileBytes:
    """The bytes behind files and parts: kept within the transaction that adds a row, taken behind the last row's."""

    def __init__(self, artifacts: Artifacts, *, project_bytes: int) -> None:
        self.artifacts = artifacts
        self.project_bytes = project_bytes
        """What all files and unfinished uploads of a project may hold."""

    def keep(self, connection: Connection, draft: Draft) -> None:
        """Give a finished draft its name; StoreFault when the disk refuses."""
        lock_bytes(connection, draft.sha256)
        folder = self.artifacts.folder
        with _disk_faults(folder):
            draft.path.replace(folder / draft.sha256)
            fsync_folder(folder)

    def drop_unused(self, database: Database, hashes: Iterable[str]) -> None:
        """Delete those of these bytes that no row names, in a transaction of its own: call it behind the caller's.

        StoreFault when the store or the disk refuses; what is left then goes with the next `Files.sweep`.
        """
        if not (named := sorted(set(hashes))):
            return
        with database.write() as connection, _disk_faults(self.artifacts.folder):
            for sha256 in named:
                lock_bytes(connection, sha256)
                if not _is_used(connection, sha256):
                    (self.artifacts.folder / sha256).unlink(missing_ok=True)

    def lock_project(self, connection: Connection, project: str) -> None:
        """Nobody else adds to the project until the transaction ends. Before `lock_bytes`, never behind it."""
        lock_bytes(connection, hashlib.sha256(project.encode()).hexdigest())

    def check_quota(self, connection: Connection, project: str, more: int) -> None:
        """UserError (`exceeded_quota`) when the project would hold more than it may, until the transaction ends."""
        self.lock_project(connection, project)
        files = select(func.coalesce(func.sum(FILES.c.bytes), 0)).where(FILES.c.project_id == project)
        parts = (
            select(func.coalesce(func.sum(UPLOAD_PARTS.c.bytes), 0))
            .join_from(UPLOAD_PARTS, UPLOADS, UPLOAD_PARTS.c.upload_id == UPLOADS.c.id)
            .where(UPLOADS.c.project_id == project)
        )
        held = int(connection.execute(files).scalar_one()) + int(connection.execute(parts).scalar_one())
        if held + more > self.project_bytes:
            raise UserError(
                f"the project's files hold {held} bytes and {more} more came, expected {self.project_bytes} at most in "
                "all; delete files, or ask the operator for more (`limits.project_bytes`)",
                param="file",
                code="exceeded_quota",
            )


class Files:
    """A project's files."""

    def __init__(self, database: Database, content: FileBytes) -> None:
        self._database = database
        self._content = content

    def draft(self) -> Draft:
        """Begin to receive a file."""
        return Draft(self._content.artifacts.folder)

    def add(
        self, project: str, draft: Draft, *, filename: str, purpose: str, expires_after_s: int | None = None
    ) -> StoredFile:
        """A new file from a finished draft. UserError when the project's quota does not hold it."""
        with self._database.write() as connection:
            return self.add_row(connection, project, draft, filename, purpose, expires_after_s)

    def add_row(
        self,
        connection: Connection,
        project: str,
        draft: Draft,
        filename: str,
        purpose: str,
        expires_after_s: int | None,
    ) -> StoredFile:
        """`add`, within the caller's transaction."""
        self._content.check_quota(connection, project, draft.n_bytes)
        now = self._database.clock.now()
        row = {
            "id": new_id("file-"),
            "project_id": project,
            "sha256": draft.sha256,
            "bytes": draft.n_bytes,
            "filename": storable(filename)[:_LONGEST_NAME],
            "purpose": purpose,
            "created_at": now,
            "expires_at": None if expires_after_s is None else now + expires_after_s,
        }
        connection.execute(insert(FILES), row)
        self._content.keep(connection, draft)
        return _file(connection.execute(select(FILES).where(FILES.c.id == row["id"])).one())

    def get(self, project: str, file_id: str) -> StoredFile:
        """The file; UserError (`not_found`) for one that is not there, has expired, or is another project's."""
        with self._database.read() as connection:
            return _file(self._row(connection, project, file_id))

    def path(self, file: StoredFile) -> Path:
        """Where its bytes lie; UserError (`not_found`) when they are gone."""
        return self._content.artifacts.path(file.sha256)

    def list(
        self,
        project: str,
        *,
        purpose: str | None = None,
        order: Literal["asc", "desc"] = "desc",
        after: str | None = None,
        limit: int = 10_000,
    ) -> tuple[list[StoredFile], bool]:
        """Files in the order they were added, behind the one `after`; and whether there are more."""
        is_up = order == "asc"
        query = select(FILES).where(FILES.c.project_id == project, self._is_alive())
        query = query.order_by(FILES.c.seq if is_up else FILES.c.seq.desc()).limit(limit + 1)
        if purpose is not None:
            query = query.where(FILES.c.purpose == purpose)
        with self._database.read() as connection:
            if after is not None:
                seq = self._row(connection, project, after, param="after").seq
                query = query.where(FILES.c.seq > seq if is_up else FILES.c.seq < seq)
            found = [_file(row) for row in connection.execute(query)]
        return found[:limit], len(found) > limit

    def delete(self, project: str, file_id: str) -> None:
        """Take the file away, for good. UserError (`not_found`) as `get`."""
        with self._database.write() as connection:
            row = self._row(connection, project, file_id)
            connection.execute(delete(FILES).where(FILES.c.id == file_id))
        with suppress(StoreFault):  # the file is gone, whether or not its bytes are yet
            self._content.drop_unused(self._database, [row.sha256])

    def sweep(self) -> int:
        """Take away expired files and bytes that nobody names; returns how many files went. Call it now and then."""
        with self._database.write() as connection:
            expired = connection.execute(select(FILES.c.id, FILES.c.sha256).where(~self._is_alive())).all()
            connection.execute(delete(FILES).where(FILES.c.id.in_([row.id for row in expired])))
        self._content.drop_unused(self._database, [row.sha256 for row in expired])
        self._sweep_folder()
        return len(expired)

    def _sweep_folder(self) -> None:
        """Drafts, and bytes without a row, of servers that died at the wrong moment."""
        folder = self._content.artifacts.folder
        if not folder.is_dir():
            return
        with _disk_faults(folder):
            old = _older_than(folder, _DRAFT_LIVES_S)
            for name in old:
                if name.startswith(_DRAFT_PREFIX):
                    (folder / name).unlink(missing_ok=True)
        named = select(FILES.c.sha256).union(select(UPLOAD_PARTS.c.sha256))
        with self._database.read() as connection:
            known = set(connection.execute(named).scalars())
        self._content.drop_unused(self._database, [name for name in old if len(name) == 64 and name not in known])

    def _is_alive(self) -> Any:
        return or_(FILES.c.expires_at.is_(None), FILES.c.expires_at > self._database.clock.now())

    def _row(self, connection: Connection, project: str, file_id: str, *, param: str = "file_id") -> Row[Any]:
        query = select(FILES).where(FILES.c.id == file_id, FILES.c.project_id == project, self._is_alive())
        row = connection.execute(query).first()
        if row is None:
            raise UserError(f"no file {file_id!r} in this project; check the id", param=param, code="not_found")
        return row


def lock_bytes(connection: Connection, sha256: str) -> None:
    """Hold what has this hash until the transaction ends. SQLite has one writer at a time anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": int(sha256[:15], 16)})


@contextmanager
def _disk_faults(folder: Path) -> Iterator[None]:
    """Raise StoreFault for whatever the disk raises inside."""
    try:
        yield
    except OSError as error:
        message = f"the disk refused a file in {folder}: {error}; free space on it, or mend access to the folder"
        raise StoreFault(message) from error


def _older_than(folder: Path, seconds: float) -> list[str]:
    """Names of the files in the folder that nobody wrote to for so long."""
    oldest = time.time() - seconds  # file times are the system's, whatever clock the store has
    old: list[str] = []
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):  # drafts come and go meanwhile
                if entry.is_file() and entry.stat().st_mtime < oldest:
                    old.append(entry.name)
    return old


def _is_used(connection: Connection, sha256: str) -> bool:
    queries = (
        select(FILES.c.seq).where(FILES.c.sha256 == sha256),
        select(UPLOAD_PARTS.c.seq).where(UPLOAD_PARTS.c.sha256 == sha256),
    )
    return any(connection.execute(query.limit(1)).first() for query in queries)


def _file(row: Row[Any]) -> StoredFile:
    return StoredFile(
        id=row.id,
        project=row.project_id,
        sha256=row.sha256,
        bytes=row.bytes,
        filename=row.filename,
        purpose=row.purpose,
        created_at=row.created_at,
        expires_at=row.expires_at,
    )
