"""The files of a job's Python tools, and what its sources share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agentrft.tools.code_file import CodeFiles
from agentrft.tools.process import Forker, SourceFile
from agentrft.tools.thread import CallThreads


class PythonFiles(CodeFiles):
    """One for each job: its files, run once, its threads, and the process that forks its workers."""

    def __init__(self, base_dir: Path) -> None:
        super().__init__(base_dir)
        self.forker = Forker()
        self.threads = CallThreads()
        self._sources: dict[Path, SourceFile] = {}

    def find(self, target: str, param: str) -> tuple[Any, SourceFile]:
        """What `file.py:NAME` names, and the file as it is now. Raises UserError as `load` does."""
        found = self.load(target, what="tool", param=param)
        path = (self._base_dir / target.rpartition(":")[0]).resolve()
        if path not in self._sources:
            name = self._modules[path].__name__
            self._sources[path] = SourceFile(module=name, path=path, source=path.read_bytes())
        return found, self._sources[path]
