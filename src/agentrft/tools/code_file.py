"""Python files of the user's, run once, and names in them: `tools.py:FileTree`."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from agentrft.errors import UserError


class CodeFiles:
    """The files of one job; each runs once, however many names are taken from it."""

    def __init__(self, base_dir: Path) -> None:
        self._base_dir = base_dir
        self._modules: dict[Path, ModuleType] = {}

    def load(self, target: str, *, what: str, param: str) -> Any:
        """What `file.py:NAME` names, the file relative to the job.

        Raises UserError for a missing file, a file that raises on import, and a missing name.
        """
        file_name, _, name = target.rpartition(":")
        path = (self._base_dir / file_name).resolve()
        if path not in self._modules:
            self._modules[path] = run_file(path, f"{what} {target}", param)
        module = self._modules[path]
        found = getattr(module, name, None)
        if found is None:
            own = [key for key, value in vars(module).items() if _is_own(key, value, module)]
            has = f"it has {', '.join(own)}" if own else "it has no public functions or classes"
            raise UserError(f"{what} {target}: {path} has no {name}; {has}", param=param, code="tool_not_found")
        return found


def run_file(path: Path, what: str, param: str) -> ModuleType:
    """The module that a file is; raises UserError when there is no such file, or when it raises."""
    if not path.is_file():
        message = f"{what}: no file {path}; the path is relative to the job file, as in `tools.py:search`"
        raise UserError(message, param=param, code="tool_not_found")
    # The name is made from the path so that two examples' `tools.py` never answer for each other.
    module_name = f"agentrft_tools_{hashlib.sha256(str(path).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # dataclasses look their module up while the file runs
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        hint = f"run `python {path}` to see it"
        if isinstance(error, ModuleNotFoundError):
            # `python FILE` adds the file's folder to `sys.path`, so it may well succeed.
            hint = f"{path.parent} is not on sys.path: install that module, or put its code into {path.name}"
        message = f"{what}: {path} raised {type(error).__name__} on import: {error}; {hint}"
        raise UserError(message, param=param, code="invalid_tool") from error
    return module


def _is_own(name: str, value: Any, module: ModuleType) -> bool:
    is_code = inspect.isfunction(value) or inspect.isclass(value)
    return is_code and not name.startswith("_") and value.__module__ == module.__name__
