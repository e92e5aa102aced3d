"""Files by the hash of their contents: written once, never changed, shared by every job that uses the same bytes."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from agentrft.errors import StoreFault, UserError

_CHUNK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Artifacts:
    """The folder `files/<sha256>`. A name is there only when its bytes are complete and on disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, data: bytes) -> str:
        """Keep `data`; returns its SHA-256 in hex. Keeping the same bytes again changes nothing."""
        return self._put([data])

    def put_file(self, path: Path) -> str:
        """Keep a copy of the file at `path`, read piece by piece; returns its SHA-256 in hex. UserError if missing."""
        if not path.is_file():
            raise UserError(f"no file {path}; check the path", param="file", code="not_found")
        return self._put(_pieces(path))

    def path(self, sha256: str) -> Path:
        """Where the bytes lie, unchecked; raises UserError when they are not here."""
        if not _SHA256.fullmatch(sha256) or not (path := self.folder / sha256).is_file():
            raise UserError(
                f"no file with SHA-256 {sha256!r} in {self.folder}; upload it again", param="file", code="not_found"
            )
        return path

    def read(self, sha256: str) -> bytes:
        """The bytes, checked against their name; raises UserError when absent, StoreFault when damaged."""
        data = self.path(sha256).read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise StoreFault(
                f"{self.folder / sha256} does not match its hash: damaged on disk; restore or re-upload it"
            )
        return data

    def _put(self, pieces: Iterable[bytes]) -> str:
        temporary = self.folder / f".tmp-{uuid.uuid4().hex}"
        digest = hashlib.sha256()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("xb") as file:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.folder / digest.hexdigest())
            fsync_folder(self.folder)
        except OSError as error:
            raise StoreFault(f"could not keep a file in {self.folder}: {error}; free space or mend access") from error
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return digest.hexdigest()


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(_CHUNK_BYTES):
            yield piece


def fsync_folder(folder: Path) -> None:
    """A rename is durable only when the folder that holds the name is; raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
