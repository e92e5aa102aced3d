"""The worlds of these tests, as a module that they all share."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))  # for harness.effects


@pytest.fixture(scope="session")
def worlds() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "worlds.py")))
