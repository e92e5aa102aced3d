"""The files of a job from the network, in a folder of its own: deleting an uploaded file never breaks a job.

`AGENTRFT_HOME/inputs/<random>/<file-id>.jsonl`, hard links to the stored bytes, which never change.
"""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path
from typing import Self

from agentrft.errors import StoreFault
from agentrft.home import home


class Inputs:
    """One job's folder; `kept` unless the block that made it ends with an exception."""

    def __init__(self) -> None:
        """Makes the folder; raises StoreFault when the disk refuses."""
        self.folder = home() / "inputs" / secrets.token_hex(12)
        try:
            self.folder.mkdir(parents=True)
        except OSError as error:
            raise self._fault(error) from error

    def add(self, file_id: str, source: Path) -> str:
        """Put a file there; returns its name in the folder, `<id>.jsonl`. The same file again changes nothing."""
        target = self.folder / f"{file_id}.jsonl"
        try:
            if not target.exists():
                _link(source, target)
        except OSError as error:
            raise self._fault(error) from error
        return target.name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def _fault(self, error: OSError) -> StoreFault:
        return StoreFault(f"could not keep a job's files in {self.folder}: {error}; free space or mend access")


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:  # another file system, or one without hard links
        shutil.copyfile(source, target)
