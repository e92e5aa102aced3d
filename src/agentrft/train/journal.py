"""Graded episodes on disk before they are used, so that a killed job replays them instead of losing them."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from agentrft.errors import StoreFault
from agentrft.protocols import EpisodeRecord
from agentrft.rollout import GradedEpisode
from agentrft.store import codec


class Journal:
    """One JSON line per episode: `{"crc32": …, "record": …}`, the record as the store has it.

    Holds what has been played since the last checkpoint; `clear` follows each one. A line that is torn, because the
    process died while writing it, or damaged, is left out: that episode is played again.
    """

    def __init__(self, path: Path, *, job_id: str) -> None:
        """Opens the file, making it where there is none; raises StoreFault where that cannot be done."""
        self._job_id = job_id
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
            self.finished = self._read()
            """Graded episodes by id; grows with every `add`."""
        except OSError as error:
            raise StoreFault(f"could not open the journal {path}: {error}") from error

    def add(self, graded: GradedEpisode) -> None:
        """Append an episode. It survives the death of this process from now on, a power cut from `sync` on."""
        with self._faults():
            self._file.write(self._line(graded))
            self._file.flush()
        self.finished[graded.episode.id] = graded

    def sync(self) -> None:
        """Return once everything added is on the disk itself."""
        with self._faults():
            os.fsync(self._file.fileno())

    def clear(self, *, through: int | None = None) -> None:
        """Forget the episodes of steps up to `through`, by default all: a checkpoint holds what came of them."""
        self.finished = {
            name: graded
            for name, graded in self.finished.items()
            if through is not None and graded.episode.step > through
        }
        with self._faults():
            if self.finished:
                self._rewrite()
            else:
                self._file.truncate(0)
        self.sync()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):  # what a full disk refused is still in the buffer, and has been reported
            self._file.close()

    def _rewrite(self) -> None:
        """The file with what is left, whole or not at all."""
        draft = self._path.with_name(f".{self._path.name}.tmp")
        with draft.open("wb") as file:
            file.writelines(self._line(graded) for graded in self.finished.values())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._path)
        self._file.close()
        self._file = self._path.open("a+b")

    def _line(self, graded: GradedEpisode) -> bytes:
        record = EpisodeRecord(
            job_id=self._job_id, phase="train", stage="rft", episode=graded.episode, grade=graded.grade
        )
        text = _dumps(codec.to_json(record))
        return f'{{"crc32":{_crc(text)},"record":{text}}}\n'.encode()

    @contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreFault(
                f"could not write the journal {self._path}: {error}; free disk space, then resume the job"
            ) from error

    def _read(self) -> dict[str, GradedEpisode]:
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        # Without this the next line would be glued to the torn one and both be lost.
        self._file.truncate(whole)
        graded = [_graded(line) for line in data[:whole].splitlines()]
        return {one.episode.id: one for one in graded if one}


def _graded(line: bytes) -> GradedEpisode | None:
    try:
        document = json.loads(line)
        if document["crc32"] != _crc(_dumps(document["record"])):
            return None
    except (ValueError, KeyError, TypeError):
        return None
    record = codec.from_json(document["record"])
    return GradedEpisode(episode=record.episode, grade=record.grade)


def _dumps(document: Any) -> str:
    return json.dumps(document, separators=(",", ":"))


def _crc(text: str) -> int:
    return zlib.crc32(text.encode())
