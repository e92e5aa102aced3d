"""Tools of a job for a test, closed when it ends, and a folder with bad ones."""

from __future__ import annotations

import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from agentrft.tools import JobTools, PythonBinding, ToolLimits, open_toolset

sys.path.insert(0, str(Path(__file__).parent))  # for process_calls.py

OpenTools = Callable[..., Awaitable[JobTools]]


@pytest.fixture
async def open_tools() -> AsyncIterator[OpenTools]:
    """`await open_tools(folder, *bindings, limits=None)`."""
    opened: list[JobTools] = []

    async def open_them(folder: Path, *bindings: PythonBinding, limits: ToolLimits | None = None) -> JobTools:
        opened.append(await open_toolset(bindings, folder, limits))
        return opened[-1]

    yield open_them
    for tools in opened:
        await tools.close()


@pytest.fixture
def wild(tmp_path: Path) -> Path:
    """A folder whose tools.py is `wild_tools.py`."""
    shutil.copy(Path(__file__).with_name("wild_tools.py"), tmp_path / "tools.py")
    return tmp_path
