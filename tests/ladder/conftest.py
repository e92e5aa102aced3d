"""The scripted engine and the jobs of the tests of the whole ladder, as a module; test modules cannot import this."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest


@pytest.fixture(scope="session")
def lab() -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(Path(__file__).parent / "lab.py")))
