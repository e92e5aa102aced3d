"""A home with a store; and the engine and the jobs of the tests of the whole ladder, as a module that all share."""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from agentrft.store import SqlStore, open_store


@pytest.fixture(scope="session")
def lab() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "lab.py")))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An AGENTRFT_HOME of this test's own, not made yet."""
    monkeypatch.setenv("AGENTRFT_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def store(home: Path) -> Iterator[SqlStore]:
    one = open_store()
    yield one
    one.close()
