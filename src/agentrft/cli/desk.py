"""Where the commands about jobs find them: in the store of this machine, or at a server. Both answer alike."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from agentrft.errors import UserError

if TYPE_CHECKING:
    from agentrft.protocols import EpisodeFilter

SERVER, KEY = "AGENTRFT_SERVER", "AGENTRFT_API_KEY"
"""Environment: the server to ask where `--server` is left out, and the key for it."""
Format = Literal["adapter", "merged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """What a person wants to know of a job at a glance."""

    id: str
    kind: str
    status: str
    created_at: float
    model: str
    result: str | None
    error: str | None
    folder: Path | None
    """Where it keeps its files; None at a server."""
    is_run_here: bool
    """Its runner is this command line, not a server."""

    @property
    def is_final(self) -> bool:
        """Nothing more will happen to it."""
        return self.status in ("succeeded", "failed", "cancelled")


class Desk(Protocol):
    """Jobs, wherever they are. Unknown ones raise UserError, a server that is down BoundaryError."""

    def jobs(self, limit: int) -> list[JobView]:
        """Newest first."""
        ...

    def find(self, given: str) -> str:
        """The id of the one job whose id begins so."""
        ...

    def job(self, job_id: str) -> JobView: ...
    def events(self, job_id: str, limit: int) -> list[dict[str, Any]]:
        """The newest ones as event objects, oldest first."""
        ...

    def follow(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Every event from the first on, until the job is final."""
        ...

    def metrics(self, job_id: str, *, after: int = -1) -> list[dict[str, Any]]:
        """`{step, metrics}` by step."""
        ...

    def checkpoints(self, job_id: str) -> list[dict[str, Any]]:
        """Checkpoint objects, newest first; at home their `path` stands in place of a model's name."""
        ...

    def episodes(self, job_id: str, wanted: EpisodeFilter, limit: int) -> list[dict[str, Any]]: ...
    def export(self, job_id: str, wanted: EpisodeFilter) -> Iterator[str]:
        """Lines of JSON with traces."""
        ...

    def pause(self, job_id: str) -> JobView: ...
    def resume(self, job_id: str) -> JobView: ...
    def cancel(self, job_id: str) -> JobView: ...
    def weights(self, job_id: str, checkpoint: str, format: Format) -> Iterator[bytes]:
        """A tar of the checkpoint with that id, or of the `result`."""
        ...

    def close(self) -> None: ...


@contextmanager
def open_desk(server: str | None) -> Iterator[Desk]:
    """The jobs of that server, of the one in `AGENTRFT_SERVER`, or else of this machine's store."""
    desk = _opened(server or os.environ.get(SERVER))
    try:
        yield desk
    finally:
        desk.close()


def _opened(server: str | None) -> Desk:
    if server:
        from agentrft.cli.server_desk import ServerDesk

        return ServerDesk(server, os.environ.get(KEY))
    from agentrft.cli.store_desk import StoreDesk
    from agentrft.store import open_store

    return StoreDesk(open_store())


def check_new(folder: Path, *, option: str) -> None:
    """Raise UserError where the folder that `option` names is there already."""
    if folder.exists():
        raise UserError(
            f"{folder} is there already; expected a name for a new folder. Remove it, or name another with {option}",
            param=option,
            code="target_exists",
        )


def unpack(pieces: Iterator[bytes], folder: Path) -> list[Path]:
    """Write the files of a tar into a new folder; returns them. Raises UserError where the folder is there already."""
    check_new(folder, option="--to")
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = folder.with_name(f".tmp-{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    try:
        with tarfile.open(fileobj=_Stream(pieces), mode="r|") as archive:
            for member in archive:
                # One flat folder of plain files: whatever a server sends, nothing lands elsewhere.
                member.name = Path(member.name).name
                archive.extract(member, draft, filter="data")
        draft.rename(folder)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return sorted(folder.iterdir())


class _Stream(RawIOBase):
    """Pieces of bytes as the file that `tarfile` reads from."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._left = piece
        taken, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


def checkpoint_of(checkpoints: Sequence[Mapping[str, Any]], given: str) -> str:
    """The id of the checkpoint that a step, an id or a model's name means; `result` means itself."""
    if given == "result":
        return given
    for one in checkpoints:
        if given in (str(one["step_number"]), one["id"], one.get("fine_tuned_model_checkpoint")):
            return one["id"]
    steps = ", ".join(str(one["step_number"]) for one in checkpoints) or "none yet"
    raise UserError(
        f"no checkpoint {given!r}; expected `result`, or one of the steps {steps}",
        param="--checkpoint",
        code="not_found",
    )
