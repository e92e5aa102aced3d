"""`dtype: auto` is measured once a job: what a busy machine measures later does not change its numbers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from agentrft import build
from agentrft.jobs.load import load_job
from agentrft.jobs.models import Weights
from agentrft.jobs.service import create_job, stored_job
from agentrft.jobs.spec import JobSpec
from agentrft.runtime.inprocess import run_job
from agentrft.store import open_store


def test_a_job_goes_on_in_the_dtype_that_it_began_with(
    make_job: Callable[..., Path], own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, base_dir = load_job(make_job())
    store, dtypes = open_store(), []

    async def load(spec: JobSpec, weights: Weights, training: bool) -> build.Engine:
        engine = await build.load_engine(spec, weights, training)
        dtypes.append(engine.dtype)
        return engine

    def measures(speedup: float) -> None:
        monkeypatch.setattr("agentrft.engines.torch_model.bfloat16_speedup", lambda device: speedup)

    measures(2.0)
    job = create_job(store, spec, base_dir, kind="supervised")
    assert asyncio.run(run_job(store, job, load=load, should_stop=lambda: "asked")).stopped
    measures(0.5)
    assert asyncio.run(run_job(store, stored_job(store, job.id), load=load)).model
    other = create_job(store, spec, base_dir, kind="supervised")
    assert asyncio.run(run_job(store, other, load=load)).model
    assert dtypes == ["bfloat16", "bfloat16", "float32"]
    store.close()
