"""Engines on the machine's GPU; every test here is marked `gpu` and skipped with the reason where there is none."""

from __future__ import annotations

import importlib.util
from collections.abc import AsyncIterator, Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

if importlib.util.find_spec("torch") is None:
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def device() -> str:
    """`cuda` or `mps`; without either the test is skipped."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    if torch.backends.mps.is_available():
        return "mps"
    pytest.skip("this machine has no GPU that torch can use")


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """tiny("llama"): the folder of a random-weight model of that family, made once."""
    from oracle import save_tiny_model

    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family not in made:
            made[family] = save_tiny_model(family, tmp_path_factory.mktemp("tiny") / family)
        return made[family]

    return make


@pytest.fixture
async def load(device: str, tiny: Callable[[str], Path]) -> AsyncIterator[Callable[..., Any]]:
    """load("llama", dtype="bfloat16", …): a TorchEngine on the GPU, closed after the test."""
    from agentrft.engines.torch_engine import GeneratorSettings, LearnerSettings, TorchEngine

    engines: list[TorchEngine] = []

    def start(family: str, **options: Any) -> TorchEngine:
        for name, settings in (("learner", LearnerSettings), ("generator", GeneratorSettings)):
            options[name] = settings(**{f.name: options.pop(f.name) for f in fields(settings) if f.name in options})
        engines.append(TorchEngine.load(tiny(family), **{"device": device, **options}))
        return engines[-1]

    yield start
    for engine in engines:
        await engine.close()
