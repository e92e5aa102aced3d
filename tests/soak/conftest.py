"""The tiny model of the e2e tests, and real workers as in the tests of the runtime."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "runtime_conftest", Path(__file__).parents[1] / "runtime" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_runtime = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_runtime)
tiny_model, make_job, own_home, bench = _runtime.tiny_model, _runtime.make_job, _runtime.own_home, _runtime.bench
